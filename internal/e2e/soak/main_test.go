package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEntries holds the list against the tests: each entry's test is there, and
// each file whose tests have a long variant has one in the list.
func TestEntries(t *testing.T) {
	const root = "../../.."
	declaration := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	declared := map[string][]string{} // tests by package
	all := entries()
	err := filepath.WalkDir(root, func(path string, file fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if file.IsDir() && (strings.HasPrefix(file.Name(), ".") && path != root || file.Name() == "embedded" || file.Name() == "soak") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		pkg := "./" + filepath.ToSlash(relative)
		var tests []string
		for _, match := range declaration.FindAllSubmatch(source, -1) {
			tests = append(tests, string(match[1]))
		}
		declared[pkg] = append(declared[pkg], tests...)
		long := strings.Contains(string(source), `os.Getenv("TRIBUTARY_SOAK")`) || strings.Contains(string(source), "soaking()")
		if long && !slices.ContainsFunc(all, func(e entry) bool { return e.pkg == pkg && slices.Contains(tests, e.test) }) {
			t.Errorf("%s has a long variant of a test that is not in the list", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if !slices.Contains(declared[e.pkg], e.test) {
			t.Errorf("entry %s: %s has no %s", e.name, e.pkg, e.test)
		}
	}
}

func TestChoose(t *testing.T) {
	chosen, err := choose("load, disk")
	if err != nil || len(chosen) != 2 || chosen[0].name != "load" || chosen[1].name != "disk" {
		t.Errorf("got %v, %v", chosen, err)
	}
	if chosen, err = choose(""); err != nil || len(chosen) != len(entries()) {
		t.Errorf("got %v, %v, want all", chosen, err)
	}
	if _, err = choose("lode"); err == nil || !strings.Contains(err.Error(), "differential,") {
		t.Errorf("got %v, want the names", err)
	}
}
