package writ_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
)

// What is said by name goes before what is said of everybody, and what a
// capability said before the file.
func TestBound(t *testing.T) {
	alice := writ.Bind{Principal: "alice", Role: writ.RoleApprover}
	all := writ.Bind{Principal: writ.Everybody, Role: writ.RoleApprover}
	for _, tt := range []struct {
		name       string
		file, over writ.BindingSet
		alice, bob bool
	}{
		{"nothing", nil, nil, false, false},
		{"file names her", writ.BindingSet{alice: true}, nil, true, false},
		{"file binds everybody", writ.BindingSet{all: true}, nil, true, true},
		{"bound by capability", nil, writ.BindingSet{alice: true}, true, false},
		{"everybody by capability", nil, writ.BindingSet{all: true}, true, true},
		{"taken from the file", writ.BindingSet{alice: true}, writ.BindingSet{alice: false}, false, false},
		{"taken although everybody is bound", writ.BindingSet{all: true}, writ.BindingSet{alice: false}, false, true},
		{"taken from everybody but her", writ.BindingSet{all: true, alice: true}, writ.BindingSet{all: false}, true, false},
		{"taken from everybody and her", writ.BindingSet{all: true, alice: true}, writ.BindingSet{all: false, alice: false}, false, false},
		{"taken, and everybody bound later", nil, writ.BindingSet{all: true, alice: false}, false, true},
		{"another role", writ.BindingSet{{Principal: "alice", Role: writ.RoleOperator}: true}, nil, false, false},
	} {
		for p, want := range map[writ.PrincipalID]bool{"alice": tt.alice, "bob": tt.bob} {
			if got := writ.Bound(tt.file, tt.over, p, writ.RoleApprover); got != want {
				t.Errorf("%s: %s is bound: %t", tt.name, p, got)
			}
		}
		if got := writ.AnyoneBound(tt.file, tt.over, writ.RoleApprover); got != (tt.alice || tt.bob) {
			t.Errorf("%s: anyone is bound: %t", tt.name, got)
		}
	}
}

// Sets that say different things have different digests, and what a set says is
// all its digest depends on.
func TestBindingsDigest(t *testing.T) {
	set := rapid.MapOfN(rapid.Custom(func(t *rapid.T) writ.Bind {
		return writ.Bind{
			Principal: rapid.SampledFrom([]writ.PrincipalID{"*", "aa", "bb", "aa-bb"}).Draw(t, "principal"),
			Role:      rapid.SampledFrom(writ.BindableRoles()).Draw(t, "role"),
		}
	}), rapid.Bool(), 0, 4)
	rapid.Check(t, func(t *rapid.T) {
		a, b := writ.BindingSet(set.Draw(t, "a")), writ.BindingSet(set.Draw(t, "b"))
		same := len(a) == len(b)
		for k, is := range a {
			was, said := b[k]
			same = same && said && was == is
		}
		if (a.Digest("t1") == b.Digest("t1")) != same || (writ.BindingsRevision("f", a.Digest("t1")) == writ.BindingsRevision("f", b.Digest("t1"))) != same {
			t.Fatalf("%v and %v: %s and %s", a, b, a.Digest("t1"), b.Digest("t1"))
		}
		if len(a) > 0 && writ.BindingsRevision("f", a.Digest("t1")) == writ.BindingsRevision("g", a.Digest("t1")) {
			t.Fatal("the file does not count")
		}
		if len(a) > 0 && a.Digest("t1") == a.Digest("t2") {
			t.Fatal("the tenant does not count")
		}
	})
}

// A full document fits, whatever the ids are.
func TestBindingsFitOneDocument(t *testing.T) {
	long := writ.PrincipalID(strings.Repeat("p", 63))
	doc := writ.Bindings{Role: writ.RoleOrchestrator}
	for range writ.MaxBindings {
		doc.Rows = append(doc.Rows, writ.Binding{Principal: long, Removed: true, By: long, At: writ.MaxAmount, Receipt: gReceipt})
	}
	b, err := writ.EncodeDoc(writ.Snapshot{}, writ.BindingsKey(doc.Role), "bindings", doc)
	if err != nil || len(b) > writ.MaxDocBytes {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
