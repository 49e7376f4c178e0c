package writ

// Page is one page of a list that is kept as an index of ids, in their order.
type Page struct {
	Index Index
	After string // id the last page ended with; "" for the first page
	Limit int64  // 0: DefaultPage; at most MaxPage
}

// Sizes of a page.
const (
	DefaultPage = 50
	MaxPage     = 200
)

func (p Page) size() int {
	if p.Limit <= 0 {
		return DefaultPage
	}
	return int(min(p.Limit, MaxPage))
}

// Range is what must be read for the page: one more than is shown, to see
// whether more follow.
func (p Page) Range() Range {
	r := Range{Index: p.Index, Limit: p.size() + 1}
	if p.After != "" {
		r.From = p.After + "!" // sorts before every character of an id
	}
	return r
}

// Of is the page as it was read, and After of the next one; "" on the last.
func (p Page) Of(s Snapshot) (ids []string, next string) {
	for _, m := range s.Ranges[p.Range()].Members {
		ids = append(ids, m.Name)
	}
	if len(ids) > p.size() {
		ids = ids[:p.size()]
		next = ids[len(ids)-1]
	}
	return ids, next
}
