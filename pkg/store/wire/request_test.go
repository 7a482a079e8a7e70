package wire

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/proto/hintspb"
	"github.com/koios-metrics/koios/proto/labelpb"
	"github.com/koios-metrics/koios/proto/storepb"
)

var compareMatchers = cmp.Comparer(func(a, b *labels.Matcher) bool { return a.String() == b.String() })

func everyMatcher() []*labels.Matcher {
	return []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, "a", "1"),
		labels.MustNewMatcher(labels.MatchNotEqual, "b", ""),
		labels.MustNewMatcher(labels.MatchRegexp, "c", "x|y.*"),
		labels.MustNewMatcher(labels.MatchNotRegexp, "d", ".+"),
	}
}

var blocks = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, BlockLabel, "01ARZ3NDEKTSV4RRFFQ69G5FAV")}

// through sends a message over the wire.
func through[M proto.Message](t *testing.T, m, into M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
	return into
}

// Requests with every field set, and with none, are the same after a trip over the wire; store matchers
// stay at home.
func TestRequestsThereAndBack(t *testing.T) {
	for _, want := range []*store.SeriesRequest{{}, {
		MinTime: -1, MaxTime: math.MaxInt64, Matchers: everyMatcher(), MaxResolution: 3_600_000,
		Aggregates: []store.Aggr{store.AggrRaw, store.AggrCount, store.AggrSum, store.AggrMin, store.AggrMax, store.AggrCounter},
		SkipChunks: true, WithoutReplicaLabels: []string{"replica", "r"}, Shard: &store.Shard{Index: 2, Total: 3, By: true, Labels: []string{"a"}},
		Limit: 5, PartialResponse: store.Abort, BatchSize: 64, BlockMatchers: blocks,
		Hints: &store.Hints{StepMillis: 1, RangeMillis: 2, Func: "rate", By: true, Grouping: []string{"job"}, ProjectionLabels: []string{"p"}, ProjectionInclude: true, SeriesHashLabelName: "h"},
	}} {
		m, err := EncodeSeriesRequest(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeSeriesRequest(through(t, m, &storepb.SeriesRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, compareMatchers); d != "" {
			t.Errorf("series request (-want +got)\n%s", d)
		}
	}
	for _, want := range []*store.LabelNamesRequest{{}, {MinTime: 1, MaxTime: 2, Matchers: everyMatcher(), WithoutReplicaLabels: []string{"r"}, Limit: 3, PartialResponse: store.Abort, BlockMatchers: blocks}} {
		m, err := EncodeLabelNamesRequest(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeLabelNamesRequest(through(t, m, &storepb.LabelNamesRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, compareMatchers); d != "" {
			t.Errorf("label names request (-want +got)\n%s", d)
		}
	}
	for _, want := range []*store.LabelValuesRequest{{Label: "l"}, {Label: "l", MinTime: 1, MaxTime: 2, Matchers: everyMatcher(), WithoutReplicaLabels: []string{"r"}, Limit: 3, PartialResponse: store.Abort, BlockMatchers: blocks}} {
		m, err := EncodeLabelValuesRequest(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeLabelValuesRequest(through(t, m, &storepb.LabelValuesRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, compareMatchers); d != "" {
			t.Errorf("label values request (-want +got)\n%s", d)
		}
	}

	m, err := EncodeSeriesRequest(&store.SeriesRequest{StoreMatchers: [][]*labels.Matcher{everyMatcher()}})
	if err != nil || !proto.Equal(m, &storepb.SeriesRequest{}) {
		t.Errorf("store matchers travelled: %v, %v", m, err)
	}
}

// Old and odd forms of fields that mean something plain.
func TestLenientRequests(t *testing.T) {
	r, err := DecodeSeriesRequest(&storepb.SeriesRequest{PartialResponseDisabled: true, Limit: -1, ResponseBatchSize: -5, MaxResolutionWindow: -1, ShardInfo: &storepb.ShardInfo{ShardIndex: 9}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&store.SeriesRequest{PartialResponse: store.Abort}, r); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// Each request that nobody could answer is refused as a bad request, with the reason.
func TestBadRequests(t *testing.T) {
	hints := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	bad := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) || store.KindOf(err) != store.KindBadRequest {
			t.Errorf("got %v, want a bad request and %q", err, want)
		}
	}
	for _, c := range []struct {
		matchers []*storepb.LabelMatcher
		start    int64
		hints    func(right proto.Message) *anypb.Any
		want     string
	}{
		{matchers: []*storepb.LabelMatcher{{Name: "a", Type: storepb.LabelMatcher_RE, Value: "("}}, want: `matcher a=~"(": error parsing regexp`},
		{matchers: []*storepb.LabelMatcher{{Name: "a", Type: 4}}, want: "unknown type 4"},
		{matchers: []*storepb.LabelMatcher{{Name: "a", Type: -1}}, want: "unknown type -1"},
		{matchers: []*storepb.LabelMatcher{{Value: "x"}}, want: `matcher with value "x" names no label`},
		{matchers: []*storepb.LabelMatcher{nil}, want: "names no label"},
		{start: 3, want: "starts at 1970-01-01T00:00:00.003Z (3), after its end at 1970-01-01T00:00:00.002Z (2)"},
		{hints: func(proto.Message) *anypb.Any { return hints(&hintspb.Block{}) }, want: `hints are of type "type.googleapis.com/hintspb.Block", want hintspb.`},
		{hints: func(proto.Message) *anypb.Any { return &anypb.Any{} }, want: `hints are of type "", want hintspb.`},
		{hints: func(m proto.Message) *anypb.Any { a := hints(m); a.Value = []byte{1}; return a }, want: "decode hintspb."},
	} {
		sr := &storepb.SeriesRequest{MinTime: c.start, MaxTime: 2, Matchers: c.matchers}
		nr := &storepb.LabelNamesRequest{Start: c.start, End: 2, Matchers: c.matchers}
		vr := &storepb.LabelValuesRequest{Label: "l", Start: c.start, End: 2, Matchers: c.matchers}
		if c.hints != nil {
			sr.Hints, nr.Hints, vr.Hints = c.hints(&hintspb.SeriesRequestHints{}), c.hints(&hintspb.LabelNamesRequestHints{}), c.hints(&hintspb.LabelValuesRequestHints{})
		}
		_, err := DecodeSeriesRequest(sr)
		bad(err, c.want)
		_, err = DecodeLabelNamesRequest(nr)
		bad(err, c.want)
		_, err = DecodeLabelValuesRequest(vr)
		bad(err, c.want)
	}
	series := func(m *storepb.SeriesRequest, want string) {
		t.Helper()
		_, err := DecodeSeriesRequest(m)
		bad(err, want)
	}
	series(&storepb.SeriesRequest{Aggregates: []storepb.Aggr{6}}, "unknown aggregate 6")
	series(&storepb.SeriesRequest{ShardInfo: &storepb.ShardInfo{ShardIndex: 3, TotalShards: 3}}, "shard 3 of 3")
	series(&storepb.SeriesRequest{ShardInfo: &storepb.ShardInfo{ShardIndex: -1, TotalShards: 3}}, "shard -1 of 3")
	series(&storepb.SeriesRequest{Hints: hints(&hintspb.SeriesRequestHints{BlockMatchers: []*storepb.LabelMatcher{{Name: "job", Value: "x"}}})}, `block matcher on label "job": only __block_id`)
	series(&storepb.SeriesRequest{Hints: hints(&hintspb.SeriesRequestHints{BlockMatchers: []*storepb.LabelMatcher{{Name: BlockLabel, Type: storepb.LabelMatcher_RE, Value: "("}}})}, "block matchers: matcher __block_id")
	_, err := DecodeLabelValuesRequest(&storepb.LabelValuesRequest{})
	bad(err, "label name is empty")
}

// Label sets are read leniently where they are not in doubt.
func TestLabelSets(t *testing.T) {
	sets := []labels.Labels{labels.FromStrings("z", "1"), labels.EmptyLabels(), labels.FromStrings("a", "1", "b", "2")}
	got, err := DecodeLabelSets(EncodeLabelSets(sets))
	if err != nil {
		t.Fatal(err)
	}
	if want := []labels.Labels{sets[1], sets[2], sets[0]}; !cmp.Equal(got, want, compareLabels) {
		t.Errorf("got %v, want %v", got, want)
	}
	ls, err := DecodeLabels(label("b", "2", "c", "", "a", "1"))
	if err != nil || !labels.Equal(ls, sets[2]) {
		t.Errorf("got %s, %v, want %s", ls, err, sets[2])
	}
	for _, bad := range [][]*labelpb.Label{label("", "x"), label("a", "1", "b", "1", "a", "2"), label("a", strings.Repeat("x", 1<<24))} {
		if ls, err := DecodeLabels(bad); err == nil {
			t.Errorf("%.100s was read as %.100s", bad, ls)
		}
	}
	if got, err := DecodeLabelSets(nil); got != nil || err != nil {
		t.Errorf("no sets: got %v, %v", got, err)
	}
}

// Whatever request comes in, it is refused as a bad request or is the same after a trip over the wire.
func FuzzSeriesRequest(f *testing.F) {
	for _, r := range []*store.SeriesRequest{{}, {MinTime: 1, MaxTime: 2, Matchers: everyMatcher(), BlockMatchers: blocks, Hints: &store.Hints{Func: "rate"}, Shard: &store.Shard{Total: 2}}} {
		m, err := EncodeSeriesRequest(r)
		if err != nil {
			f.Fatal(err)
		}
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m storepb.SeriesRequest
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		want, err := DecodeSeriesRequest(&m)
		if err != nil {
			if store.KindOf(err) != store.KindBadRequest {
				t.Errorf("kind %v of %v", store.KindOf(err), err)
			}
			return
		}
		again, err := EncodeSeriesRequest(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeSeriesRequest(through(t, again, &storepb.SeriesRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, compareMatchers); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	})
}
