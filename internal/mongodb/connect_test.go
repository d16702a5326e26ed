package mongodb_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/testenv"
)

const password = "Ge/heim-4711"

func TestRedact(t *testing.T) {
	for uri, want := range map[string]string{
		"mongodb://a:27017":                                             "mongodb://a:27017",
		"mongodb://user:pa%2Fss@a,b:1/db?replicaSet=rs":                 "mongodb://***@a,b:1/db?replicaSet=rs",
		"mongodb+srv://user:p@ss@a.example/?tls=true":                   "mongodb+srv://***@a.example/?tls=true",
		"mongodb://a/?tlsCertificateKeyFilePassword=x&appName=y":        "mongodb://a/?tlsCertificateKeyFilePassword=***&appName=y",
		"mongodb://a/?authMechanismProperties=AWS_SESSION_TOKEN:secret": "mongodb://a/?authMechanismProperties=***",
		"user:pass@host": "***",
		"":               "***",
	} {
		if got := mongodb.Redact(uri); got != want {
			t.Errorf("%s: %s, want %s", uri, got, want)
		}
	}
}

func TestHosts(t *testing.T) {
	for uri, want := range map[string]string{
		"mongodb://A:27017,b:1/db?x=y": "a:27017 b:1", "mongodb://u:p@/": "", "x": "", "mongodb+srv://u:p@c.example": "c.example",
	} {
		if got := strings.Join(mongodb.Hosts(uri), " "); got != want {
			t.Errorf("%s: %q, want %q", uri, got, want)
		}
	}
}

// A user's mistakes end in one line that says what, where and what to do, and
// holds no secret.
func TestConnectErrors(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		uri     string
		want    []string
		verdict retry.Verdict
	}{
		"no scheme":          {"localhost:27017", []string{"scheme", `starts with "mongodb://"`}, retry.Stop},
		"other scheme":       {"postgres://user:" + password + "@localhost", []string{"scheme"}, retry.Stop},
		"not encoded":        {"mongodb://user:" + password + "@localhost", []string{"percent-encode"}, retry.Stop},
		"not encoded either": {"mongodb://user:a@b:" + password + "@localhost/", []string{"percent-encode"}, retry.Stop},
		"bad port":           {"mongodb://user:Geheim-4711@localhost:x/", []string{"port"}, retry.Stop},
		"bad option":         {"mongodb://user:Geheim-4711@localhost/?directConnection=maybe", []string{"directConnection"}, retry.Stop},
		"no file":            {"mongodb://user:Geheim-4711@localhost/?tls=true&tlsCAFile=/no/such/file", []string{"/no/such/file"}, retry.Stop},
		"refused": {
			"mongodb://user:Geheim-4711@" + closed + "/?directConnection=true&serverSelectionTimeoutMS=300",
			[]string{closed, `user "user"`, "connection refused", "is the server running"},
			retry.Connection,
		},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := mongodb.Connect(t.Context(), mongodb.Options{URI: test.uri})
			if err == nil {
				t.Fatal("connected")
			}
			for _, want := range append(test.want, "connect to MongoDB", "hint: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not hold %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "4711") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q has a secret or several lines", err)
			}
			if got := mongodb.Classify(err); got != test.verdict {
				t.Errorf("verdict %s, want %s", got, test.verdict)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestWrongPassword(t *testing.T) {
	server := testenv.RequireMongoD(t).NewSource(t, testenv.Auth())
	scheme, rest, _ := strings.Cut(server.URI, "://")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	_, err := mongodb.Connect(t.Context(), mongodb.Options{URI: scheme + "://alice:Geheim-4711@" + rest})
	if err == nil {
		t.Fatal("connected")
	}
	for _, want := range []string{`as user "alice"`, "check the user name, the password, authSource", "127.0.0.1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not hold %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "4711") {
		t.Errorf("error %q has the password", err)
	}
	if got := mongodb.Classify(err); got != retry.Stop {
		t.Errorf("verdict %s, want stop", got)
	}
}
