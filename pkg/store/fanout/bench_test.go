package fanout

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// BenchmarkSeries merges Stores of a thousand series each: with the same series in all, as of replicas
// whose replica label is asked away, or with different ones.
func BenchmarkSeries(b *testing.B) {
	const perStore = 1000
	for _, n := range []int{2, 8} {
		for _, same := range []bool{true, false} {
			for _, timeout := range []time.Duration{0, time.Minute} {
				b.Run(fmt.Sprintf("stores=%d/same=%v/timeout=%v", n, same, timeout), func(b *testing.B) {
					var stores []store.Store
					for i := range n {
						fixed := &prepared{}
						for j := range perStore {
							ls := []string{"__name__", "requests_total", "instance", fmt.Sprintf("host-%04d:9090", j), "job", "node"}
							if !same {
								ls = append(ls, "z", fmt.Sprint(i))
							}
							data := storetest.Data{Series: []storetest.Input{{Labels: labels.FromStrings(ls...), Samples: storetest.Floats(120, float64(i))}}}
							cur, err := storetest.New(data).Series(b.Context(), &store.SeriesRequest{MaxTime: 1 << 60, Matchers: []*labels.Matcher{eq("job", "node")}})
							if err != nil {
								b.Fatal(err)
							}
							all, _, err := store.Drain(cur)
							if err != nil {
								b.Fatal(err)
							}
							fixed.series = append(fixed.series, all...)
						}
						fixed.desc = store.Description{Name: fmt.Sprint(i), MaxTime: 1 << 60}
						stores = append(stores, fixed)
					}
					st := over(Config{ResponseTimeout: timeout}, stores...)
					req := request()
					b.ReportAllocs()
					series := 0
					for b.Loop() {
						cur, err := st.Series(b.Context(), req)
						if err != nil {
							b.Fatal(err)
						}
						for cur.Next() {
							series++
						}
						if err := cur.Err(); err != nil {
							b.Fatal(err)
						}
						cur.Close()
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n*perStore), "ns/input-series")
				})
			}
		}
	}
}

type prepared struct {
	fake
	series []*store.Series
}

func (p *prepared) Series(_ context.Context, _ *store.SeriesRequest) (store.Cursor, error) {
	return store.NewSliceCursor(p.series), nil
}

// BenchmarkPick chooses among a hundred Stores of a hundred label sets each, as before store gateways, with
// and without relabelling.
func BenchmarkPick(b *testing.B) {
	var stores []store.Store
	for i := range 100 {
		f := named(fmt.Sprint(i))
		for j := range 100 {
			f.desc.LabelSets = append(f.desc.LabelSets, labels.FromStrings("cluster", fmt.Sprint(i%10), "replica", "a", "tenant", fmt.Sprint(j)))
		}
		stores = append(stores, f)
	}
	hash := parse(b, `
- {action: hashmod, source_labels: [tenant], target_label: __shard, modulus: 2}
- {action: keep, source_labels: [__shard], regex: '0'}`)
	q := question{10, 20, []*labels.Matcher{eq("__name__", "up"), eq("cluster", "3"), eq("tenant", "7")}, nil, 0}
	for name, cfg := range map[string]Config{"plain": {}, "relabelled": {Relabel: hash}} {
		b.Run(name, func(b *testing.B) {
			st := over(cfg, stores...)
			b.ReportAllocs()
			for b.Loop() {
				st.pick(stores, q)
			}
		})
	}
}
