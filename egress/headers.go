package egress

import (
	"net/http"
	"net/textproto"
	"strings"
)

// kept says whether a header of a request goes out. What does not: how the hop to
// us was framed, what says who the agent is to us, and what would say to the host
// that somebody else sent the request.
func kept(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect", "Content-Length", "Host", "Http2-Settings",
		"Authorization", "Cookie", "Cookie2", "Cosignature", "If-Match-Version", "Idempotency-Key",
		"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override",
		"Accept-Encoding":
		return false
	}
	for _, prefix := range []string{"Proxy-", "X-Forwarded-", "Writ-"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return !strings.Contains(name, "_") // some servers take it for a hyphen
}

// shown says whether a header of an answer is shown to the agent. What is not: how
// the hop to the host was framed, credentials the host hands out to whoever we said
// we are, and what only this gateway says.
func shown(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length",
		"Set-Cookie", "Set-Cookie2", "Www-Authenticate", "Authentication-Info", "Alt-Svc",
		"Receipt-Id", "Request-Id", "Effect-Id", "Policy-Revision", "Policy-Redacted", "Policy-Limited", "Budget-Warning", "Idempotency-Replayed":
		return false
	}
	return !strings.HasPrefix(name, "Proxy-") && !strings.HasPrefix(name, "Writ-")
}

// filter copies what may pass. Names that Connection lists are of that hop only.
func filter(h http.Header, may func(string) bool) http.Header {
	hop := map[string]bool{}
	for _, line := range h.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			hop[textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	out := make(http.Header, len(h))
	for name, values := range h {
		if name = textproto.CanonicalMIMEHeaderKey(name); may(name) && !hop[name] {
			out[name] = values
		}
	}
	return out
}

// size is what headers and their line come to on the wire, nearly.
func size(line int, h http.Header) int64 {
	n := line + len("\r\n\r\n")
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(": \r\n") + len(v)
		}
	}
	return int64(n)
}
