package remote_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/remote"
	"github.com/koios-metrics/koios/pkg/tenancy"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/labelpb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// script is a peer, built on the generated code, that sends the frames it is told to and then err.
type script struct {
	storepb.UnimplementedStoreServer
	frames  []*storepb.SeriesResponse
	err     error
	hang    bool // after the frames, until the caller goes away
	list    []string
	warn    []string
	asked   *storepb.SeriesRequest
	names   *storepb.LabelNamesRequest
	values  *storepb.LabelValuesRequest
	tenants []string
}

func (s *script) Series(m *storepb.SeriesRequest, stream storepb.Store_SeriesServer) error {
	s.asked = m
	s.tenants = metadata.ValueFromIncomingContext(stream.Context(), tenancy.MetadataKey)
	for _, f := range s.frames {
		if err := stream.Send(f); err != nil {
			return err
		}
	}
	if s.hang {
		<-stream.Context().Done()
	}
	return s.err
}

func (s *script) LabelNames(ctx context.Context, m *storepb.LabelNamesRequest) (*storepb.LabelNamesResponse, error) {
	s.names, s.tenants = m, metadata.ValueFromIncomingContext(ctx, tenancy.MetadataKey)
	return &storepb.LabelNamesResponse{Names: s.list, Warnings: s.warn}, s.err
}

func (s *script) LabelValues(ctx context.Context, m *storepb.LabelValuesRequest) (*storepb.LabelValuesResponse, error) {
	s.values, s.tenants = m, metadata.ValueFromIncomingContext(ctx, tenancy.MetadataKey)
	return &storepb.LabelValuesResponse{Values: s.list, Warnings: s.warn}, s.err
}

func message(ss ...string) *storepb.Series {
	m := &storepb.Series{}
	for i := 0; i < len(ss); i += 2 {
		m.Labels = append(m.Labels, &labelpb.Label{Name: ss[i], Value: ss[i+1]})
	}
	return m
}

func frame(ss ...string) *storepb.SeriesResponse {
	return &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: message(ss...)}}
}

func batch(ms ...*storepb.Series) *storepb.SeriesResponse {
	return &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Batch{Batch: &storepb.SeriesBatch{Series: ms}}}
}

func warn(text string) *storepb.SeriesResponse {
	return &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Warning{Warning: text}}
}

func hints() *storepb.SeriesResponse {
	return &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Hints{Hints: &anypb.Any{TypeUrl: "type.googleapis.com/hintspb.SeriesResponseHints"}}}
}

// ask returns the labels of what a request is answered with, the warnings and the error.
func ask(t *testing.T, st store.Store, req *store.SeriesRequest) (got []string, ws []string, err error) {
	t.Helper()
	cur, err := st.Series(t.Context(), req)
	if err != nil {
		return nil, nil, err
	}
	series, warnings, err := store.Drain(cur)
	for _, s := range series {
		got = append(got, s.Labels.String())
	}
	return got, warnings.Strings(), err
}

// Frames of every kind, in any mixture: series come in order, warnings are told, hints and frames that
// say nothing are passed over, a series in several frames comes in several pieces.
func TestFrames(t *testing.T) {
	peer := &script{frames: []*storepb.SeriesResponse{
		warn("rpc error: code = ResourceExhausted desc = w"), frame("a", "1"), frame("a", "1"), batch(), {}, batch(message("a", "1", "b", "1"), message("a", "2")), frame("a", "3"), warn("v"), hints(),
	}}
	got, ws, err := ask(t, full(t, remote.New(connect(t, peer), remote.Config{Name: "peer"})), &store.SeriesRequest{})
	if d := cmp.Diff([]string{`{a="1"}`, `{a="1"}`, `{a="1", b="1"}`, `{a="2"}`, `{a="3"}`}, got); d != "" || err != nil {
		t.Errorf("error %v (-want +got)\n%s", err, d)
	}
	if d := cmp.Diff([]string{"rpc error: code = ResourceExhausted desc = w", "v"}, ws); d != "" {
		t.Errorf("warnings (-want +got)\n%s", d)
	}
}

