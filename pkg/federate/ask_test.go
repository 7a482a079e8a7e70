package federate

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/tenancy"
	"github.com/koios-metrics/koios/proto/exemplarspb"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/metadatapb"
	"github.com/koios-metrics/koios/proto/rulespb"
	"github.com/koios-metrics/koios/proto/statuspb"
	"github.com/koios-metrics/koios/proto/targetspb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixed is a fixed list of peers that have everything.
type fixed struct {
	peers  []endpoint.Peer
	absent []store.Lost
}

func (f *fixed) Peers(endpoint.Capability) []endpoint.Peer { return f.peers }
func (f *fixed) AbsentOf(endpoint.Capability) []store.Lost { return f.absent }
func (f *fixed) add(p endpoint.Peer, sets ...labels.Labels) {
	p.Description.LabelSets = sets
	f.peers = append(f.peers, p)
}
func over(peers ...endpoint.Peer) *fixed { return &fixed{peers: peers} }
func named(name string, conn *grpc.ClientConn) endpoint.Peer {
	return endpoint.Peer{Name: name, Component: endpoint.Sidecar, Conn: conn}
}

// dial serves what register adds, in this process.
func dial(t *testing.T, register func(grpc.ServiceRegistrar)) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	register(s)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///peer", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		s.Stop()
		<-served
	})
	return conn
}

// leafPeer is a peer that says what it is told to, of everything.
type leafPeer struct {
	rulespb.UnimplementedRulesServer
	targetspb.UnimplementedTargetsServer
	metadatapb.UnimplementedMetadataServer
	exemplarspb.UnimplementedExemplarsServer
	statuspb.UnimplementedStatusServer

	replica string
	hangs   bool   // after its data, until the caller has gone
	warning string // before its data
	err     error  // after its data

	tenants chan string // whose requests were seen; nil is nobody's
	queries chan string // those for exemplars; nil is not told
}

func (l *leafPeer) register(r grpc.ServiceRegistrar) {
	rulespb.RegisterRulesServer(r, l)
	targetspb.RegisterTargetsServer(r, l)
	metadatapb.RegisterMetadataServer(r, l)
	exemplarspb.RegisterExemplarsServer(r, l)
	statuspb.RegisterStatusServer(r, l)
}

func (l *leafPeer) end(ctx context.Context) error {
	if l.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return l.err
}

func (l *leafPeer) Rules(_ *rulespb.RulesRequest, s grpc.ServerStreamingServer[rulespb.RulesResponse]) error {
	if l.tenants != nil {
		name, _ := tenancy.FromIncoming(s.Context())
		l.tenants <- name
	}
	if l.warning != "" {
		if err := s.Send(&rulespb.RulesResponse{Result: &rulespb.RulesResponse_Warning{Warning: l.warning}}); err != nil {
			return err
		}
	}
	g := group("f", "g", 1, alert("A", rulespb.AlertState_FIRING, 1, "replica", l.replica), recording("of "+l.replica, 1, "replica", l.replica))
	if err := s.Send(&rulespb.RulesResponse{Result: &rulespb.RulesResponse_Group{Group: g}}); err != nil {
		return err
	}
	return l.end(s.Context())
}

func (l *leafPeer) Targets(_ *targetspb.TargetsRequest, s grpc.ServerStreamingServer[targetspb.TargetsResponse]) error {
	d := found(target("u", targetspb.TargetHealth_UP, 1, "replica", l.replica), target("of "+l.replica, targetspb.TargetHealth_UP, 1))
	if err := s.Send(&targetspb.TargetsResponse{Result: &targetspb.TargetsResponse_Targets{Targets: d}}); err != nil {
		return err
	}
	return l.end(s.Context())
}

func (l *leafPeer) MetricMetadata(_ *metadatapb.MetricMetadataRequest, s grpc.ServerStreamingServer[metadatapb.MetricMetadataResponse]) error {
	m := &metadatapb.MetricMetadata{Metadata: map[string]*metadatapb.MetricMetadataEntry{"m": {Metas: []*metadatapb.Meta{{Type: "gauge", Help: l.replica}}}}}
	if err := s.Send(&metadatapb.MetricMetadataResponse{Result: &metadatapb.MetricMetadataResponse_Metadata{Metadata: m}}); err != nil {
		return err
	}
	return l.end(s.Context())
}

