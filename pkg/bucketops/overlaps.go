package bucketops

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// groups sorts blocks by what may be merged with each other: equal external labels and resolution.
func groups(metas []*block.Meta) [][]*block.Meta {
	type key struct {
		labels     string
		resolution int64
	}
	by := map[key][]*block.Meta{}
	var order []key
	for _, m := range metas {
		k := key{m.Labels().String(), m.Resolution()}
		if by[k] == nil {
			order = append(order, k)
		}
		by[k] = append(by[k], m)
	}
	gs := make([][]*block.Meta, len(order))
	for i, k := range order {
		gs[i] = by[k]
	}
	return gs
}

// overlaps finds the blocks that share time with another of the same labels and resolution, and says why. Blocks are
// sorted by time. Of two, the one that could go is named, with the other beside it.
func overlaps(ctx context.Context, bkt objstore.BucketReader, metas []*block.Meta) (found []Fault, err error) {
	for _, g := range groups(metas) {
		for i, a := range g {
			for _, b := range g[i+1:] {
				if b.MinTime >= a.MaxTime {
					break
				}
				f, err := classify(ctx, bkt, a, b)
				if err != nil {
					return nil, err
				}
				found = append(found, f)
			}
		}
	}
	sortFaults(found)
	return found, nil
}

// classify says why two blocks overlap.
func classify(ctx context.Context, bkt objstore.BucketReader, a, b *block.Meta) (Fault, error) {
	if b.ULID.Compare(a.ULID) < 0 {
		a, b = b, a // the older one stays
	}
	fault := func(k Kind, goes, stays *block.Meta) (Fault, error) {
		return Fault{Block: goes.ULID, Kind: k, Count: 1, Others: []ulid.ULID{stays.ULID}}, nil
	}
	same, err := sameContent(ctx, bkt, a, b)
	switch {
	case err != nil:
		return Fault{}, err
	case same:
		return fault(KindSameBytes, b, a)
	case holds(a, b):
		return fault(KindContained, b, a)
	case holds(b, a):
		return fault(KindContained, a, b)
	case slices.ContainsFunc(sources(a), func(s ulid.ULID) bool { return slices.Contains(sources(b), s) }):
		return fault(KindOverlapShared, b, a)
	}
	return fault(KindOverlapReal, b, a)
}

// sources are the blocks that a block was made of, itself if it names none.
func sources(m *block.Meta) []ulid.ULID {
	if len(m.Compaction.Sources) == 0 {
		return []ulid.ULID{m.ULID}
	}
	return m.Compaction.Sources
}

// holds tells whether all sources of b are sources of a.
func holds(a, b *block.Meta) bool {
	set := map[ulid.ULID]bool{}
	for _, s := range sources(a) {
		set[s] = true
	}
	return !slices.ContainsFunc(sources(b), func(s ulid.ULID) bool { return !set[s] })
}

// sameContent tells whether two blocks hold the same bytes. Only where the metadata leaves it open are they read.
func sameContent(ctx context.Context, bkt objstore.BucketReader, a, b *block.Meta) (bool, error) {
	if a.MinTime != b.MinTime || a.MaxTime != b.MaxTime || a.Stats != b.Stats {
		return false, nil
	}
	fa, fb := contentFiles(a), contentFiles(b)
	if len(fa) == 0 || len(fa) != len(fb) {
		return false, nil
	}
	for rel, x := range fa {
		y, ok := fb[rel]
		if !ok || x.SizeBytes != y.SizeBytes {
			return false, nil
		}
		if x.Hash != nil && y.Hash != nil && x.Hash.Func == y.Hash.Func && x.Hash.Func != block.HashNone {
			if x.Hash.Value != y.Hash.Value {
				return false, nil
			}
			delete(fa, rel) // known to be equal
		}
	}
	for _, rel := range slices.Sorted(maps.Keys(fa)) {
		same, err := sameObject(ctx, bkt, block.Object(a.ULID, rel), block.Object(b.ULID, rel))
		if err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func contentFiles(m *block.Meta) map[string]block.File {
	fs := map[string]block.File{}
	for _, f := range m.Thanos.Files {
		if f.RelPath != block.MetaFilename {
			fs[f.RelPath] = f
		}
	}
	return fs
}

// sameObject compares two objects; one that is not there is like no other.
func sameObject(ctx context.Context, bkt objstore.BucketReader, a, b string) (same bool, err error) {
	ra, err := bkt.Get(ctx, a)
	if err != nil {
		return false, passNotFound(bkt, err)
	}
	defer ra.Close()
	rb, err := bkt.Get(ctx, b)
	if err != nil {
		return false, passNotFound(bkt, err)
	}
	defer rb.Close()
	ba, bb := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		na, ea := io.ReadFull(ra, ba)
		nb, eb := io.ReadFull(rb, bb)
		if !bytes.Equal(ba[:na], bb[:nb]) {
			return false, nil
		}
		endA, endB := isEnd(ea), isEnd(eb)
		switch {
		case ea != nil && !endA:
			return false, ea
		case eb != nil && !endB:
			return false, eb
		case endA || endB:
			return endA && endB, nil
		}
	}
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func passNotFound(bkt objstore.BucketReader, err error) error {
	if bkt.IsObjNotFoundErr(err) {
		return nil
	}
	return err
}
