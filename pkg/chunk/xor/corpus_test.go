package xor

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// sample is one pair of a series in a test.
type sample struct {
	t int64
	v float64
}

// encode writes the samples with Prometheus's encoder.
func encode(t testing.TB, samples []sample) []byte {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range samples {
		app.Append(s.t, s.v)
	}
	return c.Bytes()
}

// A shape is a kind of series: when it is scraped and what it says.
type shape struct {
	name  string
	clock func(r *rand.Rand, i int, before int64) int64
	value func(r *rand.Rand, i int, before float64) float64
}

func (s shape) generate(r *rand.Rand, n int) []sample {
	samples := make([]sample, 0, n)
	t, v := int64(1_700_000_000_000)+r.Int64N(1e9), 0.0
	for i := range n {
		if i > 0 {
			t = s.clock(r, i, t)
		}
		v = s.value(r, i, v)
		samples = append(samples, sample{t, v})
	}
	return samples
}

// every is a clock without jitter.
func every(ms int64) func(*rand.Rand, int, int64) int64 {
	return func(_ *rand.Rand, _ int, before int64) int64 { return before + ms }
}

// jittered is a clock that comes up to two milliseconds early or late, in a fifth of all cases.
func jittered(ms int64) func(*rand.Rand, int, int64) int64 {
	return func(r *rand.Rand, _ int, before int64) int64 {
		if r.IntN(5) == 0 {
			return before + ms + r.Int64N(5) - 2
		}
		return before + ms
	}
}

// wild is a clock of which each size of a change of distance is seen.
func wild(r *rand.Rand, _ int, before int64) int64 {
	return before + r.Int64N(1<<(1+r.IntN(40)))
}

func counter(r *rand.Rand, i int, before float64) float64 {
	if i == 0 {
		return float64(r.IntN(1e6))
	}
	if r.IntN(300) == 0 {
		return 0
	}
	return before + float64(r.IntN(200))
}

func seconds(r *rand.Rand, i int, before float64) float64 {
	if i == 0 {
		return r.Float64() * 1000
	}
	return before + r.Float64()
}

// gauge is a number of bytes that comes and goes in pages.
func gauge(r *rand.Rand, i int, before float64) float64 {
	if i == 0 {
		return float64(4096 * (10_000 + r.IntN(100_000)))
	}
	if r.IntN(3) == 0 {
		return before
	}
	return before + float64(4096*(r.IntN(2000)-1000))
}

// temperature has two digits behind the point.
func temperature(r *rand.Rand, i int, before float64) float64 {
	if i == 0 {
		return 20
	}
	return math.Round(100*(before+r.NormFloat64()/10)) / 100
}

func constant(r *rand.Rand, i int, before float64) float64 {
	if i == 0 {
		return float64(r.IntN(1000))
	}
	return before
}

// noise is any 64 bits, NaNs of every kind among them.
func noise(r *rand.Rand, _ int, _ float64) float64 { return math.Float64frombits(r.Uint64()) }

// stale stops and starts.
func stale(r *rand.Rand, i int, before float64) float64 {
	switch r.IntN(6) {
	case 0:
		return math.Float64frombits(value.StaleNaN)
	case 1:
		return math.NaN()
	case 2:
		return math.Inf(1 - 2*r.IntN(2))
	}
	return counter(r, i, float64(i))
}

var shapes = []shape{
	{"counter", every(15_000), counter},
	{"counter_jitter", jittered(15_000), counter},
	{"seconds", every(15_000), seconds},
	{"gauge", every(15_000), gauge},
	{"gauge_jitter", jittered(15_000), gauge},
	{"temperature", every(30_000), temperature},
	{"constant", every(15_000), constant},
	{"constant_jitter", jittered(15_000), constant},
	{"noise", every(15_000), noise},
	{"noise_wild", wild, noise},
	{"stale", every(60_000), stale},
	{"stale_wild", wild, stale},
}

// scraped returns the chunks of testdata/scraped.bin: what a Prometheus holds that scraped itself every
// second while it was asked something now and then. Each is a byte ('c' counter, 'g' gauge, 'k' a
// counter or gauge that stayed the same), a length as uvarint, and as many bytes.
func scraped(t testing.TB) map[string][][]byte {
	t.Helper()
	data, err := os.ReadFile("testdata/scraped.bin")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[byte]string{'c': "scraped_counter", 'g': "scraped_gauge", 'k': "scraped_constant"}
	chunks := map[string][][]byte{}
	for len(data) > 0 {
		kind := kinds[data[0]]
		size, n := binary.Uvarint(data[1:])
		if kind == "" || n <= 0 || size > uint64(len(data)-1-n) {
			t.Fatal("testdata/scraped.bin is damaged")
		}
		data = data[1+n:]
		chunks[kind] = append(chunks[kind], data[:size:size])
		data = data[size:]
	}
	return chunks
}