func (l *leafPeer) Exemplars(r *exemplarspb.ExemplarsRequest, s grpc.ServerStreamingServer[exemplarspb.ExemplarsResponse]) error {
	if l.queries != nil {
		l.queries <- r.GetQuery()
	}
	d := &exemplarspb.ExemplarData{SeriesLabels: set("__name__", "m", "replica", l.replica), Exemplars: []*exemplarspb.Exemplar{{Labels: set("trace", "of "+l.replica), Ts: 1000, Value: 0.5}}}
	if err := s.Send(&exemplarspb.ExemplarsResponse{Result: &exemplarspb.ExemplarsResponse_Data{Data: d}}); err != nil {
		return err
	}
	return l.end(s.Context())
}

func (l *leafPeer) TSDBStatistics(_ *statuspb.TSDBStatisticsRequest, s grpc.ServerStreamingServer[statuspb.TSDBStatisticsResponse]) error {
	st := &statuspb.TSDBStatistics{Statistics: map[string]*statuspb.TSDBStatisticsEntry{l.replica: {HeadStatistics: &statuspb.HeadStatistics{NumSeries: 1}}}}
	if err := s.Send(&statuspb.TSDBStatisticsResponse{Result: &statuspb.TSDBStatisticsResponse_Statistics{Statistics: st}}); err != nil {
		return err
	}
	return l.end(s.Context())
}

// everything asks a Federation for all it has, at once. The answers are text by the thing asked for; those of
// an error are its text.
func everything(t *testing.T, f *Federation) (data map[string]string, warnings map[string][]string) {
	t.Helper()
	data, warnings = map[string]string{}, map[string][]string{}
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	put := func(what string, v any, ws []string) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		data[what], warnings[what] = string(b), ws
	}
	ctx := t.Context()
	wg.Go(func() {
		a, err := f.Rules(ctx, &rulespb.RulesRequest{})
		if err != nil {
			put("rules", err.Error(), nil)
			return
		}
		put("rules", RulesJSON(a.Data), a.Warnings)
		put("alerts", AlertsJSON(a.Data), a.Warnings)
		a.Close()
	})
	wg.Go(func() {
		a, err := f.Targets(ctx, &targetspb.TargetsRequest{})
		if err != nil {
			put("targets", err.Error(), nil)
			return
		}
		put("targets", TargetsJSON(a.Data), a.Warnings)
		a.Close()
	})
	wg.Go(func() {
		a, err := f.Metadata(ctx, &metadatapb.MetricMetadataRequest{Limit: -1})
		if err != nil {
			put("metadata", err.Error(), nil)
			return
		}
		put("metadata", MetadataJSON(a.Data), a.Warnings)
		a.Close()
	})
	wg.Go(func() {
		a, err := f.Exemplars(ctx, &exemplarspb.ExemplarsRequest{Query: "m"})
		if err != nil {
			put("exemplars", err.Error(), nil)
			return
		}
		put("exemplars", ExemplarsJSON(a.Data), a.Warnings)
		a.Close()
	})
	wg.Go(func() {
		a, err := f.TSDBStatistics(ctx, &statuspb.TSDBStatisticsRequest{Limit: 10})
		if err != nil {
			put("statistics", err.Error(), nil)
			return
		}
		put("statistics", a.Data, a.Warnings)
		a.Close()
	})
	wg.Wait()
	return data, warnings
}

func warn(c Config) Config {
	c.ReplicaLabels = replicas
	c.Rules, c.Targets, c.Metadata, c.Exemplars, c.Status = store.Warn, store.Warn, store.Warn, store.Warn, store.Warn
	return c
}

func abort(c Config) Config {
	c = warn(c)
	c.Rules, c.Targets, c.Metadata, c.Exemplars, c.Status = store.Abort, store.Abort, store.Abort, store.Abort, store.Abort
	return c
}

