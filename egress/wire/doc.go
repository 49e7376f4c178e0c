// Package wire lets through what is HTTP/1.1 beyond doubt and nothing else.
//
// Package net/http is lenient where old programs were: it takes lines that end in
// LF alone, folded headers, a Content-Length beside a Transfer-Encoding. Two readers
// who are lenient in different ways see different requests in the same bytes. A
// connection of this package reads every request's head, and where its body ends,
// by the strict rules of RFC 9112 before net/http sees a byte of it; the first
// byte that breaks them ends the connection. HTTP/1.0 is let through for CONNECT
// alone, since clients there are ask for tunnels in it.
package wire
