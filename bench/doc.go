// Command bench measures writ and prints, line by line, the figure, its target
// and how the two compare: the commit against the bare server, a decision, a
// governed call against an OPA server that only answers the policy question,
// a long queue against a short one, and what is done to receipts.
//
// It is not a test: a missed target is printed and fails nothing; only an
// error does. Its invariant: whatever is compared runs in the same process of
// measuring, in turns on the same machine, and the figure is the median of the
// ratios of the turns. Absolute times belong to the machine and are printed as
// notes. CPU times are those of the server processes (/proc, so Linux only),
// never of the load.
package main