// A peer that is late or fails costs a warning that names it, and what it had said before counts; without
// partial response it costs the answer. All memory is given back.
func TestSlowAndFailingPeers(t *testing.T) {
	well := named("well:1", dial(t, (&leafPeer{replica: "1"}).register))
	for name, c := range map[string]struct {
		bad  *leafPeer
		want string // in the warning
	}{
		"slow":    {&leafPeer{replica: "2", hangs: true}, "no full answer within"},
		"failing": {&leafPeer{replica: "2", err: status.Error(codes.Internal, "its disk is gone")}, "its disk is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := named("bad:2", dial(t, c.bad.register))
			budget := store.NewBudget("test", 1<<20)
			full, _ := everything(t, New(over(well, named("bad:2", dial(t, (&leafPeer{replica: "2"}).register))), warn(Config{})))
			data, warnings := everything(t, New(over(well, bad), warn(Config{Timeout: 300 * time.Millisecond, Budget: budget})))
			if d := cmp.Diff(full, data); d != "" {
				t.Errorf("with warnings (-want +got):\n%s", d)
			}
			for what, ws := range warnings {
				if len(ws) != 1 || !strings.Contains(ws[0], "bad:2") || !strings.Contains(ws[0], c.want) {
					t.Errorf("%s warns %q, want bad:2 and %q", what, ws, c.want)
				}
			}
			data, _ = everything(t, New(over(well, bad), abort(Config{Timeout: 300 * time.Millisecond, Budget: budget})))
			if len(data) != 5 {
				t.Errorf("%d answers, want 5 errors: %v", len(data), data)
			}
			for what, got := range data {
				if !strings.Contains(got, "bad:2") || !strings.Contains(got, c.want) {
					t.Errorf("%s: %s, want an error with bad:2 and %q", what, got, c.want)
				}
			}
			if n := budget.Used(); n != 0 {
				t.Errorf("%d bytes are still held", n)
			}
		})
	}
}

