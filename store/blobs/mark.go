package blobs

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/durable"
)

// A directory has a name that tells it from every other one: 32 hex digits in
// the file <root>/id. Replicas compare it with what their store of state says,
// so that none reads or writes in a directory the others do not see.

var markForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// ValidMark says whether s can name a directory.
func ValidMark(s string) bool { return markForm.MatchString(s) }

// Mark is the name of the directory; "" when it has none.
func (d *Dir) Mark() (string, error) {
	b, err := os.ReadFile(d.path("id"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fault("blobs.Mark", err)
	}
	id := strings.TrimSpace(string(b))
	if !ValidMark(id) {
		return "", writ.Refuse(writ.CodeStore, "blobs.Mark", "the file id in the directory of artifacts does not hold its name", "restore it from a backup")
	}
	return id, nil
}

// SetMark names a directory that has no name. Of several at once one is first;
// it returns the name the directory has then.
func (d *Dir) SetMark(id string) (string, error) {
	const op = "blobs.SetMark"
	if !ValidMark(id) {
		return "", writ.Refuse(writ.CodeInternal, op, "not a name", "")
	}
	f, err := os.CreateTemp(d.path("tmp"), "put-") // mode 0600
	if err != nil {
		return "", fault(op, err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(id + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fault(op, err)
	}
	// A link is there whole or not at all, and only once.
	if err := os.Link(f.Name(), d.path("id")); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fault(op, err)
	}
	if err := durable.SyncDir(d.root); err != nil {
		return "", fault(op, err)
	}
	return d.Mark()
}
