package bucket

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-kit/log"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/indexheader"
)

// loaded is a block that is being served. It is closed when it has been dropped and the last request that reads it has
// let go of it.
type loaded struct {
	meta   *block.Meta
	labels labels.Labels // external
	bkt    objstore.BucketReader
	dir    string
	header *indexheader.Reader
	cache  *indexCache

	seriesLengths, chunkLengths *lengths
	slots                       chan struct{} // see object
	cfg                         Config
	metrics                     *metrics
	segments                    []segment

	logger log.Logger
	damage atomic.Pointer[damage] // found while the block was read; nil is none

	onClose func(error)
	mu      sync.Mutex
	users   int
	dropped bool
}

// segment is a chunk file.
type segment struct {
	name string
	size int64 // in bytes; 0 is unknown
}

// load makes a block ready to be served: its index header is on disk then, unless it is to be fetched at its use.
func load(ctx context.Context, bkt objstore.BucketReader, headers *indexheader.Pool, m *block.Meta, cfg Config, c *indexCache, met *metrics, slots chan struct{}) (*loaded, error) {
	dir := filepath.Join(cfg.DataDir, m.ULID.String())
	h, err := headers.Reader(ctx, m, filepath.Join(dir, indexheader.Filename))
	if err != nil {
		return nil, err
	}
	b := &loaded{
		meta: m, labels: m.Labels(), bkt: bkt, dir: dir, header: h, cache: c, slots: slots, cfg: cfg, metrics: met,
		onClose: func(error) {}, logger: log.NewNopLogger(),
	}
	b.listSegments()
	b.firstLengths(cfg)
	return b, nil
}

// refStep returns how many bytes of the index a series reference counts.
func (b *loaded) refStep() int64 {
	if b.header.IndexVersion() == index.FormatV1 {
		return 1
	}
	return 16
}

// atMost returns what the index says a thing takes at most, or the estimate if that is less or it says nothing.
func atMost(stated, estimate int64) int64 {
	if stated > 0 {
		estimate = min(stated, estimate)
	}
	return max(estimate, entryBytesMin)
}

// listSegments lists the chunk files, as meta.json names them.
func (b *loaded) listSegments() {
	for _, f := range b.meta.Thanos.Files {
		if name, ok := strings.CutPrefix(f.RelPath, block.ChunksDirname+"/"); ok {
			b.segments = append(b.segments, segment{name, f.SizeBytes})
		}
	}
	if len(b.segments) == 0 {
		for _, name := range b.meta.Thanos.SegmentFiles {
			b.segments = append(b.segments, segment{name: name})
		}
	}
	slices.SortFunc(b.segments, func(x, y segment) int { return strings.Compare(x.name, y.name) })
}

// object returns the index, for reading one kind of data from it.
func (b *loaded) object(what dataType, acc *account) *object {
	return &object{bkt: b.bkt, name: block.Object(b.meta.ULID, block.IndexFilename), size: b.header.IndexSize(), what: what, account: acc, slots: b.slots, gapMax: b.cfg.GapBytesMax}
}

// chunkFile returns a chunk file by its number, from 0 on. Blocks whose meta.json names none have them numbered.
func (b *loaded) chunkFile(n int, acc *account) (*object, error) {
	s := segment{name: fmt.Sprintf("%06d", n+1)}
	if len(b.segments) > 0 {
		if n >= len(b.segments) {
			return nil, corruptf("the index refers to chunk file %d, the block has %d", n+1, len(b.segments))
		}
		s = b.segments[n]
	}
	return &object{bkt: b.bkt, name: block.Object(b.meta.ULID, block.ChunksDirname, s.name), size: s.size, what: chunksData, account: acc, slots: b.slots, gapMax: b.cfg.GapBytesMax}, nil
}

// overlaps tells whether the block may hold samples of a closed time range. The block's own is half open.
func (b *loaded) overlaps(mint, maxt int64) bool {
	return b.meta.MaxTime > mint && b.meta.MinTime <= maxt
}

// acquire keeps the block open until release. It reports false if the block is being closed.
func (b *loaded) acquire() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dropped {
		return false
	}
	b.users++
	b.header.Hold()
	return true
}

func (b *loaded) release() {
	b.header.Release()
	b.mu.Lock()
	b.users--
	last := b.dropped && b.users == 0
	b.mu.Unlock()
	if last {
		b.onClose(b.header.Close())
	}
}

// drop closes the block, now or when its last user releases it, and then calls onClose.
func (b *loaded) drop(onClose func(error)) {
	b.mu.Lock()
	b.dropped, b.onClose = true, onClose
	idle := b.users == 0
	b.mu.Unlock()
	if idle {
		onClose(b.header.Close())
	}
}
