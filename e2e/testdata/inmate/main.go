// Command inmate is an agent for tests of jails. It speaks plain HTTP, as anybody's
// agent may, and does what its last argument says.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	mode, with, _ := strings.Cut(os.Args[len(os.Args)-1], "=")
	switch mode {
	case "work":
		work()
	case "take":
		take(with)
	case "outside":
		outside(with)
	case "exit":
		code, _ := strconv.Atoi(with)
		os.Exit(code)
	case "hog":
		var all [][]byte
		for {
			b := bytes.Repeat([]byte{1}, 1<<20)
			all = append(all, b)
			_ = all
		}
	case "print":
		fmt.Println("password=" + with + " and all is well")
		fmt.Fprintln(os.Stderr, strings.Repeat("x", 100_000))
	case "stay":
		select {
		case <-time.After(time.Hour):
		}
	default:
		os.Exit(99)
	}
}

// held is a task in work.
type held struct {
	Task struct {
		TaskID string `json:"task_id"`
	} `json:"task"`
	Lease struct {
		ID    string `json:"id"`
		Fence int64  `json:"fence"`
	} `json:"lease"`
}

// claim waits for a task.
func claim() (got held) {
	for got.Task.TaskID == "" {
		call("POST", "/v1/tasks/claim", map[string]any{"wait_s": 5}, &got)
	}
	return got
}

// complete completes it. More than the result may be said of it.
func (h held) complete(result map[string]any, more map[string]any) {
	body := map[string]any{"lease_id": h.Lease.ID, "fence": h.Lease.Fence, "result": result}
	for k, v := range more {
		body[k] = v
	}
	call("POST", "/v1/tasks/"+h.Task.TaskID+"/complete", body, nil)
}

// work claims one task and completes it with what it knows of itself.
func work() {
	got := claim()
	var me map[string]any
	call("GET", "/v1/sessions/"+os.Getenv("WRIT_SESSION"), nil, &me)
	text, _ := os.ReadFile("/proc/self/environ")
	err := os.WriteFile("made.txt", []byte("made"), 0o644)
	wrote := "wrote"
	if err != nil {
		wrote = err.Error()
	}
	got.complete(map[string]any{
		"me": me["principal"], "uid": os.Getuid(), "environ": len(text), "token": strings.Contains(string(text), ".ses_"), "wrote": wrote,
	}, nil)
}

// take claims one task, and ends with 3 where it is not to be had.
func take(task string) {
	req, _ := http.NewRequest("POST", os.Getenv("WRIT_URL")+"/v1/tasks/"+task+"/claim", strings.NewReader("{}"))
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	if res.StatusCode == http.StatusForbidden {
		os.Exit(3)
	}
}

func call(method, path string, body, into any) {
	var b []byte
	if body != nil {
		b, _ = json.Marshal(body)
	}
	req, err := http.NewRequest(method, os.Getenv("WRIT_URL")+path, bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", "Bearer default.ses_00000000000000000000000000.nonsense") // who it is, the listener says
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", strconv.FormatInt(time.Now().UnixNano(), 10))
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	out, _ := io.ReadAll(res.Body)
	if res.StatusCode == http.StatusNoContent {
		return
	}
	if res.StatusCode > 299 {
		panic(fmt.Sprint(path, res.StatusCode, string(out)))
	}
	if into != nil {
		if err := json.Unmarshal(out, into); err != nil {
			panic(err)
		}
	}
}