// A request that wants all or nothing is failed by a warning, whichever call it is.
func TestAbort(t *testing.T) {
	peer := &script{frames: []*storepb.SeriesResponse{frame("a", "1"), warn("half is gone")}, list: []string{"a"}, warn: []string{"half is gone"}}
	st := full(t, remote.New(connect(t, peer), remote.Config{Name: "peer"}))
	_, _, series := ask(t, st, &store.SeriesRequest{PartialResponse: store.Abort})
	_, _, names := st.LabelNames(t.Context(), &store.LabelNamesRequest{PartialResponse: store.Abort})
	_, _, values := st.LabelValues(t.Context(), &store.LabelValuesRequest{Label: "l", PartialResponse: store.Abort})
	for _, err := range []error{series, names, values} {
		if err == nil || err.Error() != "peer warned: half is gone" || store.KindOf(err) != store.KindAborted {
			t.Errorf("got %v", err)
		}
	}
	if !peer.asked.PartialResponseDisabled || peer.asked.PartialResponseStrategy != storepb.PartialResponseStrategy_ABORT {
		t.Errorf("the peer was asked %v", peer.asked)
	}
}

// Every code becomes the kind that it stands for, before the first frame and after some; the error names
// the peer and keeps the code in its text, where Thanos looks for it.
func TestErrors(t *testing.T) {
	for c, want := range map[codes.Code]store.Kind{
		codes.InvalidArgument: store.KindBadRequest, codes.ResourceExhausted: store.KindLimit, codes.Unavailable: store.KindUnavailable,
		codes.Aborted: store.KindAborted, codes.Internal: store.KindInternal, codes.Unknown: store.KindInternal, codes.Unimplemented: store.KindInternal,
		codes.DeadlineExceeded: store.KindUnavailable, codes.Canceled: store.KindUnavailable, codes.Code(422): store.KindInternal,
	} {
		peer := &script{err: status.Error(c, "why")}
		st := full(t, remote.New(connect(t, peer), remote.Config{Name: "peer:10901"}))
		check := func(err error, doing string) {
			t.Helper()
			if err == nil || store.KindOf(err) != want || status.Code(errors.Unwrap(errors.Unwrap(err))) != c || !strings.HasPrefix(err.Error(), doing+" peer:10901: rpc error: code = ") {
				t.Errorf("%v: got %v of kind %v, want kind %v", c, err, store.KindOf(err), want)
			}
		}
		for _, frames := range [][]*storepb.SeriesResponse{nil, {frame("a", "1")}} {
			peer.frames = frames
			got, _, err := ask(t, st, &store.SeriesRequest{})
			check(err, "receive series from")
			if len(got) != len(frames) {
				t.Errorf("%v: got %v before the error", c, got)
			}
		}
		_, _, err := st.LabelNames(t.Context(), &store.LabelNamesRequest{})
		check(err, "fetch label names from")
		_, _, err = st.LabelValues(t.Context(), &store.LabelValuesRequest{Label: "l"})
		check(err, "fetch label values from")
	}
}

