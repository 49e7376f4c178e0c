package wire

import (
	"reflect"
	"testing"
)

func whole() Spec {
	return Spec{
		UID: 1000, GID: 1000, Become: true, Hostname: "jail",
		Mounts: []Mount{
			{Kind: Bind, Source: "/a", Target: "/b", FD: -1, IsDir: true, Attr: 15, Mode: 0o755},
			{Kind: File, Target: "/etc/x", Content: "text\x00\n", FD: 2, Size: 1 << 40},
		},
		ReadOnly: []string{"/", "/run"}, Socket: "/run/s", Port: 80,
		Limits:   []Limit{{Resource: 7, Value: 1 << 60}},
		Landlock: Landlock{FS: 1<<16 - 1, Net: 3, Scoped: 3, Paths: []PathRule{{"/", 8}}, Connect: []uint64{80}},
		Filter:   "\x00\x01\x02\xff", Exec: "/agent/x", Args: []string{"x", ""}, Env: []string{"A=b"}, Dir: "/tmp", DeadlineMs: 5,
	}
}

// What is sent is what arrives, and nothing cut short or longer is taken for it.
func TestRoundTrip(t *testing.T) {
	s := whole()
	b := s.Encode()
	var got Spec
	if !got.Decode(b) || !reflect.DeepEqual(got, s) {
		t.Fatalf("got %+v", got)
	}
	for n := range len(b) {
		if new(Spec).Decode(b[:n]) {
			t.Fatalf("%d of %d bytes are a spec", n, len(b))
		}
	}
	if new(Spec).Decode(append(b, 0)) {
		t.Error("a longer message is a spec")
	}
	r := Report{Kind: Failed, Step: "mount", Detail: "/x", Errno: 1, Status: 2, Why: 3, UsernsLimit: true}
	var back Report
	if !back.Decode(r.Encode()) || back != r {
		t.Errorf("got %+v", back)
	}
}

func TestLaunchesCross(t *testing.T) {
	l := Launch{
		ID: 1, Flags: 2, UID: 3, HostUID: 4, GID: 5, HostGID: 6, SetGroups: true, Take: true, Caps: []uint64{7}, Group: true,
		Enter: []string{"/a"}, Leave: []string{"/b"},
	}
	var got Launch
	if b := l.Encode(); !got.Decode(b) || !reflect.DeepEqual(got, l) || new(Launch).Decode(b[1:]) {
		t.Errorf("got %+v", got)
	}
	d := Launched{ID: 1, Ended: true, Pid: 2, Errno: 3, InGroup: true, CPU: 4, Status: 5}
	var back Launched
	if b := d.Encode(); !back.Decode(b) || back != d || new(Launched).Decode(b[1:]) {
		t.Errorf("got %+v", back)
	}
}

// Every field crosses: one that was added and forgotten here would silently be its zero value.
func TestEveryFieldCrosses(t *testing.T) {
	var check func(path string, v reflect.Value)
	check = func(path string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				check(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case reflect.Slice:
			if v.Len() == 0 {
				t.Errorf("%s is not in the example", path)
			}
			if v.Len() > 0 && v.Index(0).Kind() == reflect.Struct {
				zero := reflect.New(v.Type().Elem()).Elem()
				for i := range v.Len() { // each field is set in one of them
					for f := range zero.NumField() {
						if !v.Index(i).Field(f).IsZero() {
							zero.Field(f).Set(v.Index(i).Field(f))
						}
					}
				}
				check(path+"[]", zero)
			}
		default:
			if v.IsZero() {
				t.Errorf("%s is not in the example", path)
			}
		}
	}
	check("Spec", reflect.ValueOf(whole()))
}

func FuzzDecode(f *testing.F) {
	s := whole()
	f.Add(s.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var got Spec
		if got.Decode(b) && !reflect.DeepEqual(got.Encode(), b) {
			t.Error("two messages are one spec")
		}
	})
}
