package prom

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/store"
)

const (
	benchSeries = 1000
	benchChunks = 12 // 6 hours of a sample every 15 s
)

// benchStream is an answer as Prometheus streams it: a frame a series, 120 samples a chunk.
func benchStream() []byte {
	var body []byte
	for i := range benchSeries {
		var cs []prompb.Chunk
		for j := range benchChunks {
			c := chunkenc.NewXORChunk()
			app, _ := c.Appender()
			for k := range 120 {
				app.Append(int64(j*120+k)*15_000, math.Sqrt(float64(i+k)))
			}
			cs = append(cs, prompb.Chunk{MinTimeMs: int64(j*120) * 15_000, MaxTimeMs: int64(j*120+119) * 15_000, Type: prompb.Chunk_XOR, Data: c.Bytes()})
		}
		body = append(body, frame(marshal(chunked(cs, "__name__", "http_requests_total", "cluster", "eu", "code", "200", "instance", fmt.Sprintf("host-%04d:9090", i), "job", "api", "method", "GET", "replica", "a")))...)
	}
	return body
}

// readOurs reads a stream to the end. Its cursor has stored labels in order and chunks as payloads.
func readOurs(b *testing.B, body []byte, external labels.Labels, drop []string) {
	st := &Store{cfg: Config{FrameBytesMax: defaultFrameBytesMax}, metrics: newMetrics(nil)}
	in := &answer{ctx: b.Context(), cancel: func() {}, body: io.NopCloser(bytes.NewReader(body)), store: st, query: query{external: external, drop: drop}}
	cur := store.Relabel(newStreamed(in), store.RelabelOptions{External: external, Drop: drop})
	defer cur.Close()
	series, chunks := 0, 0
	for cur.Next() {
		series++
		chunks += len(cur.At().Chunks)
	}
	if cur.Err() != nil || series != benchSeries || chunks != benchSeries*benchChunks {
		b.Fatal(series, chunks, cur.Err())
	}
}

// readTheirs reads a stream with Prometheus's reader of frames and generated code, and does the least that
// makes it comparable: labels as labels.Labels.
func readTheirs(b *testing.B, body []byte) {
	r := remote.NewChunkedReader(bytes.NewReader(body), 50<<20, nil)
	lb := labels.NewScratchBuilder(16)
	series, chunks := 0, 0
	for {
		resp := &prompb.ChunkedReadResponse{}
		if err := r.NextProto(resp); err == io.EOF {
			break
		} else if err != nil {
			b.Fatal(err)
		}
		for _, cs := range resp.ChunkedSeries {
			lb.Reset()
			for _, l := range cs.Labels {
				lb.Add(l.Name, l.Value)
			}
			if lb.Labels().IsEmpty() {
				b.Fatal("no labels")
			}
			series++
			chunks += len(cs.Chunks)
		}
	}
	if series != benchSeries || chunks != benchSeries*benchChunks {
		b.Fatal(series, chunks)
	}
}

// BenchmarkReadPassThrough reads 1,000 series of 12 chunks: ours, the same with external labels taken off and
// merged again, and Prometheus's reader. ours/theirs is the ratio of times, measured alternately.
func BenchmarkReadPassThrough(b *testing.B) {
	body := benchStream()
	ext := labels.FromStrings("cluster", "eu", "replica", "a")
	report := func(b *testing.B, took time.Duration) {
		b.ReportMetric(float64(took.Nanoseconds())/float64(b.N*benchSeries), "ns/series")
		b.ReportMetric(float64(took.Nanoseconds())/float64(b.N*benchSeries*benchChunks), "ns/chunk")
	}
	run := func(name string, read func(b *testing.B)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				read(b)
			}
			report(b, b.Elapsed())
		})
	}
	run("ours", func(b *testing.B) { readOurs(b, body, labels.EmptyLabels(), nil) })
	run("ours with external labels", func(b *testing.B) { readOurs(b, body, ext, nil) })
	run("ours without replica label", func(b *testing.B) { readOurs(b, body, ext, []string{"replica"}) })
	run("theirs", func(b *testing.B) { readTheirs(b, body) })
	b.Run("ratio", func(b *testing.B) {
		var ours, theirs time.Duration
		for b.Loop() {
			t0 := time.Now()
			readOurs(b, body, labels.EmptyLabels(), nil)
			t1 := time.Now()
			readTheirs(b, body)
			ours, theirs = ours+t1.Sub(t0), theirs+time.Since(t1)
		}
		b.ReportMetric(float64(ours)/float64(theirs), "ours/theirs")
	})
}
