// Package bucket keeps the files of a log in an object store. Every write is made on a
// condition, so that of two writers one finds out.
package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/writ-gateway/writ/internal/s3"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// Files are objects whose keys begin with a prefix; they implement tlog.Files.
type Files struct {
	bucket *s3.Bucket
	name   string
	prefix string // empty, or ending in /
}

// probe is the object that writes on a condition are tried with.
const probe = ".writ-probe"

// Open makes Files, and asks the store whether it heeds conditions. name says where they
// are, in messages.
func Open(ctx context.Context, b *s3.Bucket, name, prefix string) (*Files, error) {
	f := &Files{bucket: b, name: name, prefix: prefix}
	if err := b.Exclusive(ctx, prefix+probe); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *Files) String() string { return f.name }

// Read implements tlog.Files.
func (f *Files) Read(path string) ([]byte, error) {
	body, _, err := f.bucket.Get(context.Background(), f.prefix+path)
	return body, err
}

// Swap implements tlog.Files.
func (f *Files) Swap(path string, old, data []byte) error {
	ctx, key := context.Background(), f.prefix+path
	have, tag, err := f.bucket.Get(ctx, key)
	switch {
	case err == nil && bytes.Equal(have, data):
		return nil
	case err == nil && (old == nil || !bytes.Equal(have, old)), errors.Is(err, fs.ErrNotExist) && old != nil:
		return fmt.Errorf("%w: %s", tlog.ErrTaken, path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err = f.bucket.Put(ctx, key, data, tag); !errors.Is(err, s3.ErrCondition) {
		return err
	}
	// It may be this very write, made twice by what lies between.
	if have, _, err := f.bucket.Get(ctx, key); err == nil && bytes.Equal(have, data) {
		return nil
	}
	return fmt.Errorf("%w: %s", tlog.ErrTaken, path)
}

// Clear implements tlog.Files.
func (f *Files) Clear(dir string) error {
	keys, err := f.bucket.List(context.Background(), f.prefix+dir+"/")
	for _, key := range keys {
		if err == nil {
			err = f.bucket.Delete(context.Background(), key)
		}
	}
	return err
}
