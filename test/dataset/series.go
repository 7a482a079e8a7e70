package dataset

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// Series is one series. Times are in ms since the start of the data.
type Series struct {
	Labels labels.Labels
	// Float gives the sample at a time; nil for histograms.
	Float func(ms int64) float64
	// Histogram gives the sample at a time; nil for floats. What it returns is the caller's own.
	Histogram func(ms int64) *histogram.Histogram
	// Present tells when the series exists; nil is always.
	Present func(ms int64) bool
	// Stale asks for a staleness marker where the series goes away.
	Stale bool
}

// instances are the machines that the data speaks of. The second one alone has a zone.
var instances = []string{"10.0.0.1:9100", "10.0.0.2:9100", "10.0.0.3:9100"}

const minute = 60_000

// All returns the series, in no particular order.
func All() []Series {
	var all []Series
	for _, part := range [][]Series{requests(), latencies(), machines(), visitors(), edges(), natives()} {
		all = append(all, part...)
	}
	return all
}

// requests are counters with a reset each 97 minutes, at another time for each instance.
func requests() []Series {
	var ss []Series
	for i, instance := range instances {
		for m, method := range []string{"GET", "POST", "PUT"} {
			for c, code := range []string{"200", "404", "500"} {
				b := named("http_requests_total", "job", "shop", "instance", instance, "method", method, "code", code)
				if i == 1 {
					b.Set("zone", "west")
				}
				perSecond := 1 + float64(i) + 3.7*float64(m) + 0.31*float64(c)
				phase := int64(i) * 11 * minute
				ss = append(ss, Series{Labels: b.Labels(), Float: counter(perSecond, 97*minute, phase)})
			}
		}
	}
	return ss
}

// latencies are classic histograms.
func latencies() []Series {
	bounds := []struct {
		le     string
		weight float64
	}{{"0.1", 0.21}, {"0.5", 0.63}, {"1", 0.82}, {"5", 0.97}, {"+Inf", 1}}
	var ss []Series
	for i, instance := range instances[:2] {
		perSecond := 7 + 4*float64(i)
		ls := func(name string, more ...string) labels.Labels {
			return named(name, append([]string{"job", "shop", "instance", instance}, more...)...).Labels()
		}
		for _, b := range bounds {
			ss = append(ss, Series{Labels: ls("latency_seconds_bucket", "le", b.le), Float: counter(perSecond*b.weight, math.MaxInt64, 0)})
		}
		ss = append(ss,
			Series{Labels: ls("latency_seconds_count"), Float: counter(perSecond, math.MaxInt64, 0)},
			Series{Labels: ls("latency_seconds_sum"), Float: counter(perSecond*0.43, math.MaxInt64, 0)})
	}
	return ss
}

// machines are gauges: temperatures, versions and states.
func machines() []Series {
	var ss []Series
	for i, instance := range instances {
		for s, sensor := range []string{"cpu", "disk"} {
			seed := uint64(10*i + s)
			base, swing := 40+7*float64(i)+3*float64(s), 9+float64(s)
			ss = append(ss, Series{
				Labels: named("temperature_celsius", "job", "node", "instance", instance, "sensor", sensor).Labels(),
				Float: func(ms int64) float64 {
					return base + swing*math.Sin(float64(ms)/float64(41*minute)) + noise(seed, ms/1000)
				},
			})
		}
		for c, mode := range []string{"idle", "user", "system"} {
			ss = append(ss, Series{
				Labels: named("cpu_seconds_total", "job", "node", "instance", instance, "mode", mode).Labels(),
				Float:  counter(0.9-0.25*float64(c)-0.05*float64(i), math.MaxInt64, 0),
			})
		}
		version := []string{"1.0", "1.1", "1.1"}[i]
		ss = append(ss, Series{
			Labels: named("build_info", "job", "node", "instance", instance, "version", version).Labels(),
			Float:  func(int64) float64 { return 1 },
		}, Series{
			Labels: named("state", "job", "node", "instance", instance).Labels(),
			Float:  func(ms int64) float64 { return float64((ms/(23*minute) + int64(i)) % 3) },
		})
	}
	return ss
}

// visitors are series that come and go, with and without a staleness marker at their end.
func visitors() []Series {
	hours := func(from, to float64) func(int64) bool {
		return func(ms int64) bool { return ms >= int64(from*60*minute) && ms < int64(to*60*minute) }
	}
	value := func(ms int64) float64 { return float64(ms / minute) }
	return []Series{
		{Labels: named("visitor", "how", "leaves").Labels(), Float: value, Present: hours(0.5, 2.6), Stale: true},
		{Labels: named("visitor", "how", "vanishes").Labels(), Float: value, Present: hours(1.2, 3.4)},
		{Labels: named("visitor", "how", "returns").Labels(), Float: value, Stale: true, Present: func(ms int64) bool {
			return hours(0, 1.5)(ms) || hours(3.1, 9)(ms)
		}},
	}
}

// edges are labels and values at the edges: names that sort on either side of the external labels, one
// series whose labels begin another's, names beyond ASCII identifiers, values beyond numbers.
func edges() []Series {
	constant := func(v float64) func(int64) float64 { return func(int64) float64 { return v } }
	line := func(slope float64) func(int64) float64 {
		return func(ms int64) float64 { return slope * float64(ms) / 1000 }
	}
	return []Series{
		{Labels: named("edge", "a", "1").Labels(), Float: line(1)},
		{Labels: named("edge", "a", "1", "b", "2").Labels(), Float: line(2)},
		{Labels: named("edge", "a", "1", "clust", "2").Labels(), Float: line(3)},
		{Labels: named("edge", "a", "1", "cluster_name", "2").Labels(), Float: line(4)},
		{Labels: named("edge", "a", "1", "prometheus_name", "2").Labels(), Float: line(5)},
		{Labels: named("edge", "a", "1", "repl", "2").Labels(), Float: line(6)},
		{Labels: named("edge", "a", "1", "replica_set", "2").Labels(), Float: line(7)},
		{Labels: named("edge", "a", "1", "zone", "2").Labels(), Float: line(8)},
		{Labels: named("edge", "a", "1", "zone", "größer \"quoted\" \\ \n").Labels(), Float: line(9)},
		{Labels: named("service.requests", "service.name", "cart", "größe", "xl").Labels(), Float: line(10)},
		{Labels: named("special", "is", "nan").Labels(), Float: constant(math.NaN())},
		{Labels: named("special", "is", "inf").Labels(), Float: constant(math.Inf(1))},
		{Labels: named("special", "is", "-inf").Labels(), Float: constant(math.Inf(-1))},
		{Labels: named("special", "is", "tiny").Labels(), Float: constant(5e-324)},
	}
}

// natives are native histograms: counters on two instances, and a gauge.
func natives() []Series {
	var ss []Series
	for i, instance := range instances[:2] {
		ss = append(ss, Series{
			Labels:    named("rpc_duration_seconds", "job", "shop", "instance", instance).Labels(),
			Histogram: nativeCounter(2 + 1.5*float64(i)),
		})
	}
	return append(ss, Series{
		Labels: named("queue_age_seconds", "job", "shop", "instance", instances[0]).Labels(),
		Histogram: func(ms int64) *histogram.Histogram {
			h := nativeCounter(3)((ms % (17 * minute)) + 5*minute)
			h.CounterResetHint = histogram.GaugeType
			return h
		},
	})
}
