package prom

import (
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/store"
)

// flaw tells why a chunk can't be handed out, "" if it can. Bytes are not decoded here; it is made sure that
// decoders know the encoding and find its header.
func (c *rawChunk) flaw() string {
	header := 0
	switch chunkenc.Encoding(c.encoding) {
	case chunkenc.EncXOR:
		header = 2 // number of samples
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		header = 3 // number of samples, flags
	}
	switch {
	case header == 0 || c.encoding > int32(chunkenc.EncFloatHistogram):
		return fmt.Sprintf("its encoding %d is not known", c.encoding)
	case len(c.data) < header:
		return fmt.Sprintf("its %d bytes are too few", len(c.data))
	case c.minTime > c.maxTime:
		return "it ends before it begins"
	}
	return ""
}

// badChunks remembers what was left out of an answer.
type badChunks struct {
	n   int
	gap store.Gap
}

// add leaves a chunk out, and returns an error if the request does not allow that.
func (b *badChunks) add(s *streamed, c *rawChunk, why string) error {
	err := fmt.Errorf("chunk of series %s between %s and %s can't be read: %s", s.out.Labels, store.FormatTime(c.minTime), store.FormatTime(c.maxTime), why)
	if s.query.abort {
		return store.Errorf(store.KindAborted, "%w", err)
	}
	lo, hi := min(c.minTime, c.maxTime), max(c.minTime, c.maxTime)
	if b.n == 0 {
		b.gap = store.Gap{Store: s.store.cfg.Name, MinTime: lo, MaxTime: hi, Err: err}
		if !s.query.external.IsEmpty() {
			b.gap.LabelSets = append(b.gap.LabelSets, s.query.external)
		}
	}
	b.n++
	b.gap.MinTime, b.gap.MaxTime = min(b.gap.MinTime, lo), max(b.gap.MaxTime, hi)
	return nil
}

func (b *badChunks) warnings() store.Warnings {
	if b.n == 0 {
		return nil
	}
	gap := b.gap
	if b.n > 1 {
		gap.Err = fmt.Errorf("%d chunks can't be read; the first: %w", b.n, gap.Err)
	}
	return store.Warnings{&gap}
}
