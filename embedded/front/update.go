package front

import (
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// updateAnswer is what the server says to an update command.
type updateAnswer struct {
	OK          float64    `bson:"ok"`
	N           int32      `bson:"n"`
	Modified    int32      `bson:"nModified"`
	Upserted    []indexed  `bson:"upserted"`
	WriteErrors []bson.Raw `bson:"writeErrors"`
}

// indexed is a document with the number of the statement that it belongs to.
type indexed struct {
	Index int32         `bson:"index"`
	ID    bson.RawValue `bson:"_id"`
}

// update runs an update command, statement by statement.
func (s *session) update(c command) (message, error) {
	body, statements, err := c.statements("updates")
	if err != nil {
		return nil, err
	}
	ordered := true
	if v, err := c.body.LookupErr("ordered"); err == nil {
		ordered = v.Boolean()
	}
	var total updateAnswer
	for i := range statements {
		raw, err := s.call(c, body, sequence{name: "updates", documents: statements[i : i+1]})
		if err != nil {
			return nil, err
		}
		var part updateAnswer
		if err := bson.Unmarshal(raw, &part); err != nil {
			return nil, fmt.Errorf("decode answer to update: %w", err)
		}
		if part.OK != 1 {
			// The command was refused as such; the statements before this one
			// are done.
			return encode(c.requestID, c.requestID, raw), nil
		}
		if err := total.add(part, int32(i)); err != nil {
			return nil, err
		}
		if ordered && len(total.WriteErrors) > 0 {
			break
		}
	}
	return answer(c, total.document())
}

// add adds the answer to the statement with that index.
func (a *updateAnswer) add(part updateAnswer, statement int32) error {
	a.N += part.N
	a.Modified += part.Modified
	for _, u := range part.Upserted {
		u.Index = statement
		a.Upserted = append(a.Upserted, u)
	}
	for _, w := range part.WriteErrors {
		rest, err := without(w, "index")
		if err != nil {
			return err
		}
		raw, err := bson.Marshal(append(bson.D{{Key: "index", Value: statement}}, rest...))
		if err != nil {
			return fmt.Errorf("encode write error: %w", err)
		}
		a.WriteErrors = append(a.WriteErrors, raw)
	}
	return nil
}

// document is the answer to the whole command.
func (a *updateAnswer) document() bson.D {
	d := bson.D{{Key: "n", Value: a.N}}
	if len(a.Upserted) > 0 {
		d = append(d, bson.E{Key: "upserted", Value: a.Upserted})
	}
	d = append(d, bson.E{Key: "nModified", Value: a.Modified})
	if len(a.WriteErrors) > 0 {
		d = append(d, bson.E{Key: "writeErrors", Value: a.WriteErrors})
	}
	return append(d, bson.E{Key: "ok", Value: 1.0})
}

// statements returns the command's body without its list of that name, and the
// list, which may be in the body or beside it.
func (c command) statements(name string) (bson.Raw, []bson.Raw, error) {
	for _, s := range c.sequences {
		if s.name == name {
			return c.body, s.documents, nil
		}
	}
	list, ok := c.body.Lookup(name).ArrayOK()
	if !ok {
		return nil, nil, fmt.Errorf("read %s of %s: %w", name, c.name(), errMalformed)
	}
	values, err := list.Values()
	if err != nil {
		return nil, nil, fmt.Errorf("read %s of %s: %w", name, c.name(), err)
	}
	documents := make([]bson.Raw, len(values))
	for i, v := range values {
		if documents[i], ok = v.DocumentOK(); !ok {
			return nil, nil, fmt.Errorf("read %s of %s: %w", name, c.name(), errMalformed)
		}
	}
	rest, err := without(c.body, name)
	if err != nil {
		return nil, nil, err
	}
	body, err := bson.Marshal(rest)
	if err != nil {
		return nil, nil, fmt.Errorf("encode %s: %w", c.name(), err)
	}
	return body, documents, nil
}
