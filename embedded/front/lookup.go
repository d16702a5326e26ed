package front

import (
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// maxLookups is how many documents are looked up one by one; for more, a
	// look at the whole collection is cheaper.
	maxLookups = 200
	// maxLookupBytes ends an answer early: the rest is left to the server.
	maxLookupBytes = 15 << 20
)

// idsOf returns the _ids of a find with the filter {_id: {$in: [...]}} and
// nothing that would change the order or the number of its documents. ok is
// false for every other find, and where the server would not use its index.
func (c command) idsOf() (ids []bson.RawValue, ok bool) {
	for _, name := range []string{"sort", "limit", "skip", "tailable"} {
		if _, err := c.body.LookupErr(name); err == nil {
			return nil, false
		}
	}
	if size, set := c.body.Lookup("batchSize").AsInt64OK(); set && size <= 1 {
		// Each of the finds would leave a cursor open, or return nothing.
		return nil, false
	}
	filter, ok := c.body.Lookup("filter").DocumentOK()
	if !ok {
		return nil, false
	}
	fields, err := filter.Elements()
	if err != nil || len(fields) != 1 || fields[0].Key() != "_id" {
		return nil, false
	}
	condition, ok := fields[0].Value().DocumentOK()
	if !ok {
		return nil, false
	}
	operators, err := condition.Elements()
	if err != nil || len(operators) != 1 || operators[0].Key() != "$in" {
		return nil, false
	}
	list, ok := operators[0].Value().ArrayOK()
	if !ok {
		return nil, false
	}
	ids, err = list.Values()
	if err != nil || len(ids) > maxLookups {
		return nil, false
	}
	for _, id := range ids {
		if id.Type != bson.TypeString && id.Type != bson.TypeObjectID {
			return nil, false
		}
	}
	return ids, true
}

// lookUp answers such a find by one find for each _id.
func (s *session) lookUp(m message, c command, ids []bson.RawValue) (message, error) {
	elements, err := c.body.Elements()
	if err != nil {
		return nil, fmt.Errorf("read find: %w", err)
	}
	batch, size := bson.A{}, 0
	for _, id := range distinct(ids) {
		body := make(bson.D, 0, len(elements))
		for _, e := range elements {
			value := any(e.Value())
			if e.Key() == "filter" {
				value = bson.D{{Key: "_id", Value: id}}
			}
			body = append(body, bson.E{Key: e.Key(), Value: value})
		}
		raw, err := bson.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write find: %w", err)
		}
		found, err := s.call(c, raw)
		if err != nil {
			return nil, err
		}
		list, ok := found.Lookup("cursor", "firstBatch").ArrayOK()
		if !ok {
			return encode(c.requestID, c.requestID, found), nil
		}
		values, err := list.Values()
		if err != nil {
			return nil, fmt.Errorf("read find's answer: %w", err)
		}
		for _, v := range values {
			batch = append(batch, v)
		}
		if size += len(list); size > maxLookupBytes {
			return s.ask(m)
		}
	}
	database, _ := c.body.Lookup("$db").StringValueOK()
	collection, _ := c.body.Lookup("find").StringValueOK()
	return answer(c, bson.D{
		{Key: "cursor", Value: bson.D{
			{Key: "firstBatch", Value: batch},
			{Key: "id", Value: int64(0)},
			{Key: "ns", Value: database + "." + collection},
		}},
		{Key: "ok", Value: 1.0},
	})
}

// distinct leaves repeated values out.
func distinct(ids []bson.RawValue) []bson.RawValue {
	seen := make(map[string]bool, len(ids))
	kept := make([]bson.RawValue, 0, len(ids))
	for _, id := range ids {
		key := string(rune(id.Type)) + string(id.Value)
		if !seen[key] {
			seen[key] = true
			kept = append(kept, id)
		}
	}
	return kept
}
