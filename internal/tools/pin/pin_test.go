//go:build pin

package pin

import "testing"

func TestPin(t *testing.T) {}
