//go:build compat

package storecompare

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/proto/storepb"
)

// question is a request of one of three kinds.
type question struct {
	name    string
	method  string
	request proto.Message
}

// questions are the shapes that are asked: what queriers ask for a panel of one series, of a job, of a metric; for
// everything of an hour; and what the fields of a page ask for labels.
func (w world) questions() []question {
	hour := w.mint + int64(w.hours)*time.Hour.Milliseconds()/2
	eq := func(name, value string) *storepb.LabelMatcher { return &storepb.LabelMatcher{Name: name, Value: value} }
	re := func(name, value string) *storepb.LabelMatcher {
		return &storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: name, Value: value}
	}
	series := func(name string, mint, maxt int64, skipChunks bool, ms ...*storepb.LabelMatcher) question {
		return question{name, storepb.Store_Series_FullMethodName, &storepb.SeriesRequest{
			MinTime: mint, MaxTime: maxt, Matchers: ms, Aggregates: []storepb.Aggr{storepb.Aggr_RAW}, SkipChunks: skipChunks,
			PartialResponseStrategy: storepb.PartialResponseStrategy_ABORT, WithoutReplicaLabels: []string{"replica"},
		}}
	}
	name := func(n string) *storepb.LabelMatcher { return eq("__name__", "app_metric_"+n+"_total") }
	return []question{
		series("one series, a day", w.mint, w.maxt, false, name("03"), eq("instance", "host-00007:9090")),
		series("one job of a metric, a day", w.mint, w.maxt, false, name("05"), eq("job", "job-0")),
		series("a metric by regex, a day", w.mint, w.maxt, false, name("07"), re("instance", "host-000[0-4].*"), re("method", "GET|PUT")),
		series("a whole metric, a day", w.mint, w.maxt, false, name("09")),
		series("everything, an hour", hour, hour+time.Hour.Milliseconds(), false, re("__name__", ".+")),
		series("labels of everything, an hour", hour, hour+time.Hour.Milliseconds(), true, re("__name__", ".+")),
		{"label names, a day", storepb.Store_LabelNames_FullMethodName, &storepb.LabelNamesRequest{Start: w.mint, End: w.maxt}},
		{"label values, a day", storepb.Store_LabelValues_FullMethodName, &storepb.LabelValuesRequest{Label: "instance", Start: w.mint, End: w.maxt}},
		{"label values of a job, a day", storepb.Store_LabelValues_FullMethodName, &storepb.LabelValuesRequest{
			Label: "path", Start: w.mint, End: w.maxt, Matchers: []*storepb.LabelMatcher{name("05"), eq("job", "job-0")},
		}},
	}
}
