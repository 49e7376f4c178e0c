package agents

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "write the golden files")

func TestStoredNames(t *testing.T) {
	const session = "ses_01ARYZ6S410000000000000000"
	bounded := writ.Agent{ID: "site-builder", Domain: "web"}
	alone := scopeMember(bounded, "fs:site/")
	bounded.SharesScope = true
	used := readUse(session).Counters
	writtest.Golden(t, *update, "names.txt", fmt.Appendf(nil, "counter %v\ncounter %v\ncounter %v\ncounter %v\ntodo    %s\ntodo    %s\ntodo    %s\ntodo    %s\nscope   %s\nscope   %s\nowner   %s\nroute   %s\n",
		beatOf(session), used[0], used[1], used[2], todoAgent("site-builder"), todoSession(session), todoRecall("site-builder"), todoSettle("site-builder"),
		alone, scopeMember(bounded, "fs:site/"), ownerMember(bounded, "pages"),
		strings.Join(routesTo(writ.Agent{ID: "site-builder", Domain: "web", Routing: &writ.Routing{Keywords: []string{"web site"}, Priority: 3}}), "\nroute   ")))
}
