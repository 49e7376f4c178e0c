package jail

import (
	"bufio"
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// capture passes on lines within bounds. What is over them is read and dropped, so that the agent
// goes on and nobody's memory fills; and ever more slowly, so that it is the agent who waits when it
// prints for ever, and not the reader who is kept busy.
type capture struct {
	total     atomic.Int64
	truncated atomic.Bool
}

// paced is a reader that waits before each read once something was dropped, each time longer. One
// that drops 10 MiB has waited a second in all.
type paced struct {
	io.Reader
	dropped *atomic.Bool
	wait    func(time.Duration) // returns at once when nobody prints any more
	reads   time.Duration
}

const (
	waitMore = 20 * time.Microsecond
	waitMost = 50 * time.Millisecond
)

func (p *paced) Read(b []byte) (int, error) {
	if p.dropped.Load() {
		p.reads++
		p.wait(min(p.reads*waitMore, waitMost))
	}
	return p.Reader.Read(b)
}

func (c *capture) run(r io.Reader, w io.Writer, o Output, wait func(time.Duration)) {
	if w == nil {
		w = io.Discard
	}
	in := bufio.NewReaderSize(&paced{Reader: r, dropped: &c.truncated, wait: wait}, 32<<10)
	left := o.Bytes
	line := make([]byte, 0, 512)
	emit := func() {
		if int64(len(line)) > left {
			line, left = line[:0], 0 // no half lines: what comes after looks for whole words
			c.truncated.Store(true)
			return
		}
		left -= int64(len(line))
		if len(line) > 0 {
			if _, err := w.Write(line); err != nil {
				c.truncated.Store(true)
				w = io.Discard
			}
		}
		line = line[:0]
	}
	for {
		part, err := in.ReadSlice('\n')
		c.total.Add(int64(len(part)))
		ends := err == nil
		if ends {
			part = part[:len(part)-1]
		}
		room := o.Line - len(line)
		if len(part) > room {
			part = part[:max(room, 0)]
			c.truncated.Store(true)
		}
		line = append(line, part...)
		if ends {
			line = append(line, '\n')
			emit()
			continue
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			emit()
			return
		}
	}
}
