package api

import (
	"context"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/federate"
	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/tenancy"
	"github.com/koios-metrics/koios/proto/exemplarspb"
	"github.com/koios-metrics/koios/proto/labelpb"
	"github.com/koios-metrics/koios/proto/metadatapb"
	"github.com/koios-metrics/koios/proto/rulespb"
	"github.com/koios-metrics/koios/proto/statuspb"
	"github.com/koios-metrics/koios/proto/targetspb"
)

// peer has one of everything, or nothing.
type peer struct {
	rulespb.UnimplementedRulesServer
	targetspb.UnimplementedTargetsServer
	metadatapb.UnimplementedMetadataServer
	exemplarspb.UnimplementedExemplarsServer
	statuspb.UnimplementedStatusServer

	empty bool
	err   error
}

func labelSet(name, value string) *labelpb.ZLabelSet {
	return &labelpb.ZLabelSet{Labels: []*labelpb.Label{{Name: name, Value: value}}}
}

var evaluated = &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 500_000_000}

func (p *peer) Rules(_ *rulespb.RulesRequest, s grpc.ServerStreamingServer[rulespb.RulesResponse]) error {
	if p.empty || p.err != nil {
		return p.err
	}
	return s.Send(&rulespb.RulesResponse{Result: &rulespb.RulesResponse_Group{Group: &rulespb.RuleGroup{
		Name: "g", File: "f.yml", Interval: 15, EvaluationDurationSeconds: 0.25, LastEvaluation: evaluated, Limit: 7, PartialResponseStrategy: 1,
		Rules: []*rulespb.Rule{
			{Result: &rulespb.Rule_Alert{Alert: &rulespb.Alert{
				State: rulespb.AlertState_FIRING, Name: "Up", Query: "up > 0", DurationSeconds: 60, KeepFiringForSeconds: 5, Labels: labelSet("severity", "page"), Health: "ok", EvaluationDurationSeconds: 0.5, LastEvaluation: evaluated,
				Alerts: []*rulespb.AlertInstance{{Labels: labelSet("alertname", "Up"), Annotations: labelSet("summary", "<up>"), State: rulespb.AlertState_FIRING, ActiveAt: evaluated, Value: "1e+00"}, {State: rulespb.AlertState_PENDING, Value: "2e+00"}},
			}}},
			{Result: &rulespb.Rule_Alert{Alert: &rulespb.Alert{State: rulespb.AlertState_INACTIVE, Name: "Never", Query: "up > 2", Health: "unknown"}}},
			{Result: &rulespb.Rule_Recording{Recording: &rulespb.RecordingRule{Name: "r", Query: "sum(up)", Health: "err", LastError: "no", LastEvaluation: evaluated}}},
		},
	}}})
}

func (p *peer) Targets(_ *targetspb.TargetsRequest, s grpc.ServerStreamingServer[targetspb.TargetsResponse]) error {
	if p.empty || p.err != nil {
		return p.err
	}
	return s.Send(&targetspb.TargetsResponse{Result: &targetspb.TargetsResponse_Targets{Targets: &targetspb.TargetDiscovery{
		ActiveTargets: []*targetspb.ActiveTarget{{
			DiscoveredLabels: labelSet("__address__", "a:1"), Labels: labelSet("job", "j"), ScrapePool: "j", ScrapeUrl: "http://a:1/metrics", GlobalUrl: "http://b:1/metrics",
			LastScrape: evaluated, LastScrapeDuration: 0.5, Health: targetspb.TargetHealth_TARGET_UNKNOWN,
		}},
		DroppedTargets: []*targetspb.DroppedTarget{{DiscoveredLabels: labelSet("__address__", "c:1")}},
	}}})
}

func (p *peer) MetricMetadata(_ *metadatapb.MetricMetadataRequest, s grpc.ServerStreamingServer[metadatapb.MetricMetadataResponse]) error {
	if p.empty || p.err != nil {
		return p.err
	}
	return s.Send(&metadatapb.MetricMetadataResponse{Result: &metadatapb.MetricMetadataResponse_Metadata{Metadata: &metadatapb.MetricMetadata{
		Metadata: map[string]*metadatapb.MetricMetadataEntry{"up": {Metas: []*metadatapb.Meta{{Type: "gauge", Help: "Whether it is up."}}}},
	}}})
}

func (p *peer) Exemplars(_ *exemplarspb.ExemplarsRequest, s grpc.ServerStreamingServer[exemplarspb.ExemplarsResponse]) error {
	if p.empty || p.err != nil {
		return p.err
	}
	return s.Send(&exemplarspb.ExemplarsResponse{Result: &exemplarspb.ExemplarsResponse_Data{Data: &exemplarspb.ExemplarData{
		SeriesLabels: labelSet("__name__", "up"), Exemplars: []*exemplarspb.Exemplar{{Labels: labelSet("trace_id", "t"), Value: 1.5, Ts: 1_234_567}, {Value: 1e21, Ts: 1_234_568}},
	}}})
}

