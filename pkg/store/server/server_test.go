package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/proto/hintspb"
	"github.com/koios-metrics/koios/proto/labelpb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// fake is a Store that answers with what it is told to, and notes what it was asked.
type fake struct {
	cursor   func(ctx context.Context) (store.Cursor, error)
	list     []string
	warnings store.Warnings
	err      error
	desc     store.Description

	series *store.SeriesRequest
	names  *store.LabelNamesRequest
	values *store.LabelValuesRequest
	closed int
}

func (f *fake) Describe() store.Description { return f.desc }

func (f *fake) Series(ctx context.Context, r *store.SeriesRequest) (store.Cursor, error) {
	f.series = r
	c, err := f.cursor(ctx)
	if err != nil {
		return nil, err
	}
	return &counted{Cursor: c, closed: &f.closed}, nil
}

func (f *fake) LabelNames(_ context.Context, r *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	f.names = r
	return f.list, f.warnings, f.err
}

func (f *fake) LabelValues(_ context.Context, r *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	f.values = r
	return f.list, f.warnings, f.err
}

type counted struct {
	store.Cursor
	closed *int
}

func (c *counted) Close() error { *c.closed++; return c.Cursor.Close() }

func answer(series []*store.Series, warnings ...error) func(context.Context) (store.Cursor, error) {
	return func(context.Context) (store.Cursor, error) { return store.NewSliceCursor(series, warnings...), nil }
}

// endsWith hands out series and then ends with an error.
type endsWith struct {
	*store.SliceCursor
	err error
}

func (e endsWith) Err() error { return e.err }

