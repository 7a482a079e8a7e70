package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/cespare/xxhash/v2"
)

// What is kept outside of this process looks like this:
//
//	"koi" | version, 1 byte | xxhash64 of key, a zero byte and value, 8 bytes, big endian | value
//
// The key is in the checksum, so that an answer to somebody else's question is not taken for ours. It is the key as the
// server knows it, with its prefix.
const (
	entryMagic   = "koi"
	entryVersion = 1
	entryHeader  = len(entryMagic) + 1 + 8
)

// keyPrefix goes before every key in a shared server. It ends with the version of the entries, so that a later version
// meets none of its own past.
const keyPrefix = "koios1:"

// keyBytesMax is the length of keys that are sent as they are; memcached takes 250 bytes.
const keyBytesMax = 200

var errForeign = errors.New("the entry is damaged or not ours")

// wireKey is the key that a server is asked for. A key that is long, or that has bytes which memcached can't take,
// is hashed.
func wireKey(prefix, key string) string {
	if len(prefix)+len(key) <= keyBytesMax && plain(key) {
		return prefix + key
	}
	h := sha256.Sum256([]byte(key))
	return prefix + "#" + base64.RawURLEncoding.EncodeToString(h[:])
}

// plain tells whether memcached takes every byte of a key. A key that begins like a hashed one is not plain.
func plain(key string) bool {
	if key == "" || key[0] == '#' {
		return false
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] >= 0x7f {
			return false
		}
	}
	return true
}

func entrySum(wireKey string, value []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(wireKey)
	_, _ = d.Write([]byte{0})
	_, _ = d.Write(value)
	return d.Sum64()
}

// encodeEntry makes what is kept of a value.
func encodeEntry(wireKey string, value []byte) []byte {
	b := make([]byte, 0, entryHeader+len(value))
	b = append(b, entryMagic...)
	b = append(b, entryVersion)
	b = binary.BigEndian.AppendUint64(b, entrySum(wireKey, value))
	return append(b, value...)
}

// decodeEntry returns the value within what was kept; it shares the bytes. Nothing but what encodeEntry made for this
// key is believed.
func decodeEntry(wireKey string, b []byte) ([]byte, error) {
	if len(b) < entryHeader || string(b[:len(entryMagic)]) != entryMagic || b[len(entryMagic)] != entryVersion {
		return nil, errForeign
	}
	value := b[entryHeader:len(b):len(b)]
	if binary.BigEndian.Uint64(b[entryHeader-8:]) != entrySum(wireKey, value) {
		return nil, errForeign
	}
	return value, nil
}
