package writ

import "testing"

// A jail is of a tier when it was made so, and runs; what nobody knows is none.
func TestJailHolds(t *testing.T) {
	made := func(tier JailTier, backend string, state JailState) Jail {
		return Jail{State: state, Spec: JailSpec{Tier: tier}, Features: map[string]string{"backend": backend}}
	}
	for name, c := range map[string]struct {
		jail Jail
		want JailTier
		is   bool
	}{
		"host":                      {made("", "ns", JailRunning), JailHost, true},
		"host is not enough":        {made(JailHost, "ns", JailRunning), JailGvisor, false},
		"gvisor":                    {made(JailGvisor, "runsc", JailRunning), JailGvisor, true},
		"gvisor is more than host":  {made(JailGvisor, "runsc", JailRunning), JailHost, true},
		"gvisor, but not made so":   {made(JailGvisor, "ns", JailRunning), JailGvisor, false},
		"one that does not run yet": {made(JailGvisor, "runsc", JailStarting), JailHost, false},
		"one of a newer version":    {made("vm", "vm", JailRunning), JailGvisor, false},
		"what nobody has":           {made(JailGvisor, "runsc", JailRunning), "vm", false},
	} {
		if c.jail.Holds(c.want) != c.is {
			t.Errorf("%s: want %t", name, c.is)
		}
	}
	if JailHost.Stronger(JailGvisor) != JailGvisor || JailGvisor.Stronger("") != JailGvisor || JailTier("").Stronger(JailHost) != JailHost {
		t.Error("the stronger of two is another")
	}
}
