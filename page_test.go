package writ_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// Page after page shows every id once, in order, however many there are and
// whatever a page holds.
func TestPagesShowAllOnce(t *testing.T) {
	const index writ.Index = "list/test"
	for _, n := range []int{0, 1, 2, 3, 4, 49, 50, 51, 200, 201, 401} {
		w := writtest.New()
		want := []string(nil)
		for i := range n {
			id := fmt.Sprintf("id-%03d", i)
			w.SetIndex(index, id, 0)
			want = append(want, id)
		}
		for limit, size := range map[int64]int{-1: 50, 0: 50, 1: 1, 2: 2, 50: 50, 200: 200, 201: 200, 1 << 40: 200} {
			var got []string
			page := writ.Page{Index: index, Limit: limit}
			for pages := 1; ; pages++ {
				ids, next := page.Of(w.Snapshot(writ.ReadSet{Ranges: []writ.Range{page.Range()}}))
				got = append(got, ids...)
				if len(ids) > size || next != "" && (len(ids) != size || next != ids[size-1]) {
					t.Fatalf("%d ids by %d: a page of %d, then after %q", n, limit, len(ids), next)
				}
				if next == "" {
					break
				}
				page.After = next
				if pages > n {
					t.Fatalf("%d ids by %d: no end", n, limit)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d ids by %d: got %d, want each once in order", n, limit, len(got))
			}
		}
	}
}

// An id that begins with another is not left out.
func TestPagesOfIdsThatBeginAlike(t *testing.T) {
	w := writtest.New()
	for _, id := range []string{"ab", "ab-c", "ab0", "abc"} {
		w.SetIndex("list/test", id, 0)
	}
	page := writ.Page{Index: "list/test", After: "ab"}
	ids, next := page.Of(w.Snapshot(writ.ReadSet{Ranges: []writ.Range{page.Range()}}))
	if !slices.Equal(ids, []string{"ab-c", "ab0", "abc"}) || next != "" {
		t.Errorf("after ab: %v, then after %q", ids, next)
	}
}
