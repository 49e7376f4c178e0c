// Package daemon puts the gateway together: it is the only package that knows
// every adapter and every room. It reads the configuration, starts the parts in
// reading order and stops them in reverse. It decides nothing.
package daemon
