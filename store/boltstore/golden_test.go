package boltstore

import (
	"flag"
	"reflect"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "write the golden files")

// Facts as they lie in the outbox.
func TestStoredFacts(t *testing.T) {
	for name, want := range map[string]writ.StoredFact{
		"fact.hex": {
			Fact: writ.Fact{
				ID: "rcp_01ARYZ6S410000000000000000", Run: "run_01ARYZ6S410000000000000000", KeyID: "SHA256:cc",
				Head: []byte(`{"a":1,"commit":`), Tail: []byte(`,"z":1}`), Evidence: make([]byte, 200), // its length takes two bytes
			},
			Commit: writ.Committed{RunSeq: 3, At: 1_767_225_600_123},
		},
		"fact-bare.hex": {
			Fact:   writ.Fact{ID: "rcp_01ARYZ6S410000000000000000", KeyID: "SHA256:cc", Head: []byte(`{"commit":`), Tail: []byte("}")},
			Commit: writ.Committed{At: 1_767_225_600_123},
		},
		"fact-foreign.hex": {
			Fact: writ.Fact{
				ID: "rcp_01ARYZ6S410000000000000000", Run: "run_01ARYZ6S410000000000000000", KeyID: "SHA256:cc",
				Head: []byte(`{"a":1}`), Sig: []byte{1, 2}, Public: []byte{3, 4},
			},
			Commit: writ.Committed{At: 1_767_225_600_123},
		},
	} {
		got, err := decodeFact(writtest.GoldenBinary(t, *update, name, encodeFact(want)))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read back as %+v, %v", name, got, err)
		}
	}
}
