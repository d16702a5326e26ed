package mongodb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"
)

// selectionTimeout bounds how long an operation looks for a server, unless the
// connection string says serverSelectionTimeoutMS.
const selectionTimeout = 10 * time.Second

// connectTimeout bounds one attempt to connect, and with the driver's ten
// seconds between two looks at a server how long one that answers nothing any
// more counts as alive, unless the connection string says connectTimeoutMS.
const connectTimeout = 10 * time.Second

// disconnectTimeout bounds the clean-up after a connection that did not come up.
const disconnectTimeout = 5 * time.Second

// Options say how to reach a deployment.
type Options struct {
	// URI is a connection string; all of its options are honoured. It is a
	// secret: nothing here writes it anywhere.
	URI string
	// AppName names the client in the server's logs; the connection string's
	// own appName wins. Empty means "tributary".
	AppName string
	// ServerSelectionTimeout bounds how long an operation looks for a server;
	// the connection string's own wins. Zero means 10 s.
	ServerSelectionTimeout time.Duration
}

// Connect returns a client whose deployment answered a ping; it blocks for the
// server selection timeout at most and does not retry. Its error is a
// *ConnectError. The caller disconnects the client.
func Connect(ctx context.Context, opts Options) (*mongo.Client, error) {
	secrets := newSecrets(opts.URI)
	uri, err := connstring.ParseAndValidate(opts.URI)
	if err != nil {
		return nil, &ConnectError{Err: err, hint: uriHint(err, secrets), secrets: secrets}
	}
	client, err := mongo.Connect(clientOptions(opts, uri))
	if err != nil {
		return nil, &ConnectError{Hosts: uri.Hosts, Err: err, hint: "check the connection string and the files that it names", secrets: secrets}
	}
	if err := client.Ping(ctx, nil); err != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), disconnectTimeout)
		defer cancel()
		failed := &ConnectError{Hosts: uri.Hosts, User: uri.Username, Err: err, hint: pingHint(err, uri), secrets: secrets}
		if closing := client.Disconnect(end); closing != nil && ctx.Err() == nil {
			failed.Err = errors.Join(err, closing)
		}
		return nil, failed
	}
	return client, nil
}

func clientOptions(opts Options, uri *connstring.ConnString) *options.ClientOptions {
	client := options.Client().ApplyURI(opts.URI)
	if uri.AppName == "" {
		name := opts.AppName
		if name == "" {
			name = "tributary"
		}
		client.SetAppName(name)
	}
	if !uri.ConnectTimeoutSet {
		client.SetConnectTimeout(connectTimeout)
	}
	if !uri.ServerSelectionTimeoutSet {
		timeout := opts.ServerSelectionTimeout
		if timeout == 0 {
			timeout = selectionTimeout
		}
		client.SetServerSelectionTimeout(timeout)
	}
	return client
}

// ConnectError says why a deployment cannot be reached: the hosts, the cause
// and the likely remedy, never the connection string or a password.
type ConnectError struct {
	// Hosts are those of the connection string; empty where it could not be
	// read.
	Hosts []string
	// User is the user name, if any.
	User string
	// Err is the driver's error. Its own text may be long and may quote the
	// connection string: print the ConnectError instead.
	Err error

	hint    string
	secrets secrets
}

// Error is one line, without secrets.
func (e *ConnectError) Error() string {
	var b strings.Builder
	b.WriteString("connect to MongoDB")
	if len(e.Hosts) > 0 {
		b.WriteString(" at " + strings.Join(e.Hosts, ","))
	}
	if e.User != "" {
		fmt.Fprintf(&b, " as user %q", e.User)
	}
	if len(e.Hosts) == 0 {
		b.WriteString(": " + e.secrets.hideQuoted(cause(e.Err)))
	} else {
		b.WriteString(": " + e.secrets.hide(cause(e.Err)))
	}
	if e.hint != "" {
		b.WriteString(": hint: " + e.hint)
	}
	return b.String()
}

// Unwrap returns the driver's error, for Classify.
func (e *ConnectError) Unwrap() error { return e.Err }

// cause shortens a server selection error to what each server said last.
func cause(err error) string {
	var selection topology.ServerSelectionError
	if !errors.As(err, &selection) {
		return oneLine(err.Error())
	}
	var said []string
	for _, s := range selection.Desc.Servers {
		if s.LastError != nil {
			said = append(said, oneLine(s.LastError.Error()))
		}
	}
	if len(said) == 0 {
		return "no usable server was found"
	}
	return strings.Join(said, "; ")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func uriHint(err error, secrets secrets) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "scheme"):
		return `a connection string starts with "mongodb://" or "mongodb+srv://"`
	case secrets.unescaped():
		return "percent-encode the characters : / ? # [ ] @ % in the user name and the password"
	case strings.Contains(text, "lookup"):
		return "check the host name of the mongodb+srv:// connection string and the DNS"
	}
	return "see MongoDB's manual on connection strings"
}

// Error codes of the server that a hint depends on.
const (
	codeUnauthorized         = 13
	codeAuthenticationFailed = 18
)

func pingHint(err error, uri *connstring.ConnString) string {
	text := cause(err)
	var selection topology.ServerSelectionError
	switch {
	case strings.Contains(text, "auth error"), hasCode(err, codeAuthenticationFailed):
		return "check the user name, the password, authSource and authMechanism of the connection string"
	case strings.Contains(text, "no such host"):
		return "check the host names of the connection string; the names in the replica set's own configuration must resolve from here too, or use directConnection=true"
	case strings.Contains(text, "x509:"), strings.Contains(text, "tls:"):
		return "TLS was not agreed: check tls, tlsCAFile and tlsCertificateKeyFile of the connection string and the server's certificate"
	case strings.Contains(text, "connection refused"), strings.Contains(text, "i/o timeout"):
		return "is the server running, and are host and port right?"
	case errors.As(err, &selection) && uri.ReplicaSet != "":
		return fmt.Sprintf("no primary was found in replica set %q: check replicaSet in the connection string, and rs.status() on a member", uri.ReplicaSet)
	case errors.As(err, &selection):
		return "no primary was found: check rs.status() on a member, and that the members' names resolve from here"
	}
	return "check the connection string; a server that wants TLS hangs up on connections without it (tls=true)"
}
