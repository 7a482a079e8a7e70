package query

import (
	"math"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// totals walks over the samples of a lane that is read as a counter, of which some chunks at least are
// downsampled. It hands out a total that never falls: the first value, plus every growth since, where a
// fall counts as a restart from zero.
//
// A downsampled counter chunk ends with the last raw value under the time of the sample before it.
// That sample is not handed out; it says from where the next chunk, downsampled or raw, goes on.
type totals struct {
	stream
	kind  chunkenc.ValueType
	begun bool
	total float64
	lastV float64
	lastT int64
}

func (c *totals) reset() { c.kind, c.begun = chunkenc.ValNone, false }

func (c *totals) Next() chunkenc.ValueType {
	for {
		c.kind = c.stream.Next()
		if c.kind != chunkenc.ValFloat {
			return c.kind
		}
		if c.take() {
			return c.kind
		}
	}
}

// take accounts for the float sample that the stream stands on and tells whether it is handed out.
func (c *totals) take() bool {
	t, v := c.stream.At()
	switch {
	case math.IsNaN(v):
		return false
	case !c.begun:
		c.begun, c.total = true, v
	case t < c.lastT:
		return false
	case t == c.lastT:
		c.lastV = v
		return false
	case v < c.lastV:
		c.total += v
	default:
		c.total += v - c.lastV
	}
	c.lastT, c.lastV = t, v
	return true
}

// Seek walks, since the total depends on every sample before.
//
//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (c *totals) Seek(t int64) chunkenc.ValueType {
	if c.kind != chunkenc.ValNone && c.AtT() >= t {
		return c.kind
	}
	for kind := c.Next(); ; kind = c.Next() {
		if kind == chunkenc.ValNone || c.AtT() >= t {
			return kind
		}
	}
}

func (c *totals) At() (int64, float64) { return c.lastT, c.total }
