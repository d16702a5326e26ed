package front

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sync/errgroup"
)

// codeBadValue is the server's error code for arguments that it cannot take.
const codeBadValue = 2

// WindowCollection is the collection of the database local through which
// tailable cursors read the oplog.
const WindowCollection = "tributary.window"

// trimEvery is after how many writes the oplog is trimmed.
const trimEvery = 100

// Config says what a front stands before. Its functions are called while no
// other write runs.
type Config struct {
	// Listener accepts clients; Run closes it.
	Listener net.Listener
	// Server is the server's address.
	Server string
	// Created is called after a write to a collection that may be new. It
	// returns whether the collection exists; if not, the next write calls again.
	Created func(ctx context.Context, database, collection string) (bool, error)
	// Fill replaces the content of the window by the oplog's records after a
	// record id, at most limit, and returns the last one's id, or after if there
	// are none. A record id is at least as large as the entry's ts taken as a
	// number. Nil where there is no oplog.
	Fill func(ctx context.Context, after int64, limit int) (last int64, err error)
	// Newest returns a record id below that of the oplog's last entry and above
	// that of the one before, where there are such. Nil where there is no oplog.
	Newest func(ctx context.Context) (before int64, err error)
	// Trim deletes the oldest entries of an oplog that is too large; nil where
	// there is none.
	Trim func(ctx context.Context) error
}

// Front is the public face of one server.
type Front struct {
	cfg  Config
	tail *tail

	// write is held while a command that changes something runs, and while the
	// window is used.
	write sync.Mutex
	// known holds the namespaces that Created has confirmed, and writes counts
	// the writes since the oplog was trimmed. They belong to write.
	known  map[string]bool
	writes int
}

// New makes a front; Run serves.
func New(cfg Config) *Front {
	return &Front{cfg: cfg, known: map[string]bool{}, tail: newTail()}
}

// Run serves clients until ctx ends, and returns when every connection is
// closed.
func (f *Front) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = f.cfg.Listener.Close() })
	defer stop()
	group.Go(func() error {
		for {
			client, err := f.cfg.Listener.Accept()
			if err != nil && ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("accept client: %w", err)
			}
			group.Go(func() error { return f.serve(ctx, client) })
		}
	})
	return group.Wait()
}

// serve is one client's connection. What goes wrong with it ends it and nothing
// else, which is what the client sees.
func (f *Front) serve(ctx context.Context, client net.Conn) error {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", f.cfg.Server)
	if err != nil {
		return nil //nolint:nilerr // The client sees a closed connection.
	}
	defer func() { _ = server.Close() }()
	stop := context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	s := &session{front: f, client: client, server: server}
	for s.next(ctx) == nil {
	}
	return nil
}

// session is the state of one client's connection.
type session struct {
	front  *Front
	client net.Conn
	server net.Conn
}

// next serves one message.
func (s *session) next(ctx context.Context) error {
	m, err := read(s.client)
	if err != nil {
		return err
	}
	if m.opCode() != opMsg {
		return s.pass(m)
	}
	c, err := decode(m)
	if err != nil {
		return err
	}
	reply, err := s.handle(ctx, m, c)
	if err != nil {
		return err
	}
	if c.flags&flagMoreToCome != 0 {
		return nil
	}
	_, err = s.client.Write(reply)
	return err
}

// pass forwards a message and its answer unread.
func (s *session) pass(m message) error {
	reply, err := s.ask(m)
	if err != nil {
		return err
	}
	_, err = s.client.Write(reply)
	return err
}

// ask sends a message to the server and returns its answer.
func (s *session) ask(m message) (message, error) {
	if _, err := s.server.Write(m); err != nil {
		return nil, err
	}
	reply, err := read(s.server)
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	return reply, err
}

// call runs a command on the server and returns its answer's body.
func (s *session) call(c command, body bson.Raw, sequences ...sequence) (bson.Raw, error) {
	reply, err := s.ask(encode(c.requestID, 0, body, sequences...))
	if err != nil {
		return nil, err
	}
	answer, err := decode(reply)
	if err != nil {
		return nil, err
	}
	return answer.body, nil
}

// handle returns the answer to a command.
func (s *session) handle(ctx context.Context, m message, c command) (message, error) {
	if err := c.refused(); err != nil {
		return failure(c, err), nil
	}
	switch c.name() {
	case "find", "getMore", "killCursors":
		return s.read(ctx, m, c)
	case "update":
		return s.write(ctx, c, func() (message, error) { return s.update(c) })
	case "createIndexes":
		return s.write(ctx, c, func() (message, error) { return s.createIndexes(c) })
	case "insert", "delete", "findAndModify", "findandmodify", "create", "drop", "dropDatabase", "renameCollection",
		"dropIndexes", "deleteIndexes":
		return s.write(ctx, c, func() (message, error) { return s.ask(m.expectingReply()) })
	}
	return s.ask(m)
}

// write runs a command that changes something while no other one does.
func (s *session) write(ctx context.Context, c command, do func() (message, error)) (message, error) {
	f := s.front
	f.write.Lock()
	defer f.write.Unlock()
	defer f.tail.written()
	reply, err := do()
	if err != nil {
		return nil, err
	}
	if err := f.afterWrite(ctx, c); err != nil {
		return failure(c, err), nil
	}
	return reply, nil
}

// afterWrite does what follows a write command before the next one may run.
func (f *Front) afterWrite(ctx context.Context, c command) error {
	if f.writes++; f.writes >= trimEvery && f.cfg.Trim != nil {
		f.writes = 0
		if err := f.cfg.Trim(ctx); err != nil {
			return err
		}
	}
	switch c.name() {
	case "drop", "dropDatabase", "renameCollection":
		clear(f.known)
		return nil
	}
	database, _ := c.body.Lookup("$db").StringValueOK()
	collection, _ := c.body.Lookup(c.name()).StringValueOK()
	ns := database + "." + collection
	if f.known[ns] || database == "local" {
		return nil
	}
	var err error
	f.known[ns], err = f.cfg.Created(ctx, database, collection)
	return err
}

// expectingReply is the message with the flag cleared that asks for none: the
// front must know when a write is done.
func (m message) expectingReply() message {
	m[headerSize] &^= flagMoreToCome
	return m
}

// answer makes the answer to a command.
func answer(c command, body bson.D) (message, error) {
	raw, err := bson.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return encode(c.requestID, c.requestID, raw), nil
}

// failure makes an answer that refuses a command.
func failure(c command, err error) message {
	doc := bson.Raw(nil)
	doc, _ = bson.Marshal(bson.D{
		{Key: "ok", Value: 0.0},
		{Key: "errmsg", Value: err.Error()},
		{Key: "code", Value: int32(codeBadValue)},
		{Key: "codeName", Value: "BadValue"},
	})
	return encode(c.requestID, c.requestID, doc)
}
