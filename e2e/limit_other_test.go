//go:build !linux

package e2e

// limitFiles fails rather than skips: a test that did not run must not look
// like one that passed.
func (g *gateway) limitFiles(int64) {
	g.t.Helper()
	g.t.Fatal("only Linux can limit the files of a running process: run this test there")
}
