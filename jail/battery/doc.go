// Package battery holds tests only: it tries to get out of jails, in each profile, as root and
// as an ordinary user, and does what agents do, which must work. What is tried is in probes; what is
// expected, in this package, says for each profile all that is not blocked.
package battery