// peer is a generated client, as a Thanos querier has, of a Server over a Store.
func peer(t *testing.T, st store.Store, config Config) (storepb.StoreClient, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer()
	storepb.RegisterStoreServer(s, New(st, config, nil, reg))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	cc, err := grpc.NewClient("passthrough:///server", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cc.Close()
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return storepb.NewStoreClient(cc), reg
}

// receive returns the frames of an answer, and the error that ended it.
func receive(t *testing.T, c storepb.StoreClient, m *storepb.SeriesRequest) ([]*storepb.SeriesResponse, error) {
	t.Helper()
	stream, err := c.Series(t.Context(), m, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		t.Fatal(err)
	}
	var frames []*storepb.SeriesResponse
	for {
		f, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return frames, nil
		}
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
}

func up(instance string, chunks ...string) *store.Series {
	s := &store.Series{Labels: labels.FromStrings("__name__", "up", "instance", instance)}
	for i, data := range chunks {
		s.Chunks = append(s.Chunks, store.Chunk{MinTime: int64(10 * i), MaxTime: int64(10*i + 9), Raw: store.Payload{Encoding: chunkenc.EncXOR, Data: []byte(data)}})
	}
	return s
}

// outline writes frames in short: what they are, and of which chunks.
func outline(frames []*storepb.SeriesResponse) []string {
	series := func(s *storepb.Series) string {
		out := s.Labels[len(s.Labels)-1].Value
		for _, c := range s.Chunks {
			out += fmt.Sprintf(" %d", c.MinTime)
		}
		return out
	}
	var out []string
	for _, f := range frames {
		switch r := f.Result.(type) {
		case *storepb.SeriesResponse_Series:
			out = append(out, series(r.Series))
		case *storepb.SeriesResponse_Warning:
			out = append(out, "warning "+r.Warning)
		case *storepb.SeriesResponse_Batch:
			var all []string
			for _, s := range r.Batch.Series {
				all = append(all, series(s))
			}
			out = append(out, "batch "+strings.Join(all, ", "))
		}
	}
	return out
}

// A generated client receives frames with labels, chunks, encodings and hashes as they are.
func TestSeries(t *testing.T) {
	xor := store.Payload{Encoding: chunkenc.EncXOR, Data: []byte("xor")}
	s := &store.Series{Labels: labels.FromStrings("a", "1", "b", "2"), Chunks: []store.Chunk{
		{MinTime: -1, MaxTime: 2, Raw: xor},
		{MinTime: 3, MaxTime: 4, Raw: store.Payload{Encoding: chunkenc.EncFloatHistogram, Data: []byte("fh"), Hash: 99}},
		{MinTime: 5, MaxTime: 6, Aggrs: &store.Aggregates{Count: xor, Counter: xor}},
	}}
	f := &fake{cursor: answer([]*store.Series{s})}
	c, _ := peer(t, f, Config{})
	frames, err := receive(t, c, &storepb.SeriesRequest{MinTime: 1, MaxTime: 2, SkipChunks: true, Matchers: []*storepb.LabelMatcher{{Name: "a", Type: storepb.LabelMatcher_RE, Value: "1|2"}}})
	if err != nil {
		t.Fatal(err)
	}
	wire := &storepb.Chunk{Data: []byte("xor"), Hash: xxhash.Sum64String("xor")}
	want := []*storepb.SeriesResponse{{Result: &storepb.SeriesResponse_Series{Series: &storepb.Series{
		Labels: []*labelpb.Label{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}},
		Chunks: []*storepb.AggrChunk{
			{MinTime: -1, MaxTime: 2, Raw: wire},
			{MinTime: 3, MaxTime: 4, Raw: &storepb.Chunk{Type: storepb.Chunk_FLOAT_HISTOGRAM, Data: []byte("fh"), Hash: 99}},
			{MinTime: 5, MaxTime: 6, Count: wire, Counter: wire},
		},
	}}}}
	if d := cmp.Diff(want, frames, cmp.Comparer(proto.Equal)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if f.series.MinTime != 1 || f.series.MaxTime != 2 || !f.series.SkipChunks || f.series.Matchers[0].String() != `a=~"1|2"` {
		t.Errorf("the store was asked %+v", f.series)
	}
	if f.closed != 1 {
		t.Errorf("the cursor was closed %d times, want once", f.closed)
	}
}

// Frames are full at a mebibyte of chunks, batches also at their number of series; warnings come after
// the series that were collected before them, and each comes once.
func TestFrames(t *testing.T) {
	half := strings.Repeat("x", frameBytes/2)
	huge := strings.Repeat("x", 3*frameBytes)
	several := []*store.Series{up("1", "a"), up("2"), up("3", "a", "b"), up("4", "a"), up("5", "a")}
	gap := &store.Gap{Store: "s", Err: errors.New("gone")}
	for _, c := range []struct {
		name   string
		series []*store.Series
		batch  int64
		warn   []error
		want   []string
	}{
		{"nothing", nil, 0, nil, nil},
		{"one each", several, 0, nil, []string{"1 0", "2", "3 0 10", "4 0", "5 0"}},
		{"batch of one", several, 1, nil, []string{"1 0", "2", "3 0 10", "4 0", "5 0"}},
		{"batches", several, 2, nil, []string{"batch 1 0, 2", "batch 3 0 10, 4 0", "batch 5 0"}},
		{"one batch", several, 100, nil, []string{"batch 1 0, 2, 3 0 10, 4 0, 5 0"}},
		{"split", []*store.Series{up("1", half, half, half, "a"), up("2", huge, "a"), up("3", "a")}, 0, nil, []string{"1 0 10", "1 20 30", "2 0", "2 10", "3 0"}},
		{"split among batches", []*store.Series{up("1", "a"), up("2", half, half, "a"), up("3", half), up("4", half), up("5", half)}, 10, nil,
			[]string{"batch 1 0", "2 0 10", "2 20", "batch 3 0, 4 0", "batch 5 0"}},
		{"warnings", several[:2], 0, []error{errors.New("w"), gap, errors.New("w")}, []string{"warning w", "warning " + gap.Error(), "1 0", "2"}},
		{"warnings alone", nil, 10, []error{errors.New("w")}, []string{"warning w"}},
		{"warnings and batches", several[:3], 2, []error{errors.New("w")}, []string{"warning w", "batch 1 0, 2", "batch 3 0 10"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, _ := peer(t, &fake{cursor: answer(c.series, c.warn...)}, Config{})
			frames, err := receive(t, client, &storepb.SeriesRequest{ResponseBatchSize: c.batch})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, outline(frames)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// late is a cursor that knows its warning only at the end.
type late struct {
	*store.SliceCursor
	ended bool
}

func (l *late) Next() bool { l.ended = !l.SliceCursor.Next(); return !l.ended }
func (l *late) Warnings() store.Warnings {
	if !l.ended {
		return nil
	}
	return store.Warnings{errors.New("late")}
}

// A warning that turns up on the way is sent after the series.
func TestLateWarning(t *testing.T) {
	c, _ := peer(t, &fake{cursor: func(context.Context) (store.Cursor, error) {
		return &late{SliceCursor: store.NewSliceCursor([]*store.Series{up("1"), up("2")})}, nil
	}}, Config{})
	frames, err := receive(t, c, &storepb.SeriesRequest{ResponseBatchSize: 10})
	if d := cmp.Diff([]string{"batch 1, 2", "warning late"}, outline(frames)); d != "" || err != nil {
		t.Errorf("error %v (-want +got)\n%s", err, d)
	}
}

// A request that wants all or nothing fails at a hole, though the Store let it pass, and not at a doubt.
func TestAbort(t *testing.T) {
	gap := &store.Gap{Store: "s", Err: errors.New("gone")}
	f := &fake{cursor: answer(nil, gap), warnings: store.Warnings{gap}}
	c, _ := peer(t, f, Config{})
	abort := storepb.PartialResponseStrategy_ABORT
	_, series := receive(t, c, &storepb.SeriesRequest{PartialResponseStrategy: abort})
	_, names := c.LabelNames(t.Context(), &storepb.LabelNamesRequest{PartialResponseDisabled: true})
	_, values := c.LabelValues(t.Context(), &storepb.LabelValuesRequest{Label: "l", PartialResponseStrategy: abort})
	for _, err := range []error{series, names, values} {
		if s := status.Convert(err); s.Code() != codes.Aborted || s.Message() != gap.Error() {
			t.Errorf("got %v, want Aborted and the hole", err)
		}
	}
	f.cursor = answer([]*store.Series{up("1")}, errors.New("doubt"))
	if frames, err := receive(t, c, &storepb.SeriesRequest{PartialResponseStrategy: abort}); err != nil || len(frames) != 2 {
		t.Errorf("with a doubt: %v, %v", outline(frames), err)
	}
}

// Limits end a request before it is sent more than they allow, and count it once.
func TestLimits(t *testing.T) {
	three := answer([]*store.Series{up("1", "a"), up("2", "a", "b"), up("3", "a")})
	for _, c := range []struct {
		config Config
		batch  int64
		want   []string
		err    string
		reason string
	}{
		{Config{}, 0, []string{"1 0", "2 0 10", "3 0"}, "", ""},
		{Config{SeriesLimit: 3, SamplesLimit: 480}, 0, []string{"1 0", "2 0 10", "3 0"}, "", ""},
		{Config{SeriesLimit: 2}, 0, []string{"1 0", "2 0 10"}, "failed to send series: limit 2 violated (got 3)", "series"},
		{Config{SeriesLimit: 2}, 2, []string{"batch 1 0, 2 0 10"}, "failed to send series: limit 2 violated (got 3)", "series"},
		{Config{SamplesLimit: 479}, 0, []string{"1 0", "2 0 10"}, "failed to send samples: limit 479 violated (got 480)", "chunks"},
		{Config{SamplesLimit: 1}, 0, nil, "failed to send samples: limit 1 violated (got 120)", "chunks"},
	} {
		client, reg := peer(t, &fake{cursor: three}, c.config)
		frames, err := receive(t, client, &storepb.SeriesRequest{ResponseBatchSize: c.batch})
		if d := cmp.Diff(c.want, outline(frames)); d != "" {
			t.Errorf("%+v (-want +got)\n%s", c.config, d)
		}
		dropped := map[string]int{"series": 0, "chunks": 0}
		if c.err == "" {
			if err != nil {
				t.Error(err)
			}
		} else {
			dropped[c.reason]++
			if s := status.Convert(err); s.Code() != codes.ResourceExhausted || s.Message() != c.err {
				t.Errorf("got %v, want ResourceExhausted %q", err, c.err)
			}
		}
		want := fmt.Sprintf(`# HELP thanos_store_selects_dropped_total Number of Series calls ended because their answer went over a limit.
# TYPE thanos_store_selects_dropped_total counter
thanos_store_selects_dropped_total{reason="chunks"} %d
thanos_store_selects_dropped_total{reason="series"} %d
`, dropped["chunks"], dropped["series"])
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "thanos_store_selects_dropped_total"); err != nil {
			t.Error(err)
		}
	}
}

// The metrics that dashboards look at: what was sent, per request, and how many requests are open.
func TestMetrics(t *testing.T) {
	c, reg := peer(t, &fake{cursor: answer([]*store.Series{up("1", "a"), up("2", "a", "b")})}, Config{})
	if _, err := receive(t, c, &storepb.SeriesRequest{}); err != nil {
		t.Fatal(err)
	}
	want := `# HELP thanos_store_server_chunks_requested Number of chunks sent for a Series call.
# TYPE thanos_store_server_chunks_requested histogram
thanos_store_server_chunks_requested_bucket{le="1"} 0
thanos_store_server_chunks_requested_bucket{le="10"} 1
thanos_store_server_chunks_requested_bucket{le="100"} 1
thanos_store_server_chunks_requested_bucket{le="1000"} 1
thanos_store_server_chunks_requested_bucket{le="10000"} 1
thanos_store_server_chunks_requested_bucket{le="100000"} 1
thanos_store_server_chunks_requested_bucket{le="1e+06"} 1
thanos_store_server_chunks_requested_bucket{le="1e+07"} 1
thanos_store_server_chunks_requested_bucket{le="1e+08"} 1
thanos_store_server_chunks_requested_bucket{le="+Inf"} 1
thanos_store_server_chunks_requested_sum 3
thanos_store_server_chunks_requested_count 1
# HELP thanos_store_server_pending_series_requests Number of Series calls being answered.
# TYPE thanos_store_server_pending_series_requests gauge
thanos_store_server_pending_series_requests 0
# HELP thanos_store_server_series_requested Number of series sent for a Series call.
# TYPE thanos_store_server_series_requested histogram
thanos_store_server_series_requested_bucket{le="1"} 0
thanos_store_server_series_requested_bucket{le="10"} 1
thanos_store_server_series_requested_bucket{le="100"} 1
thanos_store_server_series_requested_bucket{le="1000"} 1
thanos_store_server_series_requested_bucket{le="10000"} 1
thanos_store_server_series_requested_bucket{le="100000"} 1
thanos_store_server_series_requested_bucket{le="1e+06"} 1
thanos_store_server_series_requested_bucket{le="+Inf"} 1
thanos_store_server_series_requested_sum 2
thanos_store_server_series_requested_count 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "thanos_store_server_chunks_requested", "thanos_store_server_series_requested", "thanos_store_server_pending_series_requests"); err != nil {
		t.Error(err)
	}
}

// Every kind of error arrives with its code, be it from opening, from the middle of a cursor or from a
// label call; what came before an error arrives too.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{store.ErrNoMatchers, codes.InvalidArgument},
		{store.Errorf(store.KindLimit, "x"), codes.ResourceExhausted},
		{store.Errorf(store.KindUnavailable, "x"), codes.Unavailable},
		{store.Errorf(store.KindAborted, "x"), codes.Aborted},
		{store.Errorf(store.KindInternal, "x"), codes.Internal},
		{errors.New("x"), codes.Internal},
		{fmt.Errorf("x: %w", context.Canceled), codes.Canceled},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{status.Error(codes.Code(422), "x"), codes.Code(422)},
	} {
		f := &fake{err: c.err, cursor: func(context.Context) (store.Cursor, error) { return nil, c.err }}
		client, _ := peer(t, f, Config{})
		check := func(what string, err error) {
			t.Helper()
			if s := status.Convert(err); s.Code() != c.want || !strings.Contains(c.err.Error(), s.Message()) {
				t.Errorf("%s: %v became %v", what, c.err, err)
			}
		}
		_, err := receive(t, client, &storepb.SeriesRequest{})
		check("opening", err)
		f.cursor = func(context.Context) (store.Cursor, error) {
			return endsWith{store.NewSliceCursor([]*store.Series{up("1")}), c.err}, nil
		}
		frames, err := receive(t, client, &storepb.SeriesRequest{})
		check("the middle", err)
		if len(frames) != 1 {
			t.Errorf("before %v: got %v, want the one series", c.err, outline(frames))
		}
		_, err = client.LabelNames(t.Context(), &storepb.LabelNamesRequest{})
		check("label names", err)
		_, err = client.LabelValues(t.Context(), &storepb.LabelValuesRequest{Label: "l"})
		check("label values", err)
	}
}

// A chunk that has no form on the wire fails the request and names the series.
func TestChunkWithoutForm(t *testing.T) {
	bad := up("1")
	bad.Chunks = []store.Chunk{{Raw: store.Payload{Encoding: 9, Data: []byte("x")}}}
	for _, batch := range []int64{0, 10} {
		c, _ := peer(t, &fake{cursor: answer([]*store.Series{bad})}, Config{})
		_, err := receive(t, c, &storepb.SeriesRequest{ResponseBatchSize: batch})
		if s := status.Convert(err); s.Code() != codes.Internal || !strings.Contains(s.Message(), `encode {__name__="up", instance="1"}: chunk from`) {
			t.Errorf("got %v", err)
		}
	}
}

// Requests that nobody can answer do not reach the Store.
func TestBadRequests(t *testing.T) {
	f := &fake{}
	c, _ := peer(t, f, Config{})
	hints, err := anypb.New(&hintspb.LabelNamesRequestHints{})
	if err != nil {
		t.Fatal(err)
	}
	regexp := []*storepb.LabelMatcher{{Name: "a", Type: storepb.LabelMatcher_RE, Value: "("}}
	_, e1 := receive(t, c, &storepb.SeriesRequest{Matchers: regexp})
	_, e2 := receive(t, c, &storepb.SeriesRequest{Hints: hints})
	_, e3 := receive(t, c, &storepb.SeriesRequest{MinTime: 2, MaxTime: 1})
	_, e4 := c.LabelNames(t.Context(), &storepb.LabelNamesRequest{Matchers: regexp})
	_, e5 := c.LabelValues(t.Context(), &storepb.LabelValuesRequest{})
	for i, err := range []error{e1, e2, e3, e4, e5} {
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%d: got %v, want InvalidArgument", i+1, err)
		}
	}
	if f.series != nil || f.names != nil || f.values != nil {
		t.Errorf("the store was asked")
	}
}

// Label calls pass on the request, its block matchers included, and the answer with its warnings.
func TestLabelCalls(t *testing.T) {
	f := &fake{list: []string{"a", "b\xff"}, warnings: store.Warnings{errors.New("w\xff")}}
	c, _ := peer(t, f, Config{})
	block := []*storepb.LabelMatcher{{Name: "__block_id", Value: "01ARZ3NDEKTSV4RRFFQ69G5FAV"}}
	nh, err := anypb.New(&hintspb.LabelNamesRequestHints{BlockMatchers: block})
	if err != nil {
		t.Fatal(err)
	}
	vh, err := anypb.New(&hintspb.LabelValuesRequestHints{BlockMatchers: block})
	if err != nil {
		t.Fatal(err)
	}
	names, err := c.LabelNames(t.Context(), &storepb.LabelNamesRequest{Start: 1, End: 2, Limit: 7, Hints: nh, WithoutReplicaLabels: []string{"r"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := (&storepb.LabelNamesResponse{Names: []string{"a", "b\uFFFD"}, Warnings: []string{"w\uFFFD"}}); !proto.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	if r := f.names; r.MinTime != 1 || r.MaxTime != 2 || r.Limit != 7 || len(r.BlockMatchers) != 1 || r.WithoutReplicaLabels[0] != "r" {
		t.Errorf("the store was asked %+v", r)
	}
	values, err := c.LabelValues(t.Context(), &storepb.LabelValuesRequest{Label: "l", Start: 1, End: 2, Hints: vh})
	if err != nil {
		t.Fatal(err)
	}
	if want := (&storepb.LabelValuesResponse{Values: []string{"a", "b\uFFFD"}, Warnings: []string{"w\uFFFD"}}); !proto.Equal(values, want) {
		t.Errorf("got %v, want %v", values, want)
	}
	if r := f.values; r.Label != "l" || r.MinTime != 1 || len(r.BlockMatchers) != 1 {
		t.Errorf("the store was asked %+v", r)
	}
}

// A reader that goes away ends the Store's context, and the cursor is closed.
func TestReaderGoesAway(t *testing.T) {
	ended := make(chan struct{})
	f := &fake{cursor: func(ctx context.Context) (store.Cursor, error) { return &endless{ctx: ctx, ended: ended}, nil }}
	c, _ := peer(t, f, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := c.Series(ctx, &storepb.SeriesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-ended
}

// endless hands out the same series until its context ends, and says when it is closed.
type endless struct {
	ctx   context.Context
	ended chan struct{}
}

func (e *endless) Next() bool               { return e.ctx.Err() == nil }
func (e *endless) At() *store.Series        { return up("1", strings.Repeat("x", 1000)) }
func (e *endless) Err() error               { return e.ctx.Err() }
func (e *endless) Warnings() store.Warnings { return nil }
func (e *endless) Close() error             { close(e.ended); return nil }

// A reader that does not read holds the Store back: no more is pulled than fits into gRPC's windows.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &source{series: up("1", strings.Repeat("x", 10_000))}
		c, _ := peer(t, &fake{cursor: func(ctx context.Context) (store.Cursor, error) { source.ctx = ctx; return source, nil }}, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := c.Series(ctx, &storepb.SeriesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			before := source.pulled.Load()
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // until everybody waits for somebody
			if n := source.pulled.Load() - before; n > 50 {
				t.Fatalf("%d series of 10 kB were pulled ahead of the reader", n)
			}
		}
	})
}

// source hands out the same series until its context ends, and counts.
type source struct {
	ctx    context.Context
	series *store.Series
	pulled atomic.Int64
}

func (s *source) Next() bool               { s.pulled.Add(1); return s.ctx.Err() == nil }
func (s *source) At() *store.Series        { return s.series }
func (s *source) Err() error               { return s.ctx.Err() }
func (s *source) Warnings() store.Warnings { return nil }
func (s *source) Close() error             { return nil }
