package writ_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
)

// draw makes any value of the types documents are made of.
func draw(t *rapid.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			draw(t, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rapid.IntRange(1, 3).Draw(t, "len"), 3))
		if v.Type() == reflect.TypeFor[writ.RawObject]() {
			v.SetBytes([]byte(`{"a":1}`))
			return
		}
		for i := range v.Len() {
			draw(t, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rapid.IntRange(1, 3).Draw(t, "members") {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			draw(t, k)
			draw(t, e)
			v.SetMapIndex(k, e)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		draw(t, v.Elem())
	case reflect.String:
		v.SetString(rapid.StringMatching(`[a-z]{1,5}`).Draw(t, "text"))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64Range(1, 1<<40).Draw(t, "number"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	default:
		t.Fatalf("a document holds a %s: teach Copy and this test what to do with it", v.Type())
	}
}

// spoil changes everything that can be reached from v.
func spoil(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			spoil(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			spoil(v.Index(i))
		}
	case reflect.Map:
		v.Clear()
	case reflect.Pointer:
		spoil(v.Elem())
	default:
		v.SetZero()
	}
}

// What one reader does to a document it got from a cache nobody else sees.
func TestCachedDocumentsAreCopies(t *testing.T) {
	t.Run("gate", rapid.MakeCheck(cachedAreCopies[writ.Gate]))
	t.Run("session", rapid.MakeCheck(cachedAreCopies[writ.Session]))
	t.Run("run", rapid.MakeCheck(cachedAreCopies[writ.Run]))
	t.Run("agent", rapid.MakeCheck(cachedAreCopies[writ.Agent]))
}

func cachedAreCopies[T any](t *rapid.T) {
	var want T
	draw(t, reflect.ValueOf(&want).Elem())
	body, err := writ.EncodeDoc(writ.Snapshot{}, "k", "doc", want)
	if err != nil {
		t.Fatal(err)
	}
	s := writ.Snapshot{Docs: map[writ.Key]writ.Doc{"k": {Version: 7, Body: body}}, Cache: new(writ.DocCache)}
	if _, can := any(want).(interface{ Copy() T }); !can {
		t.Fatalf("%T cannot be remembered", want)
	}
	for range 4 {
		got, version, ok, err := writ.Get[T](s, "k")
		if err != nil || !ok || version != 7 || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %d, %v, %v; want %+v", got, version, ok, err, want)
		}
		spoil(reflect.ValueOf(&got).Elem())
	}
}

// A cache never answers for other bytes, another type, or a document that is
// absent or unread.
func TestCacheFollowsTheBytes(t *testing.T) {
	var cache writ.DocCache
	at := func(version int64, title string) writ.Snapshot {
		body, err := writ.EncodeDoc(writ.Snapshot{}, "run/x", "run", writ.Run{Title: title, Budget: map[string]int64{"steps": 1}})
		if err != nil {
			t.Fatal(err)
		}
		return writ.Snapshot{Docs: map[writ.Key]writ.Doc{"run/x": {Version: version, Body: body}}, Cache: &cache}
	}
	for i, title := range []string{"a", "b", "b", "a"} {
		r, version, ok, err := writ.Get[writ.Run](at(int64(i+1), title), "run/x")
		if err != nil || !ok || version != int64(i+1) || r.Title != title {
			t.Fatalf("got %q at %d, %v, %v; want %q at %d", r.Title, version, ok, err, title, i+1)
		}
	}
	if s, _, ok, err := writ.Get[writ.Session](at(9, "a"), "run/x"); err != nil || !ok || s.ID != "" {
		t.Fatalf("got %+v, %v, %v", s, ok, err)
	}
	if _, _, ok, err := writ.Get[writ.Run](at(0, "a"), "run/x"); err != nil || ok {
		t.Fatalf("an absent document was found: %v, %v", ok, err)
	}
	if _, _, _, err := writ.Get[writ.Run](at(9, "a"), "run/y"); err == nil {
		t.Fatal("a document was given that nobody read")
	}
}

// More documents than a cache holds, by several goroutines.
func TestCacheIsBounded(t *testing.T) {
	var cache writ.DocCache
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 3000 {
				id := fmt.Sprint(g%2, "-", i)
				k := writ.Key("run/" + id)
				body := fmt.Appendf(nil, `{"kind":"run","schema":1,"body":{"id":%q}}`, id)
				r, _, _, err := writ.Get[writ.Run](writ.Snapshot{Docs: map[writ.Key]writ.Doc{k: {Version: 1, Body: body}}, Cache: &cache}, k)
				if err != nil || string(r.ID) != id {
					t.Errorf("got %q, %v; want %q", r.ID, err, id)
				}
			}
		})
	}
	all.Wait()
	if n := reflect.ValueOf(&cache).Elem().FieldByName("m").Len(); n > 1024 {
		t.Fatalf("%d documents are remembered", n)
	}
}

// Get reads every envelope as encoding/json does, whoever wrote it: the short
// way for our own bytes changes nothing.
func TestEnvelopesAreReadAsJSON(t *testing.T) {
	piece := rapid.SampledFrom([]string{
		`{"kind":"`, `run`, `","schema":1,"body":`, `{"id":"x"}`, `{"title":"y"}`, `{"sealed":7}`, `}`, `,"body":`, `,"schema":2`, `,"schema":1`, `"`, `\"`, ` `, `null`, `[`, `1`,
	})
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(`{"kind":"run","schema":1,"body":`)
		if rapid.IntRange(0, 3).Draw(t, "own") == 0 {
			text = nil
		}
		for _, p := range rapid.SliceOfN(piece, 0, 6).Draw(t, "pieces") {
			text = append(text, p...)
		}
		if rapid.Bool().Draw(t, "close") {
			text = append(text, '}')
		}
		var e writ.Envelope
		var want writ.Run
		wantErr := json.Unmarshal(text, &e)
		newer := wantErr == nil && e.Schema > writ.Schema
		if wantErr == nil {
			wantErr = json.Unmarshal(e.Body, &want)
		}
		got, _, ok, err := writ.Get[writ.Run](writ.Snapshot{Docs: map[writ.Key]writ.Doc{"k": {Version: 1, Body: text}}}, "k")
		switch {
		case newer:
			if writ.CodeOf(err) != writ.CodeUpgrade {
				t.Fatalf("%s: %v, want %s", text, err, writ.CodeUpgrade)
			}
		case (err == nil) != (wantErr == nil) || ok != (err == nil):
			t.Fatalf("%s: %v, encoding/json says %v", text, err, wantErr)
		case err == nil && !reflect.DeepEqual(got, want):
			t.Fatalf("%s: %+v, encoding/json says %+v", text, got, want)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	body, _ := writ.EncodeDoc(writ.Snapshot{}, "k", "session", writ.Session{ID: "ses_01ARYZ6S410000000000000000", Principal: "planner", ExpiresAt: 1469918176385})
	s := writ.Snapshot{Docs: map[writ.Key]writ.Doc{"k": {Version: 7, Body: body}}}
	for name, cache := range map[string]*writ.DocCache{"decoded": nil, "remembered": {}} {
		s.Cache = cache
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, ok, err := writ.Get[writ.Session](s, "k"); !ok || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
