package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// hintFor says what an unknown key may have meant.
func hintFor(path, key string, fields map[string]reflect.Value) string {
	if notBuilt(path, key) {
		return "this version cannot do that yet: remove the key"
	}
	known := make([]string, 0, len(fields))
	for name := range fields {
		known = append(known, name)
	}
	slices.Sort(known)
	if near := Nearest(key, known); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return "known keys here: " + strings.Join(known, ", ")
}

// notBuilt knows keys that later versions will have.
func notBuilt(path, key string) bool {
	keys := []string{"schema_registry", "merge"}
	switch {
	case path == "snapshot":
		keys = []string{"throttle", "max_waiting", "retain_runs"}
	case strings.HasPrefix(path, "destinations[") && strings.HasSuffix(path, ".rename"):
		keys = []string{"collections", "patterns", "letter_case"}
	case strings.HasPrefix(path, "destinations["):
		keys = []string{"filter", "transform", "groups", "merge"}
	case path == "kafka":
		keys = []string{"schema_registry"}
	}
	return slices.Contains(keys, key)
}

// Nearest returns the candidate that a misspelt word most likely means, or ""
// where none is near.
func Nearest(word string, candidates []string) string {
	best, least := "", 1+min(2, len(word)/2)
	for _, c := range candidates {
		if n := distance(strings.ToLower(word), c); n < least {
			best, least = c, n
		}
	}
	return best
}

// distance counts the insertions, removals, replacements and swaps of
// neighbours that turn a into b (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
