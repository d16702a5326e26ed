package mongodb

import (
	"net/url"
	"strings"

	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"
)

// hidden stands for a secret in a text.
const hidden = "***"

// Redact returns a connection string without its credentials: user name,
// password and options whose value is a secret. What is no connection string
// is hidden whole.
func Redact(uri string) string {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return hidden
	}
	rest, query, _ := strings.Cut(rest, "?")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = hidden + rest[at:]
	}
	return scheme + "://" + rest + redactQuery(query)
}

// Hosts returns the hosts of a connection string, for messages and for telling
// whether two strings name the same deployment; nil where it cannot be read.
// For mongodb+srv it is the unresolved name.
func Hosts(uri string) []string {
	_, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return nil
	}
	rest, _, _ = strings.Cut(rest, "?")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	rest, _, _ = strings.Cut(rest, "/")
	if rest == "" {
		return nil
	}
	return strings.Split(strings.ToLower(rest), ",")
}

// CheckURI returns a *ConnectError if uri is not a well-formed connection
// string. It looks nothing up and connects to nothing; names of
// mongodb+srv are checked by Connect alone.
func CheckURI(uri string) error {
	if strings.HasPrefix(uri, connstring.SchemeMongoDBSRV+"://") {
		return nil
	}
	if _, err := connstring.ParseAndValidate(uri); err != nil {
		secrets := newSecrets(uri)
		return &ConnectError{Err: err, hint: uriHint(err, secrets), secrets: secrets}
	}
	return nil
}

// redactQuery keeps the options that are safe to show.
func redactQuery(query string) string {
	if query == "" {
		return ""
	}
	pairs := strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' })
	for i, pair := range pairs {
		key, _, _ := strings.Cut(pair, "=")
		if secretOption(key) {
			pairs[i] = key + "=" + hidden
		}
	}
	return "?" + strings.Join(pairs, "&")
}

func secretOption(key string) bool {
	key = strings.ToLower(key)
	return strings.Contains(key, "password") || key == "authmechanismproperties" || key == "proxyusername"
}

// secrets are the parts of a connection string that must not appear in a
// message.
type secrets struct {
	texts []string
	// credentials is all that stands before the last @, which for a string
	// that does not parse may be more than user name and password: an error
	// may quote any piece of it.
	credentials string
}

// newSecrets collects what of a connection string is secret, as it is written
// there and decoded. It reads by hand, since a string that does not parse holds
// secrets too.
func newSecrets(uri string) secrets {
	s := secrets{texts: []string{uri}}
	_, rest, ok := strings.Cut(uri, "://")
	if !ok {
		rest = uri
	}
	hosts, query, _ := strings.Cut(rest, "?")
	for _, part := range []string{rest, hosts} {
		at := strings.LastIndexByte(part, '@')
		if at < 0 {
			continue
		}
		if s.credentials == "" {
			s.credentials = part[:at]
		}
		s.add(part[:at])
		if _, password, ok := strings.Cut(part[:at], ":"); ok {
			s.add(password)
		}
	}
	for pair := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		if key, value, ok := strings.Cut(pair, "="); ok && secretOption(key) {
			s.add(value)
		}
	}
	return s
}

// add takes a secret in both of its spellings.
func (s *secrets) add(text string) {
	if text == "" {
		return
	}
	s.texts = append(s.texts, text)
	if plain, err := url.PathUnescape(text); err == nil && plain != text {
		s.texts = append(s.texts, plain)
	}
}

// unescaped reports whether the credentials have a character that must be
// percent-encoded in them, so that the rest of the string is misread.
func (s secrets) unescaped() bool {
	return strings.ContainsAny(s.credentials, "/?#[]@") || strings.Count(s.credentials, ":") > 1
}

// hide replaces every secret in text.
func (s secrets) hide(text string) string {
	for _, secret := range s.texts {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, hidden)
		}
	}
	return text
}

// hideQuoted is hide for what is said of a string that cannot be read: quoted
// pieces of the credentials are hidden too.
func (s secrets) hideQuoted(text string) string {
	pieces := strings.Split(s.hide(text), `"`)
	for i := 1; i < len(pieces); i += 2 {
		if pieces[i] != "" && strings.Contains(s.credentials, pieces[i]) {
			pieces[i] = hidden
		}
	}
	return strings.Join(pieces, `"`)
}
