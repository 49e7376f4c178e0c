// Package probes is what an agent could try to get out of a jail, one attempt per probe. The battery
// runs each inside, where it must fail, and outside, where it must succeed: an attempt that
// cannot work anywhere shows nothing.
package probes