func (p *peer) TSDBStatistics(_ *statuspb.TSDBStatisticsRequest, s grpc.ServerStreamingServer[statuspb.TSDBStatisticsResponse]) error {
	if p.empty || p.err != nil {
		return p.err
	}
	of := func(n uint64) *statuspb.TSDBStatisticsEntry {
		return &statuspb.TSDBStatisticsEntry{
			HeadStatistics:          &statuspb.HeadStatistics{NumSeries: n, NumLabelPairs: 2, ChunkCount: 3, MinTime: 4, MaxTime: 5},
			SeriesCountByMetricName: []*statuspb.Statistic{{Name: "up", Value: n}, {Name: "down", Value: 1}},
		}
	}
	return s.Send(&statuspb.TSDBStatisticsResponse{Result: &statuspb.TSDBStatisticsResponse_Statistics{Statistics: &statuspb.TSDBStatistics{
		Statistics: map[string]*statuspb.TSDBStatisticsEntry{"one": of(10), "two": of(20)},
	}}})
}

// peers is a fixed list.
type peers []endpoint.Peer

func (p peers) Peers(endpoint.Capability) []endpoint.Peer { return p }
func (p peers) AbsentOf(endpoint.Capability) []store.Lost { return nil }

// federation serves the API over one peer.
func federation(t *testing.T, p *peer, cfg Config) *httptest.Server {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	rulespb.RegisterRulesServer(s, p)
	targetspb.RegisterTargetsServer(s, p)
	metadatapb.RegisterMetadataServer(s, p)
	exemplarspb.RegisterExemplarsServer(s, p)
	statuspb.RegisterStatusServer(s, p)
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
	cfg.Federation = federate.New(peers{{Name: "p:1", Conn: conn}}, federate.Config{
		Rules: store.Warn, Targets: store.Warn, Metadata: store.Warn, Exemplars: store.Warn, Status: store.Abort,
	})
	return serve(t, newReplicated(), cfg, query.Config{Engine: query.EnginePrometheus}, nil)
}

// The answers byte for byte: full, empty, with parameters that are wrong, and of a peer that fails.
func TestFederatedGolden(t *testing.T) {
	var out strings.Builder
	ask := func(what string, p *peer, paths ...string) {
		srv := federation(t, p, Config{})
		for _, path := range paths {
			r := do(t, srv, "GET", path, "")
			out.WriteString(what + " GET " + path + "\n" + r.header.Get("X-Handler") + " " + strings.TrimSpace(r.header.Get("Cache-Control")+" "+r.header.Get("Access-Control-Allow-Origin")) + "\n" + r.body + "\n")
		}
	}
	all := []string{"/rules", "/alerts", "/targets", "/metadata", "/query_exemplars?query=up", "/status/tsdb"}
	ask("full", &peer{}, append(all, "/rules?type=RECORD", "/rules?rule_name=Never", "/rules?rule_group[]=h", "/targets?state=Active", "/metadata?limit=0", "/status/tsdb?limit=1", "/status/tsdb?limit=0",
		"/query_exemplars?query=up&start=1700000000000&end=1700000001000")...)
	ask("empty", &peer{empty: true}, all...)
	ask("failing", &peer{err: status.Error(codes.Internal, "no disk")}, all...)
	ask("wrong", &peer{}, "/rules?type=alarm", "/rules?match[]={", "/targets?state=lost", "/metadata?limit=x", "/query_exemplars", "/query_exemplars?query=1", "/query_exemplars?query=sum(",
		"/query_exemplars?query=up&start=2&end=1", "/query_exemplars?query=up&start=noon", "/status/tsdb?limit=x", "/status/tsdb?match[]={")
	golden(t, "federated.txt", out.String())
}

// Where tenancy is enforced, statistics are the caller's; a tenant that nobody knows gets an error.
func TestStatisticsOfATenant(t *testing.T) {
	srv := federation(t, &peer{}, Config{EnforceTenancy: true})
	if r := do(t, srv, "GET", "/status/tsdb", "", tenancy.DefaultHeader, "two"); r.status != 200 || !strings.Contains(r.body, `"numSeries":20,`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := do(t, srv, "GET", "/status/tsdb", "", tenancy.DefaultHeader, "three"); r.status != 500 || !strings.Contains(r.body, `"errorType":"internal"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// Exemplars may be asked for by a form with more in the URL; the others by GET alone.
func TestFederatedMethods(t *testing.T) {
	srv := federation(t, &peer{}, Config{})
	if r := do(t, srv, "POST", "/query_exemplars?dedup=true", "query=up&start=0&end=4000000000", "Content-Type", "application/x-www-form-urlencoded"); r.status != 200 || !strings.Contains(r.body, `"trace_id":"t"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	for _, path := range []string{"/rules", "/alerts", "/targets", "/metadata", "/status/tsdb"} {
		if r := do(t, srv, "POST", path, ""); r.status != 405 {
			t.Errorf("POST %s: %d", path, r.status)
		}
	}
}
