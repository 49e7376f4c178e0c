package writ

import (
	"crypto/sha256"
	"encoding/binary"
)

// Ids are strings with a prefix and a ULID (Crockford base 32, upper case), or
// slugs chosen by people. They are checked at the edge and never used in a
// path or a key before that.
type (
	Tenant       string // [a-z0-9-]; names the shard
	CallID       string // cll_…; one call commits at most once under it
	RunID        string // run_…
	TaskID       string // tsk_…
	SessionID    string // ses_…
	LeaseID      string // lse_…
	ReceiptID    string // rcp_…
	ApprovalID   string // apr_…
	QuotaID      string // quo_…
	AgentID      string // slug
	PrincipalID  string // slug; who a session acts for
	CapabilityID string // dotted, e.g. task.enqueue
)

// Prefixes of generated ids.
const (
	PrefixCall     = "cll_"
	PrefixRun      = "run_"
	PrefixTask     = "tsk_"
	PrefixSession  = "ses_"
	PrefixLease    = "lse_"
	PrefixReceipt  = "rcp_"
	PrefixApproval = "apr_"
	PrefixQuota    = "quo_"
)

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// Patterns of ids, for the published schemas. The functions below check the
// same by hand, since every call checks some dozen ids; a test holds them to
// the patterns.
const (
	PatternSlug       = `^[a-z][a-z0-9-]{1,62}$`
	PatternTenant     = `^[a-z][a-z0-9-]{0,31}$`
	PatternCapability = `^[a-z][a-z0-9_-]{0,62}(\.[a-z0-9_-]{1,63}){1,5}$`
	PatternRun        = `^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$`
	PatternTask       = `^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$`
	PatternSession    = `^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$`
	PatternLease      = `^lse_[0-7][0-9A-HJKMNP-TV-Z]{25}$`
	PatternReceipt    = `^rcp_[0-7][0-9A-HJKMNP-TV-Z]{25}$`
	PatternApproval   = `^apr_[0-7][0-9A-HJKMNP-TV-Z]{25}$`
	PatternQuota      = `^quo_[0-7][0-9A-HJKMNP-TV-Z]{25}$`
)

func (id RunID) Valid() bool       { return validID(string(id), PrefixRun) }
func (id TaskID) Valid() bool      { return validID(string(id), PrefixTask) }
func (id SessionID) Valid() bool   { return validID(string(id), PrefixSession) }
func (id LeaseID) Valid() bool     { return validID(string(id), PrefixLease) }
func (id ReceiptID) Valid() bool   { return validID(string(id), PrefixReceipt) }
func (id ApprovalID) Valid() bool  { return validID(string(id), PrefixApproval) }
func (id QuotaID) Valid() bool     { return validID(string(id), PrefixQuota) }
func (id CallID) Valid() bool      { return validID(string(id), PrefixCall) }
func (id AgentID) Valid() bool     { return ValidSlug(string(id)) }
func (id PrincipalID) Valid() bool { return ValidSlug(string(id)) }
func (t Tenant) Valid() bool       { return slug(string(t), 1, 32) }

// ValidSlug says whether s is a slug as agents, principals, domains and run
// task keys use it.
func ValidSlug(s string) bool { return slug(s, 2, 63) }

// Valid says whether the id is two to six segments with dots between them, of
// 1 to 63 characters each; the first begins with a letter.
func (id CapabilityID) Valid() bool {
	if id == "" || !lower(id[0]) {
		return false
	}
	dots, length := 0, 0 // length of the present segment
	for i := range len(id) {
		switch c := id[i]; {
		case c == '.' && length > 0:
			dots, length = dots+1, 0
		case lower(c) || digit(c) || c == '-' || c == '_':
			length++
		default:
			return false
		}
		if length > 63 {
			return false
		}
	}
	return length > 0 && 1 <= dots && dots <= 5
}

// validID says whether s is prefix and a ULID: 26 digits of Crockford's
// alphabet (no I, L, O, U), the first at most 7.
func validID(s, prefix string) bool {
	if len(s) != len(prefix)+26 || s[:len(prefix)] != prefix || s[len(prefix)] > '7' {
		return false
	}
	for i := len(prefix); i < len(s); i++ {
		c := s[i]
		upper := c >= 'A' && c <= 'Z' && c != 'I' && c != 'L' && c != 'O' && c != 'U'
		if !upper && !digit(c) {
			return false
		}
	}
	return true
}

// slug says whether s begins with a letter, goes on with letters, digits and
// dashes, and has from shortest to longest characters.
func slug(s string, shortest, longest int) bool {
	if len(s) < shortest || len(s) > longest || !lower(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !lower(c) && !digit(c) && c != '-' {
			return false
		}
	}
	return true
}

func lower(c byte) bool { return c >= 'a' && c <= 'z' }
func digit(c byte) bool { return c >= '0' && c <= '9' }

// MakeID builds prefix + ULID from a time in milliseconds since 1970 and ten
// bytes of entropy.
func MakeID(prefix string, ms int64, entropy [10]byte) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(ms)<<16)
	copy(b[6:], entropy[:])
	out := make([]byte, 0, len(prefix)+26)
	out = append(out, prefix...)
	// 128 bits in 26 digits: the first digit holds three bits.
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	for i := 25; i >= 0; i-- {
		shift := uint(i * 5)
		var v uint64
		switch {
		case shift >= 64:
			v = hi >> (shift - 64)
		case shift > 59:
			v = hi<<(64-shift) | lo>>shift
		default:
			v = lo >> shift
		}
		out = append(out, crockford[v&31])
	}
	return string(out)
}

// NewID derives the n-th id with a prefix from the call: a plan made again
// after a conflict makes the same ids.
func (c *Call) NewID(prefix string, n int) string {
	h := sha256.New()
	h.Write([]byte(c.ID))
	h.Write([]byte{0})
	h.Write([]byte(prefix))
	var nb [8]byte
	binary.BigEndian.PutUint64(nb[:], uint64(n))
	h.Write(nb[:])
	var e [10]byte
	copy(e[:], h.Sum(nil))
	return MakeID(prefix, c.ReceivedAt, e)
}
