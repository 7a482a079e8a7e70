package query

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	gometrics "runtime/metrics"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// fleet is a Store of counters that a pair of servers scraped. Series are made while they are read and
// share the bytes of their chunks, so that what is measured is not the fleet's.
type fleet struct {
	storetest.Memory
	series, jobs int
	interval     int64
	chunks       [][]store.Chunk // of both replicas together
	samples      int64           // of one series, in both
}

const chunkLength = 120

func newFleet(series, jobs int, interval, length time.Duration) *fleet {
	r := rand.New(rand.NewPCG(5, 6))
	f := &fleet{series: series, jobs: jobs, interval: interval.Milliseconds()}
	n := int(length / interval)
	f.samples = int64(2 * n)
	for range 32 {
		var cs []store.Chunk
		for replica := range int64(2) {
			v := float64(r.IntN(1000))
			var c *chunkenc.XORChunk
			var app chunkenc.Appender
			for i := range n {
				t := base + int64(i)*f.interval + replica*f.interval*4/15
				if r.IntN(20) == 0 {
					t += r.Int64N(5)
				}
				v += float64(r.IntN(100))
				if i%chunkLength == 0 {
					c = chunkenc.NewXORChunk()
					app, _ = c.Appender()
					cs = append(cs, store.Chunk{MinTime: t, Replica: string(rune('a' + replica))})
				}
				app.Append(t, v)
				last := &cs[len(cs)-1]
				last.MaxTime, last.Raw = t, store.Payload{Encoding: chunkenc.EncXOR, Data: c.Bytes()}
			}
		}
		f.chunks = append(f.chunks, store.SortChunks(cs))
	}
	return f
}

func (f *fleet) Series(_ context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	return &fleetCursor{fleet: f, req: req, at: -1, scratch: labels.NewScratchBuilder(4)}, nil
}

type fleetCursor struct {
	*fleet
	req     *store.SeriesRequest
	at      int
	scratch labels.ScratchBuilder
	cur     store.Series
}

func (c *fleetCursor) Next() bool {
	if c.at++; c.at >= c.series {
		return false
	}
	perJob := (c.series + c.jobs - 1) / c.jobs
	c.scratch.Reset()
	c.scratch.Add("__name__", "http_requests_total")
	c.scratch.Add("instance", fmt.Sprintf("instance-%07d", c.at))
	c.scratch.Add("job", fmt.Sprintf("job-%d", c.at/perJob))
	c.cur = store.Series{Labels: c.scratch.Labels(), Chunks: c.chunks[c.at%len(c.chunks)]}
	return true
}

func (c *fleetCursor) At() *store.Series        { return &c.cur }
func (c *fleetCursor) Keep() *store.Series      { k := c.cur; return &k }
func (c *fleetCursor) Err() error               { return nil }
func (c *fleetCursor) Warnings() store.Warnings { return nil }
func (c *fleetCursor) Close() error             { return nil }

// peakHeap samples the live and dead objects on the heap until it is stopped, and returns their greatest
// size in bytes above what there was at the start.
func peakHeap() (stop func() uint64) {
	runtime.GC()
	read := func() uint64 {
		s := []gometrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		gometrics.Read(s)
		return s[0].Value.Uint64()
	}
	before, peak := read(), uint64(0)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				peak = max(peak, read())
			}
		}
	}()
	return func() uint64 {
		close(quit)
		<-done
		return max(peak, before) - before
	}
}

var benchModes = []struct {
	name, engine string
	cfg          Config
}{
	{"streamed", EngineThanos, Config{}},
	{"thanos", EngineThanos, Config{DisableStreaming: true}},
	{"prometheus", EnginePrometheus, Config{}},
}

// cpuTime is what the process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A day of 8,000 counters in two replicas, scraped each 15 seconds: the question of a dashboard, with
// streaming, with promql-engine as it is, and with Prometheus's engine.
func BenchmarkAggregation(b *testing.B) {
	f := newFleet(8000, 10, 15*time.Second, 24*time.Hour)
	for _, expr := range []string{`sum by (job) (rate(http_requests_total[5m]))`, `max by (job) (http_requests_total)`, `avg by (job) (max_over_time(http_requests_total[10m]))`} {
		for _, m := range benchModes {
			b.Run(m.name+"/"+expr, func(b *testing.B) {
				q := newQuerier(b, f, m.cfg)
				b.ReportAllocs()
				var peak uint64
				cpu := cpuTime()
				for b.Loop() {
					stop := peakHeap()
					res, err := q.Exec(b.Context(), Request{
						Options: Options{Dedup: true, ReplicaLabels: []string{"replica"}},
						Expr:    expr, Engine: m.engine,
						Start: time.UnixMilli(base), End: time.UnixMilli(base + 24*3600_000), Step: time.Minute,
					})
					if err != nil {
						b.Fatal(err)
					}
					peak = max(peak, stop())
					res.Close()
				}
				b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N)/float64(int64(f.series)*f.samples), "cpu-ns/sample")
				b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
			})
		}
	}
}
