package jailtest

import (
	"bytes"
	"io"
	"os"
	"sync"
)

// Text collects what a jail says. Many may write to it.
type Text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *Text) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *Text) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// Copy copies a program to where there is nothing yet, for everybody to run.
func Copy(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}
