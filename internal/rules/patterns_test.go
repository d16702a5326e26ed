package rules

import "testing"

func TestLayers(t *testing.T) {
	l := Layers{{Include: []string{"shop.*", "crm.*"}}, {Exclude: []string{"shop.b"}}}
	s, err := l.Compile()
	if err != nil {
		t.Fatal(err)
	}
	for ns, want := range map[[2]string]bool{{"shop", "a"}: true, {"shop", "b"}: false, {"crm", "b"}: true, {"other", "a"}: false} {
		if got := s.Match(ns[0], ns[1]); got != want {
			t.Errorf("%v: %t, want %t", ns, got, want)
		}
	}
	if !l.Equal(Layers{{Include: []string{"crm.*", "shop.*", "crm.*"}}, {Exclude: []string{"shop.b"}}}) {
		t.Error("the order of patterns counts")
	}
	if l.Equal(Layers{{Include: []string{"crm.*"}}, {Exclude: []string{"shop.b"}}}) || l.Equal(l[:1]) {
		t.Error("other patterns are equal")
	}
	both := l.And(Layers{{Include: []string{"crm.*", "shop.*"}}, {Include: []string{"shop.*"}}})
	if s, err = both.Compile(); err != nil || len(both) != 3 || len(l) != 2 {
		t.Fatalf("%v: %v", both, err)
	}
	if !s.Match("shop", "a") || s.Match("shop", "b") || s.Match("crm", "b") {
		t.Errorf("%v does not match what both match", both)
	}
	if _, err := (Layers{{Include: []string{"shop"}}}).Compile(); err == nil {
		t.Error("a faulty pattern is compiled")
	}
}
