package grants

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress/target"
)

// sees says whether a caller may know a grant: who looks into matters, and who is
// named in it.
func sees(c writ.Caller, g writ.EgressGrant) bool {
	return c.Role == writ.RoleOperator || c.Role == writ.RoleAuditor || slices.Contains(g.Agents, c.Agent)
}

// wish is what an agent wants to do outside, read out of its arguments.
type wish struct {
	mode   writ.EgressMode
	to     target.Target // zero where a grant is named
	scheme string        // "" where a grant is named
	method string
	path   string
	query  string
}

// atHost is how many grants for the host of a wish are looked at, whoever they are for
// and whether they are over or not: the list does not say. The commit holds to all that
// was read, and has room for so many.
const atHost = 128

func (w wish) hosts() writ.Range {
	prefix := w.to.Host + ":" + strconv.Itoa(int(w.to.Port)) + " "
	return writ.Range{Index: writ.IndexEgressHosts, From: prefix, To: prefix + "~", Limit: atHost + 1}
}

// crowded says that there are more grants for the host of a wish than are looked at.
func (a *EgressFetchArgs) crowded(w wish, s writ.Snapshot) bool {
	return a.Grant == "" && len(s.Ranges[w.hosts()].Members) > atHost
}

// candidates are the documents of grants a wish could mean.
func (a *EgressFetchArgs) candidates(w wish, s writ.Snapshot) (rs writ.ReadSet) {
	if a.Grant != "" {
		rs.Docs = []writ.Key{writ.EgressGrantKey(a.Grant)}
		return rs
	}
	rs.Ranges = []writ.Range{w.hosts()}
	members := s.Ranges[w.hosts()].Members
	for _, m := range members[:min(len(members), atHost)] {
		if _, id, ok := strings.Cut(m.Name, " "); ok && writ.ValidSlug(id) {
			rs.Docs = append(rs.Docs, writ.EgressGrantKey(writ.EgressID(id)))
		}
	}
	return rs
}

// found is the grant a wish is judged by: the first that lets it through, else the
// first there is. What is not for the caller's agent is none: nobody learns from
// refusals what others may do.
type found struct {
	grant   writ.EgressGrant
	version int64
	is      bool
	allows
}

// allows says what of a wish a grant lets through.
type allows struct{ mode, method, path, run, live bool }

func (a allows) all() bool { return a.mode && a.method && a.path && a.run && a.live }

// find looks through the candidates. run is the one the caller works in.
func (a *EgressFetchArgs) find(c *writ.Call, w wish, run writ.RunID, s writ.Snapshot) (best found, err error) {
	for _, key := range a.candidates(w, s).Docs {
		g, version, ok, err := writ.Get[writ.EgressGrant](s, key)
		if err != nil {
			return best, err
		}
		if !ok || g.State != writ.EgressActive || !slices.Contains(g.Agents, c.Caller.Agent) {
			continue
		}
		f := found{grant: g, version: version, is: true, allows: allows{
			mode:   g.Mode == w.mode && (a.Grant != "" || w.scheme == g.Scheme || w.mode == writ.EgressTunnel),
			method: w.mode == writ.EgressTunnel || slices.Contains(g.Methods, w.method),
			path:   w.mode == writ.EgressTunnel || target.Under(w.path, g.PathPrefix),
			run:    g.Run == "" || g.Run == run,
			live:   g.Live(s.Now),
		}}
		if f.all() {
			return f, nil
		}
		if !best.is {
			best = f
		}
	}
	return best, nil
}
