package frontend

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
)

// discarding is an http.ResponseWriter that only counts.
type discarding struct {
	header      http.Header
	code, bytes int
}

func (d *discarding) Header() http.Header { return d.header }
func (d *discarding) WriteHeader(c int)   { d.code = c }
func (d *discarding) Write(b []byte) (int, error) {
	d.bytes += len(b)
	return len(b), nil
}

// BenchmarkDay asks for a day of 1,000 series at a minute's step: without a cache, from the cache, and a minute later.
// The querier's side is a text that is ready. It reports what one series costs.
func BenchmarkDay(b *testing.B) {
	const series, steps = 1000, 1440
	points := func(start, n int64) string {
		var s strings.Builder
		for i := range n {
			if i > 0 {
				s.WriteByte(',')
			}
			fmt.Fprintf(&s, `[%d,"%d.25"]`, start+i*60, i)
		}
		return s.String()
	}
	answer := func(values string) string {
		var s strings.Builder
		s.WriteString(`{"status":"success","data":{"resultType":"matrix","result":[`)
		for i := range series {
			if i > 0 {
				s.WriteByte(',')
			}
			fmt.Fprintf(&s, `{"metric":{"__name__":"up","instance":"host-%04d","job":"node"},"values":[%s]}`, i, values)
		}
		s.WriteString("]}}")
		return s.String()
	}
	const start = 1_700_006_400
	texts := map[string]string{"day": answer(points(start, steps)), "minute": answer(points(start+steps*60, 1))}
	below := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		which := "minute"
		if r.FormValue("start") == fmt.Sprint(start) {
			which = "day"
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(texts[which]))
	}))
	defer below.Close()
	u, err := url.Parse(below.URL)
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"cold", "warm", "shifted"} {
		b.Run(name, func(b *testing.B) {
			cfg := Config{Downstream: u, Transport: &http.Transport{DisableCompression: true}, Range: RangeConfig{Align: true, Split: SplitConfig{Interval: 30 * 86400_000, Parallel: 4}, Freshness: time.Minute}}
			kept := &memory{entries: map[string][]byte{}}
			if name != "cold" {
				cfg.Range.Cache = kept
			}
			f, err := New(cfg, log.NewNopLogger(), prometheus.NewRegistry())
			if err != nil {
				b.Fatal(err)
			}
			ask := func(end int64) {
				w := &discarding{header: http.Header{}}
				f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, fmt.Sprintf("%s?query=up&start=%d&end=%d&step=60", rangePath, start, end), nil))
				if w.code > 200 || w.bytes < series*steps*10 {
					b.Fatal(w.code, w.bytes)
				}
			}
			ask(start + (steps-1)*60)
			entries := map[string][]byte{}
			for k, v := range kept.entries {
				entries[k] = v
			}
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				switch name {
				case "shifted":
					for k, v := range entries {
						kept.entries[k] = v
					}
					ask(start + steps*60)
				default:
					ask(start + (steps-1)*60)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/series")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series/steps, "ns/point")
		})
	}
}
