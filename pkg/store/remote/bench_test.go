package remote_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/remote"
	"github.com/koios-metrics/koios/pkg/store/server"
	"github.com/koios-metrics/koios/proto/storepb"
)

// held is a Store that hands out the same series again and again.
type held struct {
	store.Store
	series []*store.Series
}

func (h held) Series(context.Context, *store.SeriesRequest) (store.Cursor, error) {
	return store.NewSliceCursor(h.series), nil
}

func thousand() []*store.Series {
	series := make([]*store.Series, 1000)
	for i := range series {
		s := &store.Series{Labels: labels.FromStrings("__name__", "http_requests_total", "cluster", "eu-west-1", "code", "200", "instance", fmt.Sprintf("host-%04d.example.org:9090", i), "job", "api")}
		for j := range 10 {
			data := []byte(strings.Repeat(fmt.Sprintf("%04d", j), 60))
			s.Chunks = append(s.Chunks, store.Chunk{MinTime: int64(j) * 1000, MaxTime: int64(j)*1000 + 999, Raw: store.Payload{Encoding: chunkenc.EncXOR, Data: data}})
		}
		series[i] = s
	}
	return series
}

// 1000 series of 10 chunks of 240 bytes from a server to a remote in one process: frame by frame, in
// batches, sorted here, and for comparison with the generated code receiving. On two shared cores: 3.3 µs a
// series and 6.4 allocations, in batches 2.8 µs and 1.4, sorted 4.2 µs and 4.4;
// the generated code 5.7 µs and 62, in batches 5.1 µs and 56, not yet turned into labels and chunks of ours.
func BenchmarkRoundTrip(b *testing.B) {
	series := thousand()
	cc := connect(b, server.New(held{series: series}, server.Config{}, nil, nil))
	report := func(b *testing.B) {
		ns := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / float64(len(series))
		b.ReportMetric(ns, "ns/series")
		b.ReportMetric(ns/10, "ns/chunk")
	}
	able := full(b, remote.New(cc, remote.Config{Name: "peer"}))
	for _, c := range []struct {
		name  string
		st    *remote.Store
		batch int
	}{
		{"series", able, 0},
		{"batches of 64", able, 64},
		{"sorted here", remote.New(cc, remote.Config{Name: "peer"}), 64},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				cur, err := c.st.Series(b.Context(), &store.SeriesRequest{BatchSize: c.batch})
				if err != nil {
					b.Fatal(err)
				}
				n := 0
				for cur.Next() {
					n += len(cur.At().Chunks)
				}
				if err := cur.Err(); err != nil || n != 10*len(series) {
					b.Fatal(n, err)
				}
				cur.Close()
			}
			report(b)
		})
	}
	client := storepb.NewStoreClient(cc)
	for _, batch := range []int64{0, 64} {
		b.Run(fmt.Sprintf("generated client/%d", batch), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				stream, err := client.Series(b.Context(), &storepb.SeriesRequest{ResponseBatchSize: batch})
				if err != nil {
					b.Fatal(err)
				}
				for {
					if _, err = stream.Recv(); err != nil {
						break
					}
				}
			}
			report(b)
		})
	}
}
