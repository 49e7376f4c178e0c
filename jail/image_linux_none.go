//go:build linux && !amd64 && !arm64

package jail

var packed []byte
