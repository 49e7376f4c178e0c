package jail

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

// endless is an agent that prints the same for ever, or until so many bytes were read.
type endless struct {
	text string
	left int
	read int
}

func (e *endless) Read(b []byte) (n int, err error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	e.read++
	for n < len(b) && n < e.left {
		n += copy(b[n:min(len(b), e.left)], e.text)
	}
	e.left -= n
	return n, nil
}

// Who prints for ever waits for the reader, and who keeps within bounds never does.
func TestWhoPrintsForEverWaits(t *testing.T) {
	const most = 1 << 20
	for name, text := range map[string]string{"lines": strings.Repeat("x", 99) + "\n", "one line": "x"} {
		for _, much := range []int{most, 10 * most, 64 * most} {
			var c capture
			var out bytes.Buffer
			var waited time.Duration
			agent := &endless{text: text, left: much}
			c.run(agent, &out, Output{Bytes: most, Line: 8 << 10}, func(d time.Duration) {
				if d <= 0 || d > waitMost {
					t.Fatalf("%s: it waits %s", name, d)
				}
				waited += d
			})
			within := much == most && name != "one line"
			switch {
			case c.total.Load() != int64(much) || c.truncated.Load() == within || out.Len() > most:
				t.Errorf("%s: of %d bytes %d were read and %d passed on, truncated %t", name, much, c.total.Load(), out.Len(), c.truncated.Load())
			case within && waited != 0:
				t.Errorf("%s: what is within bounds waits %s", name, waited)
			case much == 10*most && waited > 2*time.Second:
				t.Errorf("%s: 10 MiB wait %s", name, waited)
			case much == 64*most && waited < 30*time.Second:
				t.Errorf("%s: 64 MiB wait only %s, in %d reads", name, waited, agent.read)
			}
		}
	}
}
