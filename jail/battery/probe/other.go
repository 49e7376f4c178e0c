//go:build !linux

// Command probe is the agent of the escape battery, on Linux only.
package main

func main() { panic("probe: jails need Linux") }
