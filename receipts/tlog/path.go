package tlog

import (
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// Tiles are 256 hashes wide (C2SP tlog-tiles).
const (
	height = 8
	width  = 1 << height
)

// CheckpointPath is where the latest checkpoint is, below the log.
const CheckpointPath = "checkpoint"

// entriesLevel stands for the leaves themselves.
const entriesLevel = -1

// tilePath is the path of tile n at a level, w hashes wide (C2SP tlog-tiles): n in
// groups of three digits, all but the last with an x before.
func tilePath(level int, n int64, w int) string {
	at := "entries"
	if level != entriesLevel {
		at = strconv.Itoa(level)
	}
	number := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		number = fmt.Sprintf("x%03d/", n%1000) + number
	}
	path := "tile/" + at + "/" + number
	if w < width {
		path += ".p/" + strconv.Itoa(w)
	}
	return path
}

// tileOf is the tile that holds, or from which follows, a hash of a tree of which size
// leaves are known, as wide as it is then.
func tileOf(index, size int64) tlog.Tile {
	t := tlog.TileForIndex(height, index)
	t.W = int(min(width, size>>(height*t.L)-t.N*width))
	return t
}