// A frame that makes no sense ends the answer with an error that names the peer and what is wrong.
func TestHostileFrames(t *testing.T) {
	chunk := func(c *storepb.AggrChunk) *storepb.SeriesResponse {
		return batch(&storepb.Series{Labels: message("a", "1").Labels, Chunks: []*storepb.AggrChunk{c}})
	}
	for want, f := range map[string]*storepb.SeriesResponse{
		"it has no data":                  chunk(&storepb.AggrChunk{}),
		"unknown number 17":               chunk(&storepb.AggrChunk{Raw: &storepb.Chunk{Type: 17, Data: []byte("x")}}),
		"before it begins":                chunk(&storepb.AggrChunk{MinTime: 1, Raw: &storepb.Chunk{Data: []byte("x")}}),
		`label "a" comes after label "b"`: frame("b", "1", "a", "1"),
		"has no name":                     frame("", "1"),
	} {
		peer := &script{frames: []*storepb.SeriesResponse{frame("a", "0"), f, frame("z", "1")}}
		got, _, err := ask(t, full(t, remote.New(connect(t, peer), remote.Config{Name: "peer"})), &store.SeriesRequest{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "from peer") || store.KindOf(err) != store.KindInternal {
			t.Errorf("got %v, want peer and %q", err, want)
		}
		if len(got) != 1 {
			t.Errorf("%s: got %v before it", want, got)
		}
	}
}

// A peer that breaks its word on the order is caught, named and told about once; the answers that
// follow are sorted here.
func TestUnordered(t *testing.T) {
	var logged strings.Builder
	peer := &script{frames: []*storepb.SeriesResponse{frame("a", "1"), frame("a", "3"), frame("a", "2"), frame("a", "4")}}
	st := full(t, remote.New(connect(t, peer), remote.Config{Name: "peer", Logger: log.NewLogfmtLogger(&logged)}))
	got, _, err := ask(t, st, &store.SeriesRequest{})
	if want := `peer sent series {a="2"} after {a="3"}: its answers will be sorted here from now on; ask again`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
	if d := cmp.Diff([]string{`{a="1"}`, `{a="3"}`}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if !st.Unordered() {
		t.Errorf("the peer is still trusted")
	}
	got, _, err = ask(t, st, &store.SeriesRequest{})
	if d := cmp.Diff([]string{`{a="1"}`, `{a="2"}`, `{a="3"}`, `{a="4"}`}, got); d != "" || err != nil {
		t.Errorf("error %v (-want +got)\n%s", err, d)
	}
	if n := strings.Count(logged.String(), "does not keep the order"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, logged.String())
	}
}

// A peer that breaks its word on replica labels is caught likewise.
func TestReplicaLabelsLeftIn(t *testing.T) {
	peer := &script{frames: []*storepb.SeriesResponse{frame("a", "1", "b", "1"), frame("a", "1", "r", "1")}}
	st := full(t, remote.New(connect(t, peer), remote.Config{Name: "peer"}))
	req := &store.SeriesRequest{WithoutReplicaLabels: []string{"r"}}
	_, _, err := ask(t, st, req)
	if want := `peer sent series {a="1", r="1"}, which still has one of the replica labels [r]`; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	got, _, err := ask(t, st, req)
	if d := cmp.Diff([]string{`{a="1"}`, `{a="1", b="1"}`}, got); d != "" || err != nil {
		t.Errorf("error %v (-want +got)\n%s", err, d)
	}
}

// The answers of a peer that does not remove replica labels are stripped and sorted here, whole or up to
// an error, within a budget that is full again afterwards.
func TestSortingHere(t *testing.T) {
	chunk := &storepb.AggrChunk{Raw: &storepb.Chunk{Data: []byte(strings.Repeat("x", 1000))}}
	with := func(ss ...string) *storepb.SeriesResponse {
		m := message(ss...)
		m.Chunks = []*storepb.AggrChunk{chunk}
		return batch(m)
	}
	peer := &script{frames: []*storepb.SeriesResponse{with("a", "1", "r", "1"), with("a", "1", "b", "1"), with("a", "1", "b", "2", "r", "1"), with("a", "1"), warn("w")}}
	budget := store.NewBudget("sorting", 10_000)
	st := remote.New(connect(t, peer), remote.Config{Name: "peer", Budget: budget})
	req := &store.SeriesRequest{WithoutReplicaLabels: []string{"r"}}
	want := []string{`{a="1"}`, `{a="1"}`, `{a="1", b="1"}`, `{a="1", b="2"}`}
	for _, peer.err = range []error{nil, status.Error(codes.Unavailable, "gone")} {
		got, ws, err := ask(t, st, req)
		if d := cmp.Diff(want, got); d != "" || (err != nil) != (peer.err != nil) || len(ws) != 1 {
			t.Errorf("error %v, warnings %v (-want +got)\n%s", err, ws, d)
		}
		if budget.Used() != 0 {
			t.Errorf("%d bytes are still reserved", budget.Used())
		}
	}
	if len(peer.asked.WithoutReplicaLabels) != 0 {
		t.Errorf("the peer was asked for what it can't do: %v", peer.asked)
	}

	peer.err, peer.frames = nil, append(peer.frames, peer.frames...)
	peer.frames = append(peer.frames, peer.frames...)
	got, _, err := ask(t, st, req)
	if store.KindOf(err) != store.KindLimit || err == nil || len(got) != 0 || budget.Used() != 0 {
		t.Errorf("beyond the budget: got %v, error %v, %d bytes still reserved", got, err, budget.Used())
	}

	cur, err := st.Series(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	cur.Next()
	if err := errors.Join(cur.Close(), cur.Close()); err != nil || budget.Used() != 0 || cur.Next() {
		t.Errorf("closed early: error %v, %d bytes still reserved", err, budget.Used())
	}
}

// Keep gives series that the next frames do not touch, with aggregates of their own.
func TestKeep(t *testing.T) {
	series := func(name, data string) *storepb.SeriesResponse {
		c := &storepb.Chunk{Data: []byte(data)}
		m := message("a", name)
		m.Chunks = []*storepb.AggrChunk{{Raw: c}, {MinTime: 1, MaxTime: 1, Sum: c, Counter: c}}
		return &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: m}}
	}
	peer := &script{}
	for i := range 50 {
		peer.frames = append(peer.frames, series(fmt.Sprintf("%02d", i), strings.Repeat(fmt.Sprintf("%02d", i), 5000)))
	}
	cur, err := full(t, remote.New(connect(t, peer), remote.Config{Name: "peer"})).Series(t.Context(), &store.SeriesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer cur.Close()
	var kept, cloned []*store.Series // what was handed over, and what it was at that time
	for cur.Next() {
		cloned = append(cloned, cur.At().Clone())
		kept = append(kept, store.Keep(cur))
	}
	if cur.Err() != nil || len(kept) != 50 {
		t.Fatalf("%d series, error %v", len(kept), cur.Err())
	}
	for i := range kept {
		same := func(a, b store.Chunk) bool { return store.CompareChunks(&a, &b) == 0 }
		if !labels.Equal(kept[i].Labels, cloned[i].Labels) || !slices.EqualFunc(kept[i].Chunks, cloned[i].Chunks, same) {
			t.Errorf("%s is not what it was when it was kept", kept[i].Labels)
		}
	}
}

// Shards are chosen here for peers that can't, and then limits count what is left.
func TestShardingHere(t *testing.T) {
	peer := &script{}
	for i := range 20 {
		peer.frames = append(peer.frames, frame("a", fmt.Sprintf("%02d", i)))
	}
	st := remote.New(connect(t, peer), remote.Config{Name: "peer"})
	if err := st.SetInfo(&infopb.InfoResponse{Store: &infopb.StoreInfo{SupportsWithoutReplicaLabels: true}}); err != nil {
		t.Fatal(err)
	}
	req := &store.SeriesRequest{Shard: &store.Shard{Index: 1, Total: 4}, Limit: 2}
	got, _, err := ask(t, st, req)
	if err != nil || len(got) != 2 {
		t.Errorf("got %v, %v, want 2 series", got, err)
	}
	if peer.asked.ShardInfo != nil || peer.asked.Limit != 0 {
		t.Errorf("the peer was asked %v", peer.asked)
	}
	if _, _, err := ask(t, full(t, st), req); err != nil || peer.asked.ShardInfo.GetTotalShards() != 4 || peer.asked.Limit != 2 {
		t.Errorf("the peer that can was asked %v, error %v", peer.asked, err)
	}
}

// Lists come sorted, unique and cut, whatever the peer sends; the replica labels that an old peer leaves
// in are taken out where they are external ones.
func TestLabelCalls(t *testing.T) {
	peer := &script{list: []string{"r", "b", "a", "b", "s"}, warn: []string{"w"}}
	st := remote.New(connect(t, peer), remote.Config{Name: "peer"})
	if err := st.SetInfo(&infopb.InfoResponse{LabelSets: []*labelpb.ZLabelSet{{Labels: message("r", "1").Labels}}, Store: &infopb.StoreInfo{}}); err != nil {
		t.Fatal(err)
	}
	names, ws, err := st.LabelNames(t.Context(), &store.LabelNamesRequest{MinTime: 1, MaxTime: 2, Limit: 2, WithoutReplicaLabels: []string{"r", "s"}})
	if d := cmp.Diff([]string{"a", "b"}, names); d != "" || err != nil || len(ws) != 1 || ws[0].Error() != "w" {
		t.Errorf("warnings %v, error %v (-want +got)\n%s", ws, err, d)
	}
	if m := peer.names; m.Start != 1 || m.End != 2 || m.Limit != 0 {
		t.Errorf("the peer was asked %v", m)
	}
	names, _, _ = full(t, st).LabelNames(t.Context(), &store.LabelNamesRequest{WithoutReplicaLabels: []string{"r"}, Limit: 3})
	if d := cmp.Diff([]string{"a", "b", "r"}, names); d != "" || peer.names.Limit != 3 {
		t.Errorf("asked %v (-want +got)\n%s", peer.names, d)
	}
	values, ws, err := st.LabelValues(t.Context(), &store.LabelValuesRequest{Label: "l", MinTime: 1, MaxTime: 2})
	if d := cmp.Diff([]string{"a", "b", "r", "s"}, values); d != "" || err != nil || len(ws) != 1 {
		t.Errorf("warnings %v, error %v (-want +got)\n%s", ws, err, d)
	}
	peer.values = nil
	values, _, err = st.LabelValues(t.Context(), &store.LabelValuesRequest{Label: "r", WithoutReplicaLabels: []string{"r"}})
	if values != nil || err != nil || peer.values != nil {
		t.Errorf("values of a replica label: got %v, %v, asked %v", values, err, peer.values)
	}
}

// The tenant of a request travels on, and is the default one if the request has none.
func TestTenant(t *testing.T) {
	peer := &script{}
	st := full(t, remote.New(connect(t, peer), remote.Config{Name: "peer"}))
	for _, c := range []struct {
		ctx  context.Context
		want string
	}{
		{t.Context(), tenancy.DefaultTenant},
		{tenancy.NewContext(t.Context(), "team-a"), "team-a"},
		{metadata.NewIncomingContext(t.Context(), metadata.Pairs(tenancy.MetadataKey, "team-b")), "team-b"},
	} {
		same := func(what string) {
			t.Helper()
			if d := cmp.Diff([]string{c.want}, peer.tenants); d != "" {
				t.Errorf("%s (-want +got)\n%s", what, d)
			}
			peer.tenants = nil
		}
		cur, err := st.Series(c.ctx, &store.SeriesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := store.Drain(cur); err != nil {
			t.Fatal(err)
		}
		same("series")
		if _, _, err := st.LabelNames(c.ctx, &store.LabelNamesRequest{}); err != nil {
			t.Fatal(err)
		}
		same("label names")
		if _, _, err := st.LabelValues(c.ctx, &store.LabelValuesRequest{Label: "l"}); err != nil {
			t.Fatal(err)
		}
		same("label values")
	}
}

// A cursor that waits for a peer that says nothing ends at once when its context does, with the cause.
func TestContextEnds(t *testing.T) {
	why := errors.New("the caller has had enough")
	for _, info := range []bool{true, false} {
		peer := &script{frames: []*storepb.SeriesResponse{frame("a", "1")}, hang: true}
		st := remote.New(connect(t, peer), remote.Config{Name: "peer"})
		if info {
			full(t, st)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cur, err := st.Series(ctx, &store.SeriesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
		for cur.Next() {
		}
		if !errors.Is(cur.Err(), why) {
			t.Errorf("got %v, want %v", cur.Err(), why)
		}
		cur.Close()
	}
	peer := &script{frames: []*storepb.SeriesResponse{batch(message("a", "1"), message("a", "2"))}}
	for _, st := range []*remote.Store{full(t, remote.New(connect(t, peer), remote.Config{})), remote.New(connect(t, peer), remote.Config{})} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cur, err := st.Series(ctx, &store.SeriesRequest{})
		if err != nil || !cur.Next() {
			t.Fatal(err, cur.Err())
		}
		cancel(why)
		if cur.Next() || !errors.Is(cur.Err(), why) {
			t.Errorf("in a batch: got %v, want %v", cur.Err(), why)
		}
		cur.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if _, err := remote.New(connect(t, &script{}), remote.Config{Name: "peer"}).Series(ctx, &store.SeriesRequest{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that the time is up", err)
	}
}

// Closing early makes the peer stop and leaves nothing behind.
func TestCloseEarly(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("", func(t *testing.T) {
		peer := &script{frames: []*storepb.SeriesResponse{frame("a", "1"), frame("a", "2")}, hang: true}
		st := full(t, remote.New(connect(t, peer), remote.Config{Name: "peer"}))
		for range 3 {
			cur, err := st.Series(t.Context(), &store.SeriesRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if !cur.Next() {
				t.Fatal(cur.Err())
			}
			if err := errors.Join(cur.Close(), cur.Close()); err != nil || cur.Next() {
				t.Errorf("closing early: error %v", err)
			}
		}
	})
}

// A peer that can't be reached is unavailable, and named.
func TestDown(t *testing.T) {
	refused := func(context.Context, string) (net.Conn, error) { return nil, errors.New("nobody there") }
	cc, err := grpc.NewClient("passthrough:///peer", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(refused))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	_, _, err = ask(t, remote.New(cc, remote.Config{Name: "peer:10901"}), &store.SeriesRequest{})
	if err == nil || store.KindOf(err) != store.KindUnavailable || !strings.Contains(err.Error(), "peer:10901") || !strings.Contains(err.Error(), "nobody there") {
		t.Errorf("got %v of kind %v", err, store.KindOf(err))
	}
}

// What a peer says about itself is what Describe tells; nonsense changes nothing.
func TestDescribe(t *testing.T) {
	st := remote.New(connect(t, &script{}), remote.Config{Name: "peer"})
	compare := func(want store.Description) {
		t.Helper()
		if d := cmp.Diff(want, st.Describe(), cmp.Comparer(labels.Equal)); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	}
	set := func(info *infopb.InfoResponse) {
		t.Helper()
		if err := st.SetInfo(info); err != nil {
			t.Fatal(err)
		}
	}
	compare(store.Description{Name: "peer", MinTime: math.MinInt64, MaxTime: math.MaxInt64, Replicas: true})

	a, b := &labelpb.ZLabelSet{Labels: message("a", "1").Labels}, &labelpb.ZLabelSet{Labels: message("b", "1", "a", "2", "c", "").Labels}
	set(&infopb.InfoResponse{LabelSets: []*labelpb.ZLabelSet{b, a, a}, Store: &infopb.StoreInfo{MinTime: 1, MaxTime: 2, TsdbInfos: []*infopb.TSDBInfo{{Labels: b, MinTime: 1, MaxTime: 2}}}})
	want := store.Description{
		Name: "peer", MinTime: 1, MaxTime: 2, Replicas: true,
		LabelSets: []labels.Labels{labels.FromStrings("a", "1"), labels.FromStrings("a", "2", "b", "1")},
		TSDBs:     []store.TSDB{{Labels: labels.FromStrings("a", "2", "b", "1"), MinTime: 1, MaxTime: 2}},
	}
	compare(want)

	twice := &labelpb.ZLabelSet{Labels: message("a", "1", "a", "2").Labels}
	for _, bad := range []*infopb.InfoResponse{{LabelSets: []*labelpb.ZLabelSet{twice}}, {Store: &infopb.StoreInfo{TsdbInfos: []*infopb.TSDBInfo{{Labels: twice}}}}} {
		if err := st.SetInfo(bad); err == nil || !strings.Contains(err.Error(), "peer") {
			t.Errorf("got %v", err)
		}
		compare(want)
	}

	set(&infopb.InfoResponse{})
	compare(store.Description{Name: "peer", MinTime: math.MaxInt64, MaxTime: math.MinInt64, Replicas: true})

	// One that removes replica labels itself knows whose samples they are, and may not tell.
	set(&infopb.InfoResponse{Store: &infopb.StoreInfo{SupportsWithoutReplicaLabels: true}})
	compare(store.Description{Name: "peer"})
	set(&infopb.InfoResponse{Store: &infopb.StoreInfo{SupportsWithoutReplicaLabels: true, ChunksNameReplicas: true}})
	compare(store.Description{Name: "peer", Replicas: true})
	// A querier passes on what others advertise, which not all do; other components put it on every series.
	for component, labelled := range map[string]bool{"sidecar": true, "store": true, "receive": true, "rule": true, "query": false, "": false} {
		set(&infopb.InfoResponse{ComponentType: component, LabelSets: []*labelpb.ZLabelSet{a}, Store: &infopb.StoreInfo{SupportsWithoutReplicaLabels: true}})
		compare(store.Description{Name: "peer", LabelSets: []labels.Labels{labels.FromStrings("a", "1")}, Labelled: labelled})
	}
	set(&infopb.InfoResponse{ComponentType: "rule", Store: &infopb.StoreInfo{SupportsWithoutReplicaLabels: true}})
	compare(store.Description{Name: "peer"})
}
