//go:build !race

package writtest

// Raced says that the race detector is in this program, so that it gets less done.
const Raced = false
