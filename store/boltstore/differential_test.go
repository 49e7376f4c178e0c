package boltstore_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-gateway/writ/store/boltstore"
	"github.com/writ-gateway/writ/store/storetest"
)

// length is how long a random test runs, and how long with WRIT_SOAK=1.
func length(short, long int) int {
	if os.Getenv("WRIT_SOAK") == "1" {
		return long
	}
	return short
}

func TestDifferential(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{NoSync: true})
	storetest.Differential(t, storetest.Seed(t), length(20_000, 1_000_000), s)
}

func TestDifferentialSynced(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{})
	storetest.Differential(t, storetest.Seed(t), length(500, 10_000), s)
}
