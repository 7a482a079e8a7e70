package cache

import (
	"context"
	"time"
)

// Cache keeps values by key. Its methods may be called in parallel.
type Cache interface {
	// Fetch looks for many keys at once. The answer has a value for each key, in order: nil for one that is not there,
	// and not nil, maybe empty, for one that is. Values are shared: they must not be changed. There are no errors: a
	// cache that can't answer in time has nothing. When the context ends, what has been found is returned.
	Fetch(ctx context.Context, keys []string) [][]byte

	// Store keeps entries, in memory at once and elsewhere soon. It does not wait for anybody; entries past the bound
	// of the queue are dropped. The values belong to the cache from then on and must not be changed.
	Store(entries ...Entry)

	// Close ends what runs in the background and waits for it; what is still to be written is dropped. Nothing may be
	// called after it.
	Close() error
}

// Entry is what a cache keeps.
type Entry struct {
	Key   string
	Value []byte
	// TTL is how long the entry may be handed out; 0 is for as long as there is room.
	TTL time.Duration
}

// FetchOne looks for one key.
func FetchOne(ctx context.Context, c Cache, key string) (value []byte, found bool) {
	value = c.Fetch(ctx, []string{key})[0]
	return value, value != nil
}
