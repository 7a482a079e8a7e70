package block

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
)

const (
	// A listing of all objects is given up when it has seen this many for each block, and so many besides: asking for
	// each block is cheaper then. A bucket may hold other things than blocks, and blocks hundreds of chunk files.
	objectsPerBlockMax = 64
	objectsFree        = 10_000
)

// object is what a listing tells of an object.
type object struct {
	there    bool
	modified time.Time // zero if the listing does not say
}

// listedBlock is what a listing tells of a block.
type listedBlock struct {
	meta object
	// Marks are the marks by the name of their object.
	marks map[string]object
}

// listing is what a look at the bucket found.
type listing struct {
	blocks map[ulid.ULID]listedBlock
	// deep is true when the listing went into the directories: what it does not name is not there.
	deep bool
}

// list finds the directories of blocks. DiscoverRecursive lists all objects. DiscoverConcurrent does so too where that
// takes fewer requests than asking for each block, which is where blocks have few objects and nothing else is in the
// bucket; it finds out at the first look.
func (f *Fetcher) list(ctx context.Context) (listing, error) {
	if f.cfg.Discovery == DiscoverRecursive {
		return f.listObjects(ctx, false)
	}
	if !f.wide {
		l, err := f.listObjects(ctx, true)
		if !errors.Is(err, errWide) {
			return l, err
		}
		f.wide = true
	}
	return f.listDirs(ctx)
}

func (f *Fetcher) listDirs(ctx context.Context) (listing, error) {
	l := listing{blocks: map[ulid.ULID]listedBlock{}}
	err := f.bkt.Iter(ctx, "", func(name string) error {
		if id, ok := ParseID(name); ok {
			l.blocks[id] = listedBlock{}
		}
		return nil
	})
	if err != nil {
		return listing{}, fmt.Errorf("list blocks: %w", err)
	}
	return l, nil
}

// errWide says that a bucket has too many objects to list them all.
var errWide = errors.New("too many objects for each block")

func (f *Fetcher) listObjects(ctx context.Context, giveUp bool) (listing, error) {
	l := listing{blocks: map[ulid.ULID]listedBlock{}, deep: true}
	opts := []objstore.IterOption{objstore.WithRecursiveIter()}
	for _, o := range f.bkt.SupportedIterOptions() {
		if o == objstore.UpdatedAt {
			opts = append(opts, objstore.WithUpdatedAt())
		}
	}
	objects := 0
	err := f.bkt.IterWithAttributes(ctx, "", func(attrs objstore.IterObjectAttributes) error {
		if objects++; giveUp && objects > objectsFree+objectsPerBlockMax*len(l.blocks) {
			return errWide
		}
		dir, rest := splitName(attrs.Name)
		id, ok := ParseID(dir)
		if !ok {
			return nil
		}
		b := l.blocks[id]
		o := object{there: true}
		switch rest {
		case MetaFilename:
			o.modified, _ = attrs.LastModified()
			b.meta = o
		case DeletionMarkFilename, NoCompactMarkFilename, NoDownsampleMarkFilename:
			o.modified, _ = attrs.LastModified()
			if b.marks == nil {
				b.marks = map[string]object{}
			}
			b.marks[rest] = o
		}
		l.blocks[id] = b
		return nil
	}, opts...)
	if err != nil {
		return listing{}, fmt.Errorf("list all objects: %w", err)
	}
	return l, nil
}

func splitName(name string) (dir, rest string) {
	for i := range len(name) {
		if name[i] == '/' {
			return name[:i], name[i+1:]
		}
	}
	return name, ""
}
