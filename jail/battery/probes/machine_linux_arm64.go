package probes

// machine are calls that only another architecture has.
var machine []Probe
