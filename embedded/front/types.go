package front

import (
	"fmt"
	"math"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// refused reports the first value at which the server would close the
// connection: one of a type that it does not know, or NaN.
func (c command) refused() error {
	if err := refusedIn(c.body, ""); err != nil {
		return err
	}
	for _, s := range c.sequences {
		for i, d := range s.documents {
			if err := refusedIn(d, fmt.Sprintf("%s.%d.", s.name, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// refusedIn looks through a document, or an array, under a path.
func refusedIn(doc bson.Raw, path string) error {
	elements, err := doc.Elements()
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for _, e := range elements {
		v := e.Value()
		switch v.Type {
		case bson.TypeEmbeddedDocument, bson.TypeArray:
			if err := refusedIn(bson.Raw(v.Value), path+e.Key()+"."); err != nil {
				return err
			}
		case bson.TypeDecimal128, bson.TypeUndefined, bson.TypeMinKey, bson.TypeMaxKey, bson.TypeSymbol,
			bson.TypeJavaScript, bson.TypeCodeWithScope, bson.TypeDBPointer:
			return fmt.Errorf("the stand-in server has no BSON type %s (field %s%s)", v.Type, path, e.Key())
		case bson.TypeDouble:
			if math.IsNaN(v.Double()) {
				return fmt.Errorf("the stand-in server has no NaN (field %s%s)", path, e.Key())
			}
		default:
		}
	}
	return nil
}
