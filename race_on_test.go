//go:build race

package writ_test

const raceEnabled = true