// A peer's own warning is passed on with its name, and ends a request without partial response.
func TestWarningOfAPeer(t *testing.T) {
	peers := over(named("p:1", dial(t, (&leafPeer{replica: "1", warning: "half of it"}).register)))
	a, err := New(peers, warn(Config{})).Rules(t.Context(), &rulespb.RulesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	if want := []string{"p:1: half of it"}; !slices.Equal(a.Warnings, want) || len(a.Data) != 1 {
		t.Errorf("%q with %d groups, want %q with 1", a.Warnings, len(a.Data), want)
	}
	_, err = New(peers, abort(Config{})).Rules(t.Context(), &rulespb.RulesRequest{})
	if store.KindOf(err) != store.KindAborted || !strings.Contains(err.Error(), "half of it") {
		t.Errorf("without partial response: %v", err)
	}
}

// A peer that is not asked because it is unhealthy is missed by name.
func TestAbsentPeers(t *testing.T) {
	peers := over(named("p:1", dial(t, (&leafPeer{replica: "1"}).register)))
	peers.absent = []store.Lost{{Description: store.Description{Name: "gone:2"}, Err: errors.New("unhealthy")}}
	_, warnings := everything(t, New(peers, warn(Config{})))
	for what, ws := range warnings {
		if len(ws) != 1 || !strings.Contains(ws[0], "gone:2: unhealthy") {
			t.Errorf("%s warns %q", what, ws)
		}
	}
	data, _ := everything(t, New(peers, abort(Config{})))
	for what, got := range data {
		if !strings.Contains(got, "gone:2: unhealthy") {
			t.Errorf("%s without partial response: %s", what, got)
		}
	}
}

// Answers past the memory budget are refused, also with partial response, and nothing stays held.
func TestBudget(t *testing.T) {
	budget := store.NewBudget("memory", 10)
	_, err := New(over(named("p:1", dial(t, (&leafPeer{replica: "1"}).register))), warn(Config{Budget: budget})).Rules(t.Context(), &rulespb.RulesRequest{})
	if store.KindOf(err) != store.KindLimit {
		t.Errorf("got %v", err)
	}
	if n := budget.Used(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

// The caller's tenant travels to peers.
func TestTenant(t *testing.T) {
	seen := make(chan string, 1)
	a, err := New(over(named("p:1", dial(t, (&leafPeer{tenants: seen}).register))), warn(Config{})).Rules(tenancy.NewContext(t.Context(), "me"), &rulespb.RulesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	if got := <-seen; got != "me" {
		t.Errorf("tenant %q", got)
	}
}

// A querier over two queriers answers as one over all their peers; the names of failing peers reach the top,
// since each level leaves the one above time to hear of it.
func TestStacked(t *testing.T) {
	leaf := func(replica string) endpoint.Peer {
		return named("leaf:"+replica, dial(t, (&leafPeer{replica: replica}).register))
	}
	one, two, three := leaf("1"), leaf("2"), leaf("3")
	// The querier below removes no replica labels of its own accord: which they are is for the one above.
	below := func(peers ...endpoint.Peer) *grpc.ClientConn {
		return dial(t, New(over(peers...), Config{ReplicaLabels: []string{"__name__"}}).Register)
	}
	flat, _ := everything(t, New(over(one, two, three), warn(Config{})))
	stacked, warnings := everything(t, New(over(named("q:1", below(one, two)), named("q:2", below(two, three))), warn(Config{})))
	delete(flat, "statistics") // the second leaf is there twice
	delete(stacked, "statistics")
	if d := cmp.Diff(flat, stacked); d != "" {
		t.Errorf("(-flat +stacked):\n%s", d)
	}
	for what, ws := range warnings {
		if len(ws) > 0 {
			t.Errorf("%s warns %q", what, ws)
		}
	}

	slow := named("slow:4", dial(t, (&leafPeer{replica: "4", hangs: true}).register))
	data, warnings := everything(t, New(over(named("q:1", below(one, slow))), warn(Config{Timeout: 2 * time.Second})))
	want, _ := everything(t, New(over(one, leaf("4")), warn(Config{})))
	if d := cmp.Diff(want, data); d != "" {
		t.Errorf("over a slow leaf (-want +got):\n%s", d)
	}
	for what, ws := range warnings {
		if len(ws) != 1 || !strings.Contains(ws[0], "q:1: read ") || !strings.Contains(ws[0], "slow:4") {
			t.Errorf("%s warns %q", what, ws)
		}
	}
}

// What a querier announces is what it serves.
func TestAnnounce(t *testing.T) {
	info := &infopb.InfoResponse{}
	Announce(info)
	if info.Rules == nil || info.Targets == nil || info.MetricMetadata == nil || info.Exemplars == nil || info.Status == nil {
		t.Errorf("announces %v", info)
	}
}

// Each peer is asked for the selectors that its external labels leave, without matchers on these unless it is
// a querier; nobody is asked for what the querier's own labels rule out.
func TestExemplarQueries(t *testing.T) {
	a, b := labels.FromStrings("cluster", "a"), labels.FromStrings("cluster", "b")
	for _, c := range []struct {
		query   string
		sets    []labels.Labels
		querier bool
		want    string // empty: not asked
	}{
		{`m`, nil, false, `{__name__="m"}`},
		{`rate(m{x="1"}[5m]) / on() n`, []labels.Labels{a}, false, `{x="1",__name__="m"} + {__name__="n"}`},
		{`m{cluster="a"} + n{cluster="b"}`, []labels.Labels{a}, false, `{__name__="m"}`},
		{`m{cluster="a"} + n{cluster="b"}`, []labels.Labels{a, b}, false, `{__name__="m"} + {__name__="n"}`},
		{`m{cluster="a"}`, []labels.Labels{a, b}, true, `{cluster="a",__name__="m"}`},
		{`m{cluster="c"}`, []labels.Labels{a, b}, true, ``},
		{`m{cluster="c"}`, []labels.Labels{a}, false, ``},
		{`{cluster="a"}`, []labels.Labels{a}, false, `{__name__!=""}`},
		{`m{mine="no"}`, []labels.Labels{a}, false, ``},
		{`m{mine="yes"}`, []labels.Labels{a}, false, `{__name__="m"}`},
		{`m + m`, []labels.Labels{a}, false, `{__name__="m"}`},
	} {
		f := New(over(), Config{SelectorLabels: labels.FromStrings("mine", "yes")})
		wanted, err := f.selectors(c.query)
		if err != nil {
			t.Fatal(err)
		}
		p := endpoint.Peer{Component: endpoint.Receive}
		if c.querier {
			p.Component = endpoint.Query
		}
		p.Description.LabelSets = c.sets
		if got := queryFor(p, wanted); got != c.want {
			t.Errorf("%s to %v: %q, want %q", c.query, c.sets, got, c.want)
		}
	}
	for _, bad := range []string{"1+1", "sum(", ""} {
		if _, err := New(over(), Config{}).Exemplars(t.Context(), &exemplarspb.ExemplarsRequest{Query: bad}); store.KindOf(err) != store.KindBadRequest {
			t.Errorf("%q: %v, want a bad request", bad, err)
		}
	}
}

// Series that a peer with several external label sets gives beyond what was asked for are dropped.
func TestExemplarsSelected(t *testing.T) {
	peers := over()
	queries := make(chan string, 2)
	conn := dial(t, (&leafPeer{replica: "1", queries: queries}).register)
	peers.add(named("p:1", conn), labels.FromStrings("replica", "1"), labels.FromStrings("replica", "2"))
	f := New(peers, warn(Config{}))
	for query, want := range map[string]int{`m{replica="1"}`: 1, `m{replica="2"}`: 0} {
		a, err := f.Exemplars(t.Context(), &exemplarspb.ExemplarsRequest{Query: query})
		if err != nil {
			t.Fatal(err)
		}
		a.Close()
		if got := <-queries; got != `{__name__="m"}` || len(a.Data) != want {
			t.Errorf("%s: asked %s, %d series, want %d", query, got, len(a.Data), want)
		}
	}
}
