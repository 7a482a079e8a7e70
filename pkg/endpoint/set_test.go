package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/discovery"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/fanout"
	"github.com/koios-metrics/koios/pkg/store/server"
	"github.com/koios-metrics/koios/pkg/store/storetest"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/labelpb"
	"github.com/koios-metrics/koios/proto/storepb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a component on loopback that says about itself what the test wants.
type node struct {
	addr   string
	answer atomic.Pointer[func(context.Context) (*infopb.InfoResponse, error)]
	stop   func()
}

type info struct {
	infopb.UnimplementedInfoServer
	n *node
}

func (i info) Info(ctx context.Context, _ *infopb.InfoRequest) (*infopb.InfoResponse, error) {
	return (*i.n.answer.Load())(ctx)
}

func (n *node) says(f func(context.Context) (*infopb.InfoResponse, error)) { n.answer.Store(&f) }

func (n *node) is(r *infopb.InfoResponse) {
	n.says(func(context.Context) (*infopb.InfoResponse, error) { return r, nil })
}

func (n *node) hangs() {
	n.says(func(ctx context.Context) (*infopb.InfoResponse, error) { <-ctx.Done(); return nil, ctx.Err() })
}

// start serves at n.addr, or where the kernel likes.
func (n *node) start(t testing.TB, st store.Store, opts ...grpc.ServerOption) {
	t.Helper()
	if n.addr == "" {
		n.addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	s := grpc.NewServer(opts...)
	infopb.RegisterInfoServer(s, info{n: n})
	if st != nil {
		storepb.RegisterStoreServer(s, server.New(st, server.Config{}, log.NewNopLogger(), prometheus.NewRegistry()))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	stopped := false
	n.stop = func() {
		if !stopped {
			stopped = true
			s.Stop()
			<-done
		}
	}
	t.Cleanup(func() { n.stop() })
}

func newNode(t testing.TB, r *infopb.InfoResponse) *node {
	n := &node{}
	n.is(r)
	n.start(t, nil)
	return n
}

// sidecarInfo is a healthy sidecar with the one external label replica.
func sidecarInfo(replica string) *infopb.InfoResponse {
	ls := labels.FromStrings("replica", replica)
	r := server.InfoOf("sidecar", store.Description{LabelSets: []labels.Labels{ls}, MinTime: 5, MaxTime: 10})
	r.Rules = &infopb.RulesInfo{}
	return r
}

// quick is a configuration whose rounds are short.
func quick() Config {
	c := DefaultConfig()
	c.Resolver = discovery.Golang
	c.InfoTimeout, c.DNSInterval = 50*time.Millisecond, time.Second
	return c
}

// run makes a set, lets it run for the test and awaits its first full update.
func run(t testing.TB, cfg Config, reg prometheus.Registerer) *Set {
	t.Helper()
	return runWith(t, cfg, log.NewNopLogger(), reg)
}

func runWith(t testing.TB, cfg Config, logger log.Logger, reg prometheus.Registerer) *Set {
	t.Helper()
	s, err := New(cfg, logger, reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the set does not get ready")
	}
	return s
}

// until polls for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func storeNames(s *Set) string {
	var names []string
	for _, st := range s.Stores() {
		names = append(names, st.Describe().Name)
	}
	return strings.Join(names, " ")
}

func (s *Set) line(name string) (Status, bool) {
	for _, st := range s.Status() {
		if st.Name == name {
			return st, true
		}
	}
	return Status{}, false
}

// A healthy peer is asked; one that hangs, lies, refuses or is not there is not, keeps nobody from being asked,
// and is listed with the reason.
func TestOnlyHealthyPeersAreAsked(t *testing.T) {
	good, hanging := newNode(t, sidecarInfo("a")), newNode(t, nil)
	hanging.hangs()
	lying := newNode(t, &infopb.InfoResponse{ComponentType: "sidecar", Store: &infopb.StoreInfo{},
		LabelSets: []*labelpb.ZLabelSet{{Labels: []*labelpb.Label{{Name: "", Value: "x"}}}}})
	refusing := newNode(t, nil)
	refusing.says(func(context.Context) (*infopb.InfoResponse, error) { return nil, server.ErrNotReady })
	rule := newNode(t, &infopb.InfoResponse{ComponentType: "rule", Rules: &infopb.RulesInfo{}})
	strange := newNode(t, &infopb.InfoResponse{ComponentType: "parquet-gateway", Store: &infopb.StoreInfo{MaxTime: 1}})
	gone := newNode(t, nil)
	gone.stop()

	cfg := quick()
	cfg.Endpoints = []string{good.addr, hanging.addr, lying.addr, refusing.addr, rule.addr, strange.addr, gone.addr}
	s := run(t, cfg, nil)
	want := map[string]Component{good.addr: Sidecar, rule.addr: Rule, strange.addr: Unknown,
		hanging.addr: Unknown, lying.addr: Unknown, refusing.addr: Unknown, gone.addr: Unknown}
	got := map[string]Component{}
	for _, st := range s.Status() {
		got[st.Name] = st.Component
		ill := slices.Contains([]string{hanging.addr, lying.addr, refusing.addr, gone.addr}, st.Name)
		if (st.LastError != nil) != ill || time.Since(st.LastCheck) > time.Minute {
			t.Errorf("status %+v", st)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if n := len(s.Stores()); n != 2 {
		t.Errorf("stores are %s", storeNames(s))
	}
	if n := len(s.Peers(HasRules)); n != 2 {
		t.Errorf("%d peers have rules, want 2", n)
	}
	if p := s.Peers(HasStatus); len(p) != 0 {
		t.Errorf("%v have a status", p)
	}
	for _, p := range s.Peers(HasRules) {
		if p.Name == good.addr && (p.Description.MinTime != 5 || p.Info.GetComponentType() != "sidecar" || p.Conn == nil) {
			t.Errorf("peer %+v", p)
		}
	}
}

// A peer that dies is not asked any more and is listed with its error, until that is too long ago; when it
// comes back it is asked again. What it says anew is taken in.
func TestDiesAndComesBack(t *testing.T) {
	n := newNode(t, sidecarInfo("a"))
	cfg := quick()
	cfg.Endpoints = []string{n.addr}
	s := run(t, cfg, nil)
	if storeNames(s) != n.addr {
		t.Fatalf("stores are %q", storeNames(s))
	}
	n.is(sidecarInfo("b"))
	until(t, "new labels", func() bool { return s.Stores()[0].Describe().LabelSets[0].Get("replica") == "b" })
	n.stop()
	until(t, "the dead peer is asked no more", func() bool { return storeNames(s) == "" })
	if st, ok := s.line(n.addr); !ok || st.LastError == nil || st.LabelSets[0].Get("replica") != "b" {
		t.Errorf("status %+v, listed %v", st, ok)
	}
	if gaps := s.Absent(); len(gaps) != 1 || gaps[0].Description.Name != n.addr || gaps[0].Description.MinTime != 5 || gaps[0].Description.LabelSets[0].Get("replica") != "b" {
		t.Errorf("absent: %v", gaps)
	}
	info := sidecarInfo("b") // what it said last
	for _, c := range []Capability{HasStore, HasRules, HasTargets, HasMetadata, HasExemplars, HasQuery, HasStatus} {
		if missed := len(s.AbsentOf(c)) == 1; missed != c.in(info) {
			t.Errorf("capability %d is missed: %v, it had it: %v", c, missed, c.in(info))
		}
	}
	p := s.all()[0]
	_, listed := p.status(0)
	_, absent := p.absent(HasStore, 0)
	if listed || absent {
		t.Error("the dead peer is not forgotten after the timeout")
	}
	n.start(t, nil)
	until(t, "the peer is back", func() bool { return storeNames(s) == n.addr && len(s.Status()) == 1 && len(s.Absent()) == 0 })
}

// A peer that discovery has lost is missed until it has been away too long, or until the same component with
// the same labels turns up anew; that one with the same labels has been there all along does not count, since
// shards have equal labels. One taken off the configuration is not missed. (Killed: a mutant that compares
// labels without looking at who came when.)
func TestLostByDiscovery(t *testing.T) {
	a, shard, b := newNode(t, sidecarInfo("a")), newNode(t, sidecarInfo("a")), newNode(t, sidecarInfo("a"))
	path := filepath.Join(t.TempDir(), "sd.json")
	discover := func(addrs ...string) {
		t.Helper()
		text, err := json.Marshal([]map[string]any{{"targets": addrs}})
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	discover(a.addr, shard.addr)
	cfg := quick()
	cfg.Files, cfg.FilesInterval = []string{path}, 20*time.Millisecond
	s := run(t, cfg, nil)
	until(t, "both are there", func() bool { return len(s.Stores()) == 2 })
	discover(shard.addr)
	until(t, "one is gone", func() bool { return storeNames(s) == shard.addr })
	lost := s.Absent()
	if len(lost) != 1 || lost[0].Description.Name != a.addr || lost[0].Description.MinTime != 5 || lost[0].Err == nil {
		t.Errorf("absent: %+v", lost)
	}
	s.mu.RLock()
	missed := s.leaving[0].peer.recent(HasStore, 0)
	s.mu.RUnlock()
	if missed {
		t.Error("it is missed for ever")
	}
	discover(shard.addr, b.addr)
	until(t, "its successor has come", func() bool { return len(s.Stores()) == 2 && len(s.Absent()) == 0 })

	still, err := New(quick(), log.NewNopLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer still.closeAll()
	still.reconcile(map[string]spec{"written:1": {name: "written:1", address: "written:1"}, "found:1": {name: "found:1", address: "found:1", found: true}})
	for _, p := range still.all() {
		p.record(sidecarInfo(p.spec.name), nil)
	}
	still.reconcile(nil)
	if lost := still.Absent(); len(lost) != 1 || lost[0].Description.Name != "found:1" {
		t.Errorf("absent: %+v", lost)
	}
}

// A strict peer is asked before its first answer, as a Store of everything, and during an outage; it is
// listed as unknown until its first answer.
func TestStrict(t *testing.T) {
	n := newNode(t, sidecarInfo("a"))
	n.stop()
	cfg := quick()
	cfg.Strict, cfg.UnhealthyTimeout = []string{n.addr}, time.Millisecond
	s := run(t, cfg, nil)
	d := s.Stores()[0].Describe()
	if st, ok := s.line(n.addr); !ok || st.LastError == nil || st.Component != Unknown || d.MinTime > 0 || d.MaxTime < 1<<62 || len(d.LabelSets) > 0 {
		t.Errorf("before the first answer: status %v, %+v", s.Status(), d)
	}
	if p := s.Peers(HasRules); len(p) > 0 {
		t.Errorf("before the first answer it has rules: %v", p)
	}
	n.start(t, nil)
	until(t, "the first answer", func() bool { st, ok := s.line(n.addr); return ok && st.LastError == nil })
	n.stop()
	until(t, "its error", func() bool { st, ok := s.line(n.addr); return ok && st.LastError != nil })
	if d := s.Stores()[0].Describe(); d.MaxTime != 10 {
		t.Errorf("during an outage it is forgotten what it has: %+v", d)
	}
}

// The endpoint file is read again: new endpoints join, others leave, a broken file changes nothing.
func TestEndpointFileReload(t *testing.T) {
	a, b := newNode(t, sidecarInfo("a")), newNode(t, sidecarInfo("b"))
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("endpoints: [{address: '" + a.addr + "'}]")
	cfg := quick()
	cfg.SDFile, cfg.SDReloadInterval = path, 10*time.Millisecond
	s := run(t, cfg, nil)
	if storeNames(s) != a.addr {
		t.Fatalf("stores are %q", storeNames(s))
	}
	conn := s.Peers(HasStore)[0].Conn
	write("endpoints: [{address: '" + b.addr + "'}]")
	until(t, "b in place of a", func() bool { return storeNames(s) == b.addr })
	if _, err := infopb.NewInfoClient(conn).Info(t.Context(), &infopb.InfoRequest{}); err != nil {
		t.Errorf("a call begun before the peer left: %v", err)
	}
	write("endpoints: [{")
	sum := s.fileSum
	for range 5 {
		s.reload(t.Context())
	}
	if storeNames(s) != b.addr || s.fileSum != sum {
		t.Errorf("a broken file leaves %q", storeNames(s))
	}
	write("endpoints: [{address: '" + a.addr + "'}, {address: '" + b.addr + "', strict: true}]")
	until(t, "both", func() bool { return len(s.Stores()) == 2 })
}

// Targets of file_sd files join, and names are looked up; addresses that come up twice are one peer and
// are counted.
func TestDiscovered(t *testing.T) {
	a, b := newNode(t, sidecarInfo("a")), newNode(t, sidecarInfo("b"))
	path := filepath.Join(t.TempDir(), "sd.yml")
	if err := os.WriteFile(path, []byte("- targets: ['"+a.addr+"']"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(b.addr)
	cfg := quick()
	cfg.Files, cfg.FilesInterval = []string{path}, time.Hour
	cfg.Endpoints = []string{a.addr, "dns+localhost:" + port}
	reg := prometheus.NewPedanticRegistry()
	s := run(t, cfg, reg)
	until(t, "both", func() bool { return len(s.Stores()) == 2 })
	if testutil.ToFloat64(s.metrics.duplicates) == 0 {
		t.Error("the duplicate is not counted")
	}
	want := `
# HELP thanos_store_nodes_grpc_connections Endpoints that are asked for data.
# TYPE thanos_store_nodes_grpc_connections gauge
thanos_store_nodes_grpc_connections{external_labels="{replica=\"a\"}",store_type="sidecar"} 1
thanos_store_nodes_grpc_connections{external_labels="{replica=\"b\"}",store_type="sidecar"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "thanos_store_nodes_grpc_connections"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"thanos_query_endpoints_dns_lookups_total", "thanos_query_endpoints_dns_failures_total", "thanos_query_endpoints_dns_provider_results",
		"thanos_query_endpoint_groups_dns_lookups_total", "thanos_query_duplicated_endpoint_addresses_total", "grpc_client_handled_total", "grpc_client_handling_seconds"} {
		if n, err := testutil.GatherAndCount(reg, name); n == 0 || err != nil {
			t.Errorf("metric %s: %d series, error %v", name, n, err)
		}
	}
}

// The whole road, from peers on the network through the set and a fan-out, is a Store like any other.
func TestConformance(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		cfg := quick()
		cfg.InfoTimeout = time.Second
		for half := range 2 {
			part := storetest.Data{External: data.External}
			for i, s := range data.Series {
				if i%3 != half {
					part.Series = append(part.Series, s)
				}
			}
			st := storetest.New(part)
			n := &node{}
			n.is(server.InfoOf("store", st.Describe()))
			n.start(t, st)
			cfg.Endpoints = append(cfg.Endpoints, n.addr)
		}
		s := run(t, cfg, nil)
		if len(s.Stores()) != 2 {
			t.Fatalf("stores are %q", storeNames(s))
		}
		return fanout.New(s.Stores, fanout.Config{ResponseTimeout: time.Minute}, log.NewNopLogger(), nil)
	})
}

// The JSON of a line is that of /api/v1/stores.
func TestStatusJSON(t *testing.T) {
	f := func(s Status, want string) {
		t.Helper()
		got, err := json.Marshal(s)
		if err != nil || string(got) != want {
			t.Errorf("got %s, error %v, want %s", got, err, want)
		}
	}
	at := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	f(Status{Name: "a:1", LastCheck: at, LabelSets: []labels.Labels{labels.FromStrings("a", "b")}, MinTime: -1, MaxTime: 2},
		`{"name":"a:1","lastCheck":"2024-01-02T03:04:05Z","lastError":null,"labelSets":[{"a":"b"}],"minTime":-1,"maxTime":2}`)
	f(Status{Name: "b", LastCheck: at, LastError: errors.New("boom")},
		`{"name":"b","lastCheck":"2024-01-02T03:04:05Z","lastError":"boom","labelSets":[],"minTime":0,"maxTime":0}`)
}

// Very many external labels are cut, within a character boundary, so that the metric stays small.
func TestExternalLabelsText(t *testing.T) {
	if got := externalLabels(nil); got != "no_external_labels" {
		t.Error(got)
	}
	if got := externalLabels([]labels.Labels{labels.FromStrings("b", "1"), labels.FromStrings("a", "2")}); got != `{a="2"},{b="1"}` {
		t.Error(got)
	}
	var sets []labels.Labels
	for range 100 {
		sets = append(sets, labels.FromStrings("ä", strings.Repeat("ü", 50)))
	}
	if got := externalLabels(sets); len(got) > 1000 || len(got) < 990 || strings.ToValidUTF8(got, "") != got {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}
