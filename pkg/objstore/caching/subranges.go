package caching

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/cache"
)

// GetRange implements objstore.BucketReader.
func (b *Bucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if !isChunks(name) || off < 0 || length <= 0 || b.cfg.ChunkSubrangeTTL <= 0 {
		return b.Bucket.GetRange(ctx, name, off, length)
	}
	size := b.cfg.ChunkSubrangeSize
	objectSize, known := b.sizes.get(name)
	if !known {
		attrs, kept := b.keptAttributes(ctx, name)
		if !kept && length <= firstBytesMax {
			return b.first(ctx, name, off, length)
		}
		if !kept {
			var err error
			if attrs, err = b.fetchAttributes(ctx, name); err != nil {
				return nil, err
			}
		}
		objectSize = attrs.Size
		b.sizes.put(name, objectSize)
	}
	if off >= objectSize {
		return b.Bucket.GetRange(ctx, name, off, length) // it says what is wrong
	}
	end := off + min(length, objectSize-off)
	pieces, err := b.pieces(ctx, name, off, end, objectSize)
	if err != nil {
		return nil, err
	}
	pieces[len(pieces)-1] = pieces[len(pieces)-1][:end-(off/size+int64(len(pieces))-1)*size]
	pieces[0] = pieces[0][off%size:]
	readers := make([]io.Reader, len(pieces))
	for i, p := range pieces {
		readers[i] = bytes.NewReader(p)
	}
	return sized(io.MultiReader(readers...), end-off), nil
}

func sized(r io.Reader, size int64) io.ReadCloser {
	return objstore.ObjectSizerReadCloser{ReadCloser: io.NopCloser(r), Size: func() (int64, error) { return size, nil }}
}

// firstBytesMax is the longest range that is read before the size of its object is known.
const firstBytesMax = 32 << 20

// first reads a range of an object of unknown size, and asks for the size meanwhile, so that this takes no longer than
// it would without a cache.
func (b *Bucket) first(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	size := b.cfg.ChunkSubrangeSize
	start := off / size * size
	end := (off + length + size - 1) / size * size
	var raw []byte
	var attrs objstore.ObjectAttributes
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		attrs, err = b.fetchAttributes(gctx, name)
		return err
	})
	g.Go(func() error {
		body, err := b.Bucket.GetRange(gctx, name, start, end-start)
		if err != nil {
			return err
		}
		defer body.Close()
		raw, err = io.ReadAll(io.LimitReader(body, end-start))
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	b.sizes.put(name, attrs.Size)
	if off >= attrs.Size {
		return b.Bucket.GetRange(ctx, name, off, length)
	}
	if want := min(end, attrs.Size) - start; int64(len(raw)) != want {
		return nil, fmt.Errorf("read object %s: %d bytes from %d, want %d: %w", name, len(raw), start, want, io.ErrUnexpectedEOF)
	}
	var entries []cache.Entry
	for i := int64(0); i < int64(len(raw)); i += size {
		p := raw[i:min(i+size, int64(len(raw)))]
		entries = append(entries, cache.Entry{Key: pieceKey(name, start+i, start+i+int64(len(p))), Value: bytes.Clone(p), TTL: b.cfg.ChunkSubrangeTTL})
	}
	b.cache.Store(entries...)
	to := min(off+length, attrs.Size)
	m := b.metrics
	m.requests.WithLabelValues(objstore.OpGetRange, chunksConfig).Add(float64(len(entries)))
	m.requestedBytes.WithLabelValues(chunksConfig).Add(float64(to - off))
	m.fetchedBytes.WithLabelValues(originBucket, chunksConfig).Add(float64(len(raw)))
	return sized(bytes.NewReader(raw[off-start:to-start]), to-off), nil
}

func pieceKey(name string, start, end int64) string {
	return fmt.Sprintf("subrange:%s:%d:%d", name, start, end)
}

// pieces returns the aligned pieces that cover a range, from the cache and from the bucket.
func (b *Bucket) pieces(ctx context.Context, name string, off, end, objectSize int64) ([][]byte, error) {
	size := b.cfg.ChunkSubrangeSize
	first := off / size
	n := int((end+size-1)/size - first)
	keys := make([]string, n)
	for i := range keys {
		start := (first + int64(i)) * size
		keys[i] = pieceKey(name, start, min(start+size, objectSize))
	}
	m := b.metrics
	m.requests.WithLabelValues(objstore.OpGetRange, chunksConfig).Add(float64(n))
	m.requestedBytes.WithLabelValues(chunksConfig).Add(float64(end - off))
	pieces := b.cache.Fetch(ctx, keys)
	hits, hitBytes := 0, 0
	for i, p := range pieces {
		start := (first + int64(i)) * size
		if p != nil && int64(len(p)) != min(size, objectSize-start) {
			pieces[i] = nil // not what was asked for
		} else if p != nil {
			hits++
			hitBytes += len(p)
		}
	}
	m.hits.WithLabelValues(objstore.OpGetRange, chunksConfig).Add(float64(hits))
	m.fetchedBytes.WithLabelValues(originCache, chunksConfig).Add(float64(hitBytes))
	if hits == n {
		return pieces, nil
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, r := range missing(pieces, b.cfg.MaxChunksGetRangeRequests) {
		g.Go(func() error { return b.fill(gctx, name, keys, pieces, r, first, objectSize) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return pieces, nil
}

// run is pieces i to j, without j.
type run struct{ i, j int }

// missing returns runs of pieces that cover all that are not there. There are at most requestsMax of them, 0 is no
// bound: those with the smallest gaps between are joined.
func missing(pieces [][]byte, requestsMax int) (runs []run) {
	for i, p := range pieces {
		switch {
		case p != nil:
		case len(runs) > 0 && runs[len(runs)-1].j == i:
			runs[len(runs)-1].j++
		default:
			runs = append(runs, run{i, i + 1})
		}
	}
	for requestsMax > 0 && len(runs) > requestsMax {
		best := 0
		for k := 1; k+1 < len(runs); k++ {
			if runs[k+1].i-runs[k].j < runs[best+1].i-runs[best].j {
				best = k
			}
		}
		runs[best].j = runs[best+1].j
		runs = append(runs[:best+1], runs[best+2:]...)
	}
	return runs
}

// fill reads a run from the bucket and keeps its pieces.
func (b *Bucket) fill(ctx context.Context, name string, keys []string, pieces [][]byte, r run, first, objectSize int64) error {
	size := b.cfg.ChunkSubrangeSize
	start := (first + int64(r.i)) * size
	end := min((first+int64(r.j))*size, objectSize)
	body, err := b.Bucket.GetRange(ctx, name, start, end-start)
	if err != nil {
		return err
	}
	defer body.Close()
	var entries []cache.Entry
	again := 0
	for i := r.i; i < r.j; i++ {
		from := (first + int64(i)) * size
		// Each piece has its memory, so that none keeps its neighbours alive in a cache.
		p := make([]byte, min(size, objectSize-from))
		if _, err := io.ReadFull(body, p); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read object %s from %d to %d: %w", name, start, end, err)
		}
		if pieces[i] != nil {
			again += len(p)
			continue
		}
		pieces[i] = p
		entries = append(entries, cache.Entry{Key: keys[i], Value: p, TTL: b.cfg.ChunkSubrangeTTL})
	}
	b.metrics.fetchedBytes.WithLabelValues(originBucket, chunksConfig).Add(float64(end - start))
	b.metrics.refetchedBytes.WithLabelValues(originCache, chunksConfig).Add(float64(again))
	b.cache.Store(entries...)
	return nil
}
