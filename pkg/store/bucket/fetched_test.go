package bucket

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore/providers/filesystem"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/test/bulk"
)

// Shows, and prints, that a store without caches fetches no more than 1.3 times the bytes that it uses, on selective and
// on wide queries, a short time of many series in a long block among them: used are the posting lists of the matchers, the
// series entries and the chunks that are answered with. (With gaps of 512 KiB read along it fails, and with no more than
// 256 requests for a read.)
func TestFetchedPerUsed(t *testing.T) {
	dir := t.TempDir()
	const from, interval = int64(1_700_006_400_000), int64(15_000)
	spec := bulk.Spec{From: from, Interval: interval, Samples: 24 * 240, Series: bulk.Counters("requests_total", 2_000), External: map[string]string{"replica": "a"}}
	if _, err := bulk.Write(t.Context(), dir, spec); err != nil {
		t.Fatal(err)
	}
	bkt, err := filesystem.NewBucket(dir)
	if err != nil {
		t.Fatal(err)
	}
	day := from + spec.Interval*int64(spec.Samples)
	f := func(name string, most float64, mint, maxt int64, ms ...*labels.Matcher) {
		t.Helper()
		s := open(t, bkt, Config{})
		ms = append(ms, eq("__name__", "requests_total"))
		acc := s.newAccount("t")
		req := &store.SeriesRequest{MinTime: mint, MaxTime: maxt, Matchers: ms}
		ts, _ := s.targets(ms, nil, func(g *blockGroup) []*loaded { return g.choose(mint, maxt, 0, false) })
		used, series := int64(0), 0
		mem := s.memory.newShare(0)
		cs, err := s.open(t.Context(), req, ts, acc, mem, "t")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			for c.Next() {
				series++
			}
			if c.Err() != nil || len(c.Warnings()) > 0 {
				t.Fatal(c.Err(), c.Warnings())
			}
			_ = c.Close()
		}
		mem.leave()
		for d := range dataTypes {
			used += int64(acc.touchedBytes[d].Load())
		}
		ratio := float64(acc.bytes.Load()) / float64(used)
		t.Logf("%-28s %5d series: %9d bytes fetched / %9d used = %.2f", name, series, acc.bytes.Load(), used, ratio)
		if series == 0 || ratio > most {
			t.Errorf("%s: %.2f", name, ratio)
		}
	}
	f("everything", 1.3, from, day)
	f("everything, two hours", 1.3, from+8*3_600_000, from+10*3_600_000)
	f("everything, the end", 1.3, day-3_600_000, day)
	f("one job, a day", 1.3, from, day, eq("job", "job-017"))
	f("one job, an hour", 1.3, from+3_600_000, from+2*3_600_000, eq("job", "job-017"))
	f("one series, a day", 1.3, from, day, eq("instance", "host-000123:9090"))
	f("some instances, six hours", 1.3, from, from+6*3_600_000, matcher(labels.MatchRegexp, "instance", "host-0001.*"))
}
