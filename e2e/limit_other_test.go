//go:build !linux

package e2e

func (g *gateway) limitFiles(int64) {
	g.t.Helper()
	g.t.Skip("only Linux can limit the files of a running process")
}
