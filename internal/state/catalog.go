package state

import (
	"strings"

	"github.com/tributarydb/tributary/internal/event"
)

const prefixCatalog = "catalog/"

// CatalogItem is a collection or view as capture last told the pipeline of it,
// kept where the source does not report every change of it by itself. It is
// written in the transaction that carries the events which say the same.
type CatalogItem struct {
	DB   string `json:"db"`
	Coll string `json:"coll"`
	// UUID is zero for views.
	UUID event.UUID `json:"uuid"`
	View bool       `json:"view,omitempty"`
	// Options is listCollections' options document, raw BSON.
	Options []byte `json:"options"`
	// Indexes are listIndexes' documents, raw BSON, that of _id left out.
	Indexes [][]byte `json:"indexes,omitempty"`
}

// Namespace returns the name under which the pipeline knows it.
func (c *CatalogItem) Namespace() event.Namespace { return event.Namespace{DB: c.DB, Coll: c.Coll} }

// Key returns the item's key: its UUID, which a rename does not change, and for
// views the name.
func (c *CatalogItem) Key() string {
	if c.UUID.IsZero() {
		return prefixCatalog + c.Namespace().String()
	}
	return prefixCatalog + c.UUID.String()
}

// IsCatalog reports whether key is a CatalogItem's.
func IsCatalog(key string) bool { return strings.HasPrefix(key, prefixCatalog) }

// Catalog returns the collections and views that capture told of, ordered by key.
func (v *View) Catalog() []CatalogItem { return inOrder(v.catalog) }
