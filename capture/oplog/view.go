package oplog

import (
	"strings"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// view decodes a write to DB.system.views, whose documents are
// {_id: "db.view", viewOn, pipeline, …}.
func (r *run) view(op *operation, ns event.Namespace) error {
	doc, name, kind := op.o, "create", event.OpCreate
	switch op.kind[0] {
	case kindDelete:
		name, kind = "drop", event.OpDrop
	case kindUpdate:
		u, err := op.readUpdate()
		if err != nil {
			return err
		}
		if u.image == nil {
			return op.unsupported("change of a view that does not hold its whole definition")
		}
		doc, name, kind = u.image, "collMod", event.OpModify
	}
	id, err := op.id(doc)
	if err != nil {
		return err
	}
	text, ok := id.Text()
	db, view, cut := strings.Cut(string(text), ".")
	if !ok || !cut || db != ns.DB || view == "" {
		return op.malformed("_id of a view")
	}
	ns.Coll = view
	if !r.selected(ns) {
		return nil
	}
	ddl, err := op.commandFrom(name, view, doc, "_id")
	if err != nil {
		return err
	}
	r.emit(op, event.Event{Op: kind, NS: ns, DDL: ddl})
	return nil
}

// commandFrom builds {<name>: coll, …} with the elements of doc, except one.
func (op *operation) commandFrom(name, coll string, doc []byte, except string) (bson.Raw, error) {
	body, err := rawbson.Body(doc)
	if err != nil {
		return nil, op.fail(err, "")
	}
	dst, at := rawbson.Begin(make([]byte, 0, len(doc)+len(name)+len(coll)+16))
	dst = rawbson.AppendString(dst, name, coll)
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, op.fail(err, "")
		}
		if string(e.Name) != except {
			dst = append(dst, e.Raw...)
		}
		body = rest
	}
	return rawbson.End(dst, at), nil
}
