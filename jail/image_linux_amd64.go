package jail

import _ "embed"

// packed is cmd/jail-init, built and compressed; make generate writes it.
//
//go:embed image/jail-init-amd64.gz
var packed []byte
