package queue

import (
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
)

// Everybody can see which write scopes are held, by whom and for how long.
func TestHeldScopesAreListed(t *testing.T) {
	l := newLab(t)
	docs := l.claim(l.a, l.enqueue("docs", scopes("fs:repo/docs/", "mem:notes/")))
	site := l.claim(l.b, l.enqueue("site", scopes("fs:repo/docs-site/")))
	l.enqueue("waits", scopes("fs:repo/docs/api/"))
	list := func(a ScopeListArgs) (out []string, next string) {
		t.Helper()
		page := body[ScopeList](l, l.do("scope.list", l.owner, &a))
		for _, s := range page.Scopes {
			if s.Mode != "exclusive" || s.ExpiresAt == "" || s.Run != l.run {
				t.Errorf("got %+v", s)
			}
			out = append(out, s.Resource+" "+string(s.Agent))
			if s.Task == docs.task && s.Fence != docs.fence {
				t.Errorf("fence %d, want %d", s.Fence, docs.fence)
			}
		}
		return out, page.Next
	}
	all := []string{"fs:repo/docs-site/ agent-b", "fs:repo/docs/ agent-a", "mem:notes/ agent-a"}
	if got, next := list(ScopeListArgs{}); !slices.Equal(got, all) || next != "" {
		t.Errorf("got %v, next %q", got, next)
	}
	var paged []string
	for after, more := "", true; more; more = after != "" {
		var got []string
		got, after = list(ScopeListArgs{Limit: 1, After: after})
		paged = append(paged, got...)
	}
	if !slices.Equal(paged, all) {
		t.Errorf("page by page: %v", paged)
	}
	// By whole segments.
	if got, _ := list(ScopeListArgs{Under: "fs:repo/docs"}); !slices.Equal(got, all[1:2]) {
		t.Errorf("under docs: %v", got)
	}
	if got, _ := list(ScopeListArgs{Under: "fs:repo/"}); !slices.Equal(got, all[:2]) {
		t.Errorf("under the repository: %v", got)
	}
	l.do("task.complete", l.b, site.complete())
	if got, _ := list(ScopeListArgs{}); !slices.Equal(got, all[1:]) {
		t.Errorf("got %v", got)
	}
	l.refused(writ.CodeInputInvalid, "scope.list", l.owner, &ScopeListArgs{Under: "docs"})
	l.refused(writ.CodeInputInvalid, "scope.list", l.owner, &ScopeListArgs{After: "fs:repo/"})
}
