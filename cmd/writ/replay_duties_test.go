package main

import "testing"

func TestCompareDuties(t *testing.T) {
	approval := func(args map[string]any) []duty { return []duty{{"p.ask", "approval", args}} }
	type args = map[string]any
	for name, c := range map[string]struct {
		was, now    []duty
		less, other bool
	}{
		"nothing":            {nil, nil, false, false},
		"the same":           {approval(args{"approvers": 2.0}), approval(args{"approvers": 2.0}), false, false},
		"fewer people":       {approval(args{"approvers": 2.0}), approval(args{"approvers": 1.0}), true, true},
		"fewer by default":   {approval(args{"approvers": 2.0}), approval(args{}), true, true},
		"more people":        {approval(args{}), approval(args{"approvers": 2.0}), false, true},
		"other people":       {approval(args{}), approval(args{"roles": []any{"approver", "operator"}}), true, true},
		"fewer may decide":   {approval(args{"roles": []any{"approver", "operator"}}), approval(args{}), false, true},
		"wider":              {approval(args{"scope": "call"}), approval(args{"scope": "session"}), true, true},
		"longer":             {approval(args{"expires_s": 60.0}), approval(args{"expires_s": 600.0}), true, true},
		"more uses":          {approval(args{}), approval(args{"max_uses": 3.0}), true, true},
		"remembered":         {approval(args{}), approval(args{"remember": 3.0}), true, true},
		"another kind":       {approval(args{"kind": "effect"}), approval(args{"kind": "human_action"}), true, true},
		"not asked any more": {approval(args{}), nil, true, true},
		"asked now":          {nil, approval(args{}), false, true},
		"by another rule":    {approval(args{}), []duty{{"p.other", "approval", args{}}}, true, true},
		"less is redacted":   {[]duty{{"p.r", "redact", args{"fields": []any{"/a", "/b"}}}}, []duty{{"p.r", "redact", args{"fields": []any{"/a"}}}}, true, true},
		"more is redacted":   {[]duty{{"p.r", "redact", args{"fields": []any{"/a"}}}}, []duty{{"p.r", "redact", args{"fields": []any{"/b", "/a"}}}}, false, true},
		"a larger limit":     {[]duty{{"p.l", "limit", args{"argument": "x", "max": 5.0}}}, []duty{{"p.l", "limit", args{"argument": "x", "max": 6.0}}}, true, true},
		"a smaller limit":    {[]duty{{"p.l", "limit", args{"argument": "x", "max": 5.0}}}, []duty{{"p.l", "limit", args{"argument": "x", "max": 4.0}}}, false, true},
		"no signature":       {[]duty{{"p.c", "cosign", nil}}, nil, true, true},
		"the same, no args":  {[]duty{{"p.c", "cosign", nil}}, []duty{{"p.c", "cosign", args{}}}, false, false},
		"another durability": {[]duty{{"p.d", "durability", args{"level": "committed"}}}, []duty{{"p.d", "durability", args{"level": "buffered"}}}, true, true},
	} {
		if less, other := compareDuties(c.was, c.now); less != c.less || other != c.other {
			t.Errorf("%s: less %v, other %v; want %v, %v", name, less, other, c.less, c.other)
		}
	}
}
