package frontend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/golang/snappy"

	"github.com/koios-metrics/koios/pkg/cache"
)

// metadataCache keeps lists of labels, label values and series, by the exact part of time they are about: what there is
// in a part of it can't be told from the list. So it is the whole days (or what the split interval is) of a range that are
// found again. Kept is what is complete, of time that is settled.
type metadataCache struct {
	cache     cache.Cache
	freshness time.Duration
	ttl       time.Duration
	compress  bool
	now       func() time.Time
	logger    log.Logger
	metrics   *metrics
}

// keepable tells whether the answer about a part may be kept.
func (c *metadataCache) keepable(q *metadataQuery, part span) bool {
	return c != nil && c.cache != nil && !q.noCache && part.end <= c.now().Add(-c.freshness).UnixMilli()
}

// fetch returns what is kept of the parts of a request, nil where there is nothing.
func (c *metadataCache) fetch(ctx context.Context, q *metadataQuery, parts []span) []*metadataAnswer {
	found := make([]*metadataAnswer, len(parts))
	var keys []string
	var at []int
	for i, p := range parts {
		if c.keepable(q, p) {
			keys, at = append(keys, c.key(q, p)), append(at, i)
		}
	}
	if len(keys) == 0 {
		return found
	}
	for i, b := range c.cache.Fetch(ctx, keys) {
		if b == nil {
			continue
		}
		a, err := c.decode(b, q.series)
		if err != nil {
			c.metrics.unreadable.Inc()
			level.Warn(c.logger).Log("msg", "entry of the labels cache dropped", "err", err)
			continue
		}
		found[at[i]] = a
	}
	return found
}

// metadataVersion is the first byte of an entry.
const metadataVersion = 1

func (c *metadataCache) decode(b []byte, series bool) (*metadataAnswer, error) {
	b, err := unpack(b, c.compress)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 || b[0] != metadataVersion {
		return nil, fmt.Errorf("%w: unknown version", errEntry)
	}
	a := &metadataAnswer{}
	if err := a.read(b[1:], series); err != nil {
		return nil, fmt.Errorf("%w: %w", errEntry, err)
	}
	return a, nil
}

// store keeps an answer that may be kept.
func (c *metadataCache) store(q *metadataQuery, part span, a *metadataAnswer) {
	if !c.keepable(q, part) || a.noStore || len(a.warnings)+len(a.infos) > 0 {
		return
	}
	text, err := json.Marshal(a.list(q.series))
	if err != nil {
		level.Warn(c.logger).Log("msg", "answer not kept", "err", err)
		return
	}
	b := append([]byte{metadataVersion}, text...)
	if c.compress {
		b = snappy.Encode(nil, b)
	}
	c.cache.Store(cache.Entry{Key: c.key(q, part), Value: b, TTL: c.ttl})
}

// key holds everything that an answer depends on.
func (c *metadataCache) key(q *metadataQuery, part span) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q %q %d %d %d", q.org, q.tenant, q.path, part.start, part.end, q.limit)
	q.writeKey(&b)
	return hashedKey("fe:metadata:", b.String())
}

// writeKey writes the parameters and headers of a call.
func (c *call) writeKey(b *strings.Builder) {
	names := make([]string, 0, len(c.form))
	for name := range c.form {
		if name != "timeout" { // it makes an error or nothing
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		vs := slices.Clone(c.form[name])
		slices.Sort(vs)
		fmt.Fprintf(b, " %s=%q", name, vs)
	}
	names = names[:0]
	for name := range c.header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(b, " %q:%q", name, c.header[name])
	}
}

func hashedKey(kind, text string) string {
	sum := sha256.Sum256([]byte(text))
	return kind + hex.EncodeToString(sum[:20])
}

// unpack decompresses an entry. The length that it claims is checked before memory is taken.
func unpack(b []byte, compressed bool) ([]byte, error) {
	if !compressed {
		return b, nil
	}
	if n, err := snappy.DecodedLen(b); err != nil || n > len(b)*64+1024 {
		return nil, fmt.Errorf("%w: it can't be decompressed", errEntry)
	}
	out, err := snappy.Decode(nil, b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errEntry, err)
	}
	return out, nil
}
