package changestream

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// ErrToken marks a resume token of a form that is not known.
var ErrToken = errors.New("resume token of an unknown form")

// The types of values in a key string, as far as tokens hold them.
const (
	keyTimestamp = 0x82
	keyZero      = 0x29
	// keyPositive + n is a positive integer of n bytes, shifted by one bit.
	keyPositive = 0x2a
	maxInteger  = 8
	keyBinary   = 0x5a
	keyFalse    = 0x6e
	keyTrue     = 0x6f
	uuidSubtype = 4
)

// Token is what can be read in a resume token.
type Token struct {
	// Time is the cluster time of the change behind which it resumes, or up to
	// which the stream has come.
	Time bson.Timestamp
	// UUID is the collection's; zero where the token holds none or writes it in
	// a form that is not known.
	UUID event.UUID
}

// ParseToken reads a resume token, {_data: <hexadecimal key string>, …}. The
// cluster time is at the start of every token; one without is an ErrToken.
func ParseToken(token bson.Raw) (Token, error) {
	data, _, err := rawbson.Lookup(token, "_data")
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	text, ok := data.Text()
	const head, uuidEnd = 9, 64 // what is read at most, in bytes
	if !ok || len(text) < 2*head {
		return Token{}, ErrToken
	}
	var buffer [uuidEnd]byte
	n, err := hex.Decode(buffer[:], text[:min(len(text)&^1, 2*uuidEnd)])
	if err != nil || buffer[0] != keyTimestamp {
		return Token{}, ErrToken
	}
	key := buffer[:n]
	t := Token{Time: bson.Timestamp{T: binary.BigEndian.Uint32(key[1:]), I: binary.BigEndian.Uint32(key[5:])}}
	t.UUID = tokenUUID(key[head:])
	return t, nil
}

// tokenUUID finds the UUID behind the token's version and type, the index inside
// a transaction and the mark of an invalidation.
func tokenUUID(key []byte) event.UUID {
	var ok bool
	for range 3 {
		if key, ok = skipInteger(key); !ok {
			return event.UUID{}
		}
	}
	const head = 4 // mark, type, length, subtype
	var id event.UUID
	if len(key) < head+len(id) || key[0] != keyFalse && key[0] != keyTrue ||
		key[1] != keyBinary || int(key[2]) != len(id) || key[3] != uuidSubtype {
		return event.UUID{}
	}
	copy(id[:], key[head:])
	return id
}

func skipInteger(key []byte) ([]byte, bool) {
	if len(key) == 0 {
		return nil, false
	}
	n := int(key[0]) - keyPositive
	switch {
	case key[0] == keyZero:
		return key[1:], true
	case n >= 1 && n <= maxInteger && len(key) > n:
		return key[1+n:], true
	}
	return nil, false
}
