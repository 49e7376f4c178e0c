package egress

import "github.com/writ-gateway/writ"

const (
	codeFailed  writ.Code = "effect_failed"
	codeUnknown writ.Code = "effect_unknown"
)
