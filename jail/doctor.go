package jail

// Probe is one thing a jail needs, or uses, and whether it is there.
type Probe struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"` // what to change, where something should be
}
