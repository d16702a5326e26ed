package front

import (
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// indexVersion is the version that every index of a server has since MongoDB
// 3.4, and that FerretDB lists but does not take.
const indexVersion = 2

// createIndexes runs a createIndexes command without the indexes' versions.
func (s *session) createIndexes(c command) (message, error) {
	elements, err := c.body.Elements()
	if err != nil {
		return nil, fmt.Errorf("read createIndexes: %w", err)
	}
	body := make(bson.D, 0, len(elements))
	for _, e := range elements {
		list, ok := e.Value().ArrayOK()
		if e.Key() != "indexes" || !ok {
			body = append(body, bson.E{Key: e.Key(), Value: e.Value()})
			continue
		}
		indexes, err := withoutVersions(list)
		if err != nil {
			return nil, err
		}
		body = append(body, bson.E{Key: e.Key(), Value: indexes})
	}
	raw, err := bson.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("write createIndexes: %w", err)
	}
	return s.ask(encode(c.requestID, 0, raw, c.sequences...))
}

// withoutVersions takes v: 2 off every index.
func withoutVersions(list bson.RawArray) (bson.A, error) {
	values, err := list.Values()
	if err != nil {
		return nil, fmt.Errorf("read indexes: %w", err)
	}
	indexes := make(bson.A, 0, len(values))
	for _, v := range values {
		index, ok := v.DocumentOK()
		if !ok {
			indexes = append(indexes, v)
			continue
		}
		elements, err := index.Elements()
		if err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		spec := make(bson.D, 0, len(elements))
		for _, e := range elements {
			if version, ok := e.Value().AsInt64OK(); e.Key() == "v" && ok && version == indexVersion {
				continue
			}
			spec = append(spec, bson.E{Key: e.Key(), Value: e.Value()})
		}
		indexes = append(indexes, spec)
	}
	return indexes, nil
}
