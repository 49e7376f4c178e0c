package ledger

import (
	"reflect"
	"testing"

	"github.com/writ-gateway/writ/writtest"
)

// A record of what somebody else signed has the key it was signed with, byte by byte.
func TestRecordOfForeign(t *testing.T) {
	e := entryOf(1)
	e.Public = []byte("a key as DER")
	var x entry
	b, err := appendRecord(nil, e, 0, &x)
	if err != nil {
		t.Fatal(err)
	}
	r, err := readRecord(writtest.GoldenBinary(t, *update, "foreign.hex", b))
	if err != nil || !reflect.DeepEqual(r.Entry, e) {
		t.Errorf("read back as %+v: %v", r.Entry, err)
	}
	e.EvidenceKey = 1
	if _, err := appendRecord(nil, e, 0, &x); err == nil {
		t.Error("it can have evidence of its own")
	}
}

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
