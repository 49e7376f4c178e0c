//go:build !linux

// Command jail-init is the first process of a jail, on Linux only.
package main

func main() { panic("jail-init: jails need Linux") }
