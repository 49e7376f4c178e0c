package ledger

import (
	"reflect"
	"testing"

	"github.com/writ-gateway/writ/writtest"
)

// A record whose evidence was sealed once more names the key, byte by byte.
func TestRecordNamesItsKey(t *testing.T) {
	e := entries(0, 0)[0]
	e.EvidenceKey = 1025
	var x entry
	b, err := appendRecord(nil, e, 0, &x)
	if err != nil {
		t.Fatal(err)
	}
	r, err := readRecord(writtest.GoldenBinary(t, *update, "keyed.hex", b))
	if err != nil || !reflect.DeepEqual(r.Entry, e) {
		t.Errorf("read back as %+v: %v", r.Entry, err)
	}
}
