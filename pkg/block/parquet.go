package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/koios-metrics/koios/pkg/gate"
)

const (
	// parquetMetaFilename is the object that describes a piece of a bucket of Parquet files.
	parquetMetaFilename = "meta.pb"
	// parquetBlocksField is the field of it, repeated, that names the blocks it was made of.
	parquetBlocksField = 6
	// A description is no longer than this; it is some hundred bytes.
	parquetMetaBytesMax = 16 << 20
)

// NewParquetConverted makes a Filter that hides blocks whose data is in a bucket of Parquet files, to be served from
// there by somebody else. Files are of whole days, so a block is hidden only when each day in UTC that it touches is
// covered, without a hole, by blocks that were converted.
//
// A description that can't be read, or says nothing of use, converts nothing: its blocks are served from here, which may
// be twice, rather than by nobody. A bucket that can't be listed fails the look as a whole.
func NewParquetConverted(bkt objstore.BucketReader, concurrency int, logger log.Logger) Filter {
	return &parquetConverted{bkt: quiet(bkt), concurrency: concurrency, logger: logger, known: map[string]parquetMeta{}}
}

type parquetConverted struct {
	bkt         objstore.BucketReader
	concurrency int
	logger      log.Logger
	known       map[string]parquetMeta // by the name of the object
}

// parquetMeta is what an object says.
type parquetMeta struct {
	blocks   []ulid.ULID
	modified time.Time // zero if the listing does not say
}

func (p *parquetConverted) Filter(ctx context.Context, metas map[ulid.ULID]*Meta, excluded func(ulid.ULID, State)) error {
	if err := p.look(ctx); err != nil {
		return err
	}
	converted := map[ulid.ULID]*Meta{}
	for _, k := range p.known {
		for _, id := range k.blocks {
			if m := metas[id]; m != nil {
				converted[id] = m
			}
		}
	}
	days := wholeDays(converted)
	for id, m := range converted {
		if days.cover(m) {
			delete(metas, id)
			excluded(id, StateParquetConverted)
		}
	}
	return nil
}

// look reads the descriptions that are new or were written again.
func (p *parquetConverted) look(ctx context.Context) error {
	var opts []objstore.IterOption
	for _, o := range p.bkt.SupportedIterOptions() {
		if o == objstore.UpdatedAt {
			opts = append(opts, objstore.WithUpdatedAt())
		}
	}
	now, names := map[string]parquetMeta{}, []string(nil)
	err := p.bkt.IterWithAttributes(ctx, "", func(attrs objstore.IterObjectAttributes) error {
		if path.Base(attrs.Name) != parquetMetaFilename {
			return nil
		}
		modified, _ := attrs.LastModified()
		if k, ok := p.known[attrs.Name]; ok && !modified.IsZero() && modified.Equal(k.modified) {
			now[attrs.Name] = k
			return nil
		}
		now[attrs.Name] = parquetMeta{modified: modified}
		names = append(names, attrs.Name)
		return nil
	}, append(opts, objstore.WithRecursiveIter())...)
	if err != nil {
		return fmt.Errorf("list what was converted to Parquet: %w", err)
	}
	var mu sync.Mutex
	gate.Spread(ctx, p.concurrency, len(names), func(i int) bool {
		blocks, err := p.read(ctx, names[i])
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			if ctx.Err() == nil {
				level.Warn(p.logger).Log("msg", "description of Parquet files can't be read, its blocks are served from here", "object", names[i], "err", err)
			}
			if errors.Is(err, errParquetMeta) {
				return true // looked at again when it was written again
			}
			delete(now, names[i])
			return false
		}
		k := now[names[i]]
		k.blocks = blocks
		now[names[i]] = k
		return true
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.known = now
	return nil
}

func (p *parquetConverted) read(ctx context.Context, name string) ([]ulid.ULID, error) {
	r, err := p.bkt.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, parquetMetaBytesMax))
	if err != nil {
		return nil, err
	}
	return parseParquetMeta(b)
}

// errParquetMeta is wrapped by errors about what a description says.
var errParquetMeta = errors.New("malformed description of Parquet files")

// parseParquetMeta returns the ids of the blocks that Parquet files were made of.
func parseParquetMeta(b []byte) (ids []ulid.ULID, _ error) {
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, fmt.Errorf("%w: %w", errParquetMeta, protowire.ParseError(n))
		}
		b = b[n:]
		if number != parquetBlocksField || typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, typ, b); n < 0 {
				return nil, fmt.Errorf("%w: %w", errParquetMeta, protowire.ParseError(n))
			}
			b = b[n:]
			continue
		}
		s, n := protowire.ConsumeString(b)
		if n < 0 {
			return nil, fmt.Errorf("%w: %w", errParquetMeta, protowire.ParseError(n))
		}
		b = b[n:]
		id, ok := ParseID(s)
		if !ok {
			return nil, fmt.Errorf("%w: %q is no block", errParquetMeta, s)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
