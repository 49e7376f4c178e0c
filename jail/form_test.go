package jail

import (
	"encoding/json"
	"testing"
	"time"
)

// What receipts and scripts read keeps its names.
func TestForms(t *testing.T) {
	for _, tt := range []struct {
		value any
		want  string
	}{
		{
			Features{
				Backend: "ns", Kernel: "6.18", Profile: "strict", Privileged: true, HostUID: 61000, Namespaces: []string{"user"}, Landlock: 7,
				Seccomp: "sha256:0", Cgroup: "v2", Controllers: []string{"memory"}, UsernsLimit: true, Proc: true,
				Limits: Limits{Memory: 1, Processes: 2, CPU: 3, Files: 4, FileSize: 5, Data: 6, Tmp: 7, Shm: 8},
			},
			`{"backend":"ns","kernel":"6.18","profile":"strict","privileged":true,"host_uid":61000,"namespaces":["user"],"landlock":7,` +
				`"seccomp":"sha256:0","cgroup":"v2","controllers":["memory"],"userns_limit":true,"proc":true,` +
				`"limits":{"memory":1,"processes":2,"cpu_percent":3,"files":4,"file_size":5,"data":6,"tmp":7,"shm":8}}`,
		},
		{
			Exit{Code: 137, Signal: 9, Reason: OOM, Truncated: true, Usage: Usage{Wall: time.Second, CPU: 2, MemoryPeak: 3, Stdout: 4, Stderr: 5, OOMKills: 6}},
			`{"code":137,"signal":9,"reason":"oom","truncated":true,"usage":{"wall_ns":1000000000,"cpu_ns":2,"memory_peak":3,"stdout":4,"stderr":5,"oom_kills":6}}`,
		},
		{Probe{Name: "kernel", Found: "old", Remedy: "a new one"}, `{"name":"kernel","ok":false,"found":"old","remedy":"a new one"}`},
		{
			Strict(),
			`{"name":"strict","system":false,"libraries":false,"tools":false,"write_dirs":false,"exec_in_scope":false,"datagrams":false,"servers":false,` +
				`"memfd_exec":false,"execveat":false,"splice":false,"without_cgroup":false,"without_proc":false,"min_landlock":4}`,
		},
	} {
		got, err := json.Marshal(tt.value)
		if err != nil || string(got) != tt.want {
			t.Errorf("got\n%s\nwant\n%s (%v)", got, tt.want, err)
		}
	}
}

func TestDefaultLimits(t *testing.T) {
	got := Limits{Memory: 7}.orDefault()
	if got.Memory != 7 || got.Processes != 128 || got.CPU != 0 || got.Shm != 16<<20 {
		t.Errorf("they are %+v", got)
	}
}
