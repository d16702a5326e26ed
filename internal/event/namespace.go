package event

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Namespace is a database and a collection. Collection names may contain dots,
// database names may not (MongoDB: "Naming Restrictions").
type Namespace struct {
	DB   string
	Coll string
}

// ParseNamespace splits "db.collection" at its first dot.
func ParseNamespace(s string) (Namespace, error) {
	db, coll, ok := strings.Cut(s, ".")
	if !ok || db == "" || coll == "" {
		return Namespace{}, fmt.Errorf("parse namespace %q: want db.collection", s)
	}
	return Namespace{DB: db, Coll: coll}, nil
}

// String returns "db.collection".
func (n Namespace) String() string { return n.DB + "." + n.Coll }

// IsZero reports whether n names nothing.
func (n Namespace) IsZero() bool { return n.DB == "" && n.Coll == "" }

// UUID is a collection's UUID; the zero value means that it is not known.
type UUID [16]byte

// IsZero reports whether the UUID is not known.
func (u UUID) IsZero() bool { return u == UUID{} }

// String returns the usual 8-4-4-4-12 form, or "" when it is not known.
func (u UUID) String() string {
	if u.IsZero() {
		return ""
	}
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// MarshalText writes String's form, so that a UUID is readable in JSON.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads String's form.
func (u *UUID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*u = UUID{}
		return nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(string(text), "-", ""))
	if err != nil || len(b) != len(u) {
		return fmt.Errorf("parse UUID %q: want 32 hexadecimal digits", text)
	}
	copy(u[:], b)
	return nil
}
