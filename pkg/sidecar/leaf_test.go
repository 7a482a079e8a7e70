package sidecar

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/koios-metrics/koios/proto/exemplarspb"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/metadatapb"
	"github.com/koios-metrics/koios/proto/rulespb"
	"github.com/koios-metrics/koios/proto/statuspb"
	"github.com/koios-metrics/koios/proto/storepb"
	"github.com/koios-metrics/koios/proto/targetspb"
)

// dial serves a sidecar over gRPC in memory.
func dial(t testing.TB, s *running) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	s.Register(srv)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	cc, err := grpc.NewClient("passthrough:///sidecar", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	check(t, err)
	t.Cleanup(func() {
		check(t, cc.Close())
		srv.Stop()
		check(t, <-served)
	})
	return cc
}

// drain reads a stream to its end.
func drain[T any](stream grpc.ServerStreamingClient[T], err error) ([]*T, error) {
	if err != nil {
		return nil, err
	}
	var all []*T
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, m)
	}
}

// texts is what a fake answers, cut from answers of Prometheus 3.
var texts = map[string]string{
	"/api/v1/rules": `{"status":"success","warnings":["careful"],"data":{"groups":[{"name":"g","file":"/r.yml","interval":15,"limit":7,"evaluationTime":0.25,"lastEvaluation":"2025-01-02T03:04:05.5Z","rules":[
		{"type":"alerting","state":"firing","name":"Down","query":"up == 0","duration":60,"keepFiringFor":5,"labels":{"severity":"page","cluster":"mine"},"annotations":{"text":"x"},
			"alerts":[{"labels":{"alertname":"Down","severity":"page"},"annotations":{"text":"x"},"state":"pending","activeAt":"2025-01-02T03:04:05Z","value":"0e+00"},{"labels":{},"annotations":{},"state":"odd","value":"1e+00"}],
			"health":"ok","evaluationTime":0.5,"lastEvaluation":"2025-01-02T03:04:05Z"},
		{"type":"recording","name":"a:b","query":"sum(b)","labels":{},"health":"err","lastError":"bad","evaluationTime":1,"lastEvaluation":"0001-01-01T00:00:00Z"}]}]}}`,
	"/api/v1/targets": `{"status":"success","data":{"activeTargets":[
		{"discoveredLabels":{"__address__":"h:1"},"labels":{"instance":"h:1","job":"j"},"scrapePool":"j","scrapeUrl":"http://h:1/metrics","globalUrl":"http://g:1/metrics","lastError":"","lastScrape":"2025-01-02T03:04:05Z","lastScrapeDuration":0.01,"health":"up"},
		{"discoveredLabels":{},"labels":{},"lastError":"refused","lastScrape":"0001-01-01T00:00:00Z","health":"down"},{"discoveredLabels":{},"labels":{},"lastScrape":"0001-01-01T00:00:00Z","health":"unknown"}],
		"droppedTargets":[{"discoveredLabels":{"__address__":"d:1"}}]}}`,
	"/api/v1/metadata":        `{"status":"success","data":{"up":[{"type":"gauge","help":"h","unit":"s"},{"type":"counter","help":"","unit":""}]}}`,
	"/api/v1/query_exemplars": `{"status":"success","data":[{"seriesLabels":{"__name__":"x","replica":"stored"},"exemplars":[{"labels":{"trace_id":"1"},"value":"6","timestamp":1600096945.479}]},{"seriesLabels":{"__name__":"y"},"exemplars":[]}]}`,
	"/api/v1/status/tsdb": `{"status":"success","data":{"headStats":{"numSeries":5,"numLabelPairs":6,"chunkCount":7,"minTime":8,"maxTime":9},
		"seriesCountByMetricName":[{"name":"up","value":2}],"labelValueCountByLabelName":[{"name":"job","value":3}],"memoryInBytesByLabelName":[{"name":"job","value":4}],"seriesCountByLabelValuePair":[{"name":"job=j","value":5}]}}`,
}

// startLeaf makes a sidecar that is ready, and a connection to it.
func startLeaf(t *testing.T) (*fake, *running, *grpc.ClientConn) {
	t.Helper()
	f := newFake()
	for path, text := range texts {
		f.set(path, text)
	}
	srv := newServer(t, f)
	srv.start()
	s := run(t, srv.addr)
	eventually(t, "readiness", s.probe.isReady)
	return f, s, dial(t, s)
}

const externalText = `labels: {name: "cluster" value: "one"} labels: {name: "replica" value: "a"}`

func equal[T proto.Message](t *testing.T, text string, got T) {
	t.Helper()
	want := got.ProtoReflect().New().Interface()
	check(t, prototext.Unmarshal([]byte(strings.ReplaceAll(text, "EXTERNAL", externalText)), want))
	if diff := cmp.Diff(want, proto.Message(got), protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Shows every field of the rules that come through: external labels on rules and over theirs, none on alert
// instances; warnings of Prometheus are passed on; only the type is filtered by.
func TestRules(t *testing.T) {
	f, _, cc := startLeaf(t)
	client := rulespb.NewRulesClient(cc)
	got, err := drain(client.Rules(context.Background(), &rulespb.RulesRequest{Type: rulespb.RulesRequest_ALERT, RuleName: []string{"x"}}))
	check(t, err)
	if len(got) != 2 {
		t.Fatalf("%d frames", len(got))
	}
	equal(t, `warning: "careful"`, got[0])
	equal(t, `group: {
		name: "g" file: "/r.yml" interval: 15 limit: 7 evaluation_duration_seconds: 0.25 last_evaluation: {seconds: 1735787045 nanos: 500000000} PartialResponseStrategy: ABORT
		rules: {alert: {
			state: FIRING name: "Down" query: "up == 0" duration_seconds: 60 keep_firing_for_seconds: 5 health: "ok" evaluation_duration_seconds: 0.5 last_evaluation: {seconds: 1735787045}
			labels: {EXTERNAL labels: {name: "severity" value: "page"}} annotations: {labels: {name: "text" value: "x"}}
			alerts: {labels: {labels: {name: "alertname" value: "Down"} labels: {name: "severity" value: "page"}} annotations: {labels: {name: "text" value: "x"}} state: PENDING active_at: {seconds: 1735787045} value: "0e+00"}
			alerts: {labels: {} annotations: {} state: UNKNOWN value: "1e+00"}
		}}
		rules: {recording: {name: "a:b" query: "sum(b)" labels: {EXTERNAL} health: "err" last_error: "bad" evaluation_duration_seconds: 1 last_evaluation: {seconds: -62135596800}}}
	}`, got[1])

	for typ, want := range map[rulespb.RulesRequest_Type]string{rulespb.RulesRequest_ALL: "", rulespb.RulesRequest_ALERT: "alert", rulespb.RulesRequest_RECORD: "record"} {
		_, err := drain(client.Rules(context.Background(), &rulespb.RulesRequest{Type: typ}))
		check(t, err)
		if got := f.lastAsked("/api/v1/rules").Get("type"); got != want {
			t.Errorf("type %v asks for %q, want %q", typ, got, want)
		}
	}
}

// Shows every field of the targets that come through, with external labels on all their label sets.
func TestTargets(t *testing.T) {
	f, _, cc := startLeaf(t)
	client := targetspb.NewTargetsClient(cc)
	got, err := drain(client.Targets(context.Background(), &targetspb.TargetsRequest{}))
	check(t, err)
	if len(got) != 1 {
		t.Fatalf("%d frames", len(got))
	}
	equal(t, `targets: {
		activeTargets: {discoveredLabels: {labels: {name: "__address__" value: "h:1"} EXTERNAL} labels: {labels: {name: "cluster" value: "one"} labels: {name: "instance" value: "h:1"} labels: {name: "job" value: "j"} labels: {name: "replica" value: "a"}}
			scrapePool: "j" scrapeUrl: "http://h:1/metrics" globalUrl: "http://g:1/metrics" lastScrape: {seconds: 1735787045} lastScrapeDuration: 0.01 health: UP}
		activeTargets: {discoveredLabels: {EXTERNAL} labels: {EXTERNAL} lastError: "refused" lastScrape: {seconds: -62135596800} health: DOWN}
		activeTargets: {discoveredLabels: {EXTERNAL} labels: {EXTERNAL} lastScrape: {seconds: -62135596800} health: TARGET_UNKNOWN}
		droppedTargets: {discoveredLabels: {labels: {name: "__address__" value: "d:1"} EXTERNAL}}
	}`, got[0])
	for state, want := range map[targetspb.TargetsRequest_State]string{targetspb.TargetsRequest_ANY: "any", targetspb.TargetsRequest_ACTIVE: "active", targetspb.TargetsRequest_DROPPED: "dropped"} {
		_, err := drain(client.Targets(context.Background(), &targetspb.TargetsRequest{State: state}))
		check(t, err)
		if got := f.lastAsked("/api/v1/targets").Get("state"); got != want {
			t.Errorf("state %v asks for %q, want %q", state, got, want)
		}
	}
}

// Shows that metadata comes through, with the metric and the limit that were asked for.
func TestMetadata(t *testing.T) {
	f, _, cc := startLeaf(t)
	client := metadatapb.NewMetadataClient(cc)
	got, err := drain(client.MetricMetadata(context.Background(), &metadatapb.MetricMetadataRequest{Metric: "up", Limit: 3}))
	check(t, err)
	if len(got) != 1 {
		t.Fatalf("%d frames", len(got))
	}
	equal(t, `metadata: {metadata: {key: "up" value: {metas: {type: "gauge" help: "h" unit: "s"} metas: {type: "counter"}}}}`, got[0])
	if diff := cmp.Diff(url.Values{"metric": {"up"}, "limit": {"3"}}, f.lastAsked("/api/v1/metadata")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err = drain(client.MetricMetadata(context.Background(), &metadatapb.MetricMetadataRequest{Limit: -1}))
	check(t, err)
	if got := f.lastAsked("/api/v1/metadata"); len(got) > 0 {
		t.Errorf("no limit asks for %v", got)
	}
}

// Shows that exemplars come through one frame per series, with external labels over those of the series.
func TestExemplars(t *testing.T) {
	f, _, cc := startLeaf(t)
	got, err := drain(exemplarspb.NewExemplarsClient(cc).Exemplars(context.Background(), &exemplarspb.ExemplarsRequest{Query: `{a="b"}`, Start: 1500, End: 2000}))
	check(t, err)
	if len(got) != 2 {
		t.Fatalf("%d frames", len(got))
	}
	equal(t, `data: {seriesLabels: {labels: {name: "__name__" value: "x"} EXTERNAL} exemplars: {labels: {labels: {name: "trace_id" value: "1"}} value: 6 ts: 1600096945479}}`, got[0])
	equal(t, `data: {seriesLabels: {labels: {name: "__name__" value: "y"} EXTERNAL}}`, got[1])
	if diff := cmp.Diff(url.Values{"query": {`{a="b"}`}, "start": {"1.500"}, "end": {"2"}}, f.lastAsked("/api/v1/query_exemplars")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Shows that statistics come under the tenant without a name, that matchers are held against external labels
// of which one that does not match leaves the answer empty, and that a broken matcher is the caller's fault.
func TestStatus(t *testing.T) {
	f, _, cc := startLeaf(t)
	client := statuspb.NewStatusClient(cc)
	ask := func(ms ...*storepb.LabelMatcher) *statuspb.TSDBStatisticsResponse {
		t.Helper()
		got, err := drain(client.TSDBStatistics(context.Background(), &statuspb.TSDBStatisticsRequest{Limit: 4, Matchers: ms}))
		check(t, err)
		if len(got) != 1 {
			t.Fatalf("%d frames", len(got))
		}
		return got[0]
	}
	const full = `statistics: {statistics: {key: "" value: {
		head_statistics: {num_series: 5 num_label_pairs: 6 chunk_count: 7 min_time: 8 max_time: 9}
		series_count_by_metric_name: {name: "up" value: 2} label_value_count_by_label_name: {name: "job" value: 3}
		memory_in_bytes_by_label_name: {name: "job" value: 4} series_count_by_label_value_pair: {name: "job=j" value: 5}
	}}}`
	equal(t, full, ask())
	if got := f.lastAsked("/api/v1/status/tsdb").Get("limit"); got != "4" {
		t.Errorf("limit %q", got)
	}
	equal(t, full, ask(&storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "replica", Value: "a|b"}, &storepb.LabelMatcher{Name: "none"}))
	equal(t, `statistics: {}`, ask(&storepb.LabelMatcher{Name: "cluster", Value: "one"}, &storepb.LabelMatcher{Type: storepb.LabelMatcher_NEQ, Name: "replica", Value: "a"}))
	equal(t, `statistics: {}`, ask(&storepb.LabelMatcher{Name: "none", Value: "x"}))

	_, err := drain(client.TSDBStatistics(context.Background(), &statuspb.TSDBStatisticsRequest{Matchers: []*storepb.LabelMatcher{{Type: storepb.LabelMatcher_RE, Name: "a", Value: "("}}}))
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("broken matcher: %v", err)
	}
}

// Shows what becomes of each service's failures: with WARN a warning and a regular end, with ABORT an error
// whose code says what to do; a request that Prometheus refuses is an error either way.
func TestFailures(t *testing.T) {
	f, s, cc := startLeaf(t)
	ctx := context.Background()
	calls := map[string]func(storepb.PartialResponseStrategy) (string, error){
		"/api/v1/rules": func(p storepb.PartialResponseStrategy) (string, error) {
			got, err := drain(rulespb.NewRulesClient(cc).Rules(ctx, &rulespb.RulesRequest{PartialResponseStrategy: p}))
			return warning(got, (*rulespb.RulesResponse).GetWarning), err
		},
		"/api/v1/targets": func(p storepb.PartialResponseStrategy) (string, error) {
			got, err := drain(targetspb.NewTargetsClient(cc).Targets(ctx, &targetspb.TargetsRequest{PartialResponseStrategy: p}))
			return warning(got, (*targetspb.TargetsResponse).GetWarning), err
		},
		"/api/v1/metadata": func(p storepb.PartialResponseStrategy) (string, error) {
			got, err := drain(metadatapb.NewMetadataClient(cc).MetricMetadata(ctx, &metadatapb.MetricMetadataRequest{PartialResponseStrategy: p}))
			return warning(got, (*metadatapb.MetricMetadataResponse).GetWarning), err
		},
		"/api/v1/query_exemplars": func(p storepb.PartialResponseStrategy) (string, error) {
			got, err := drain(exemplarspb.NewExemplarsClient(cc).Exemplars(ctx, &exemplarspb.ExemplarsRequest{PartialResponseStrategy: p}))
			return warning(got, (*exemplarspb.ExemplarsResponse).GetWarning), err
		},
		"/api/v1/status/tsdb": func(p storepb.PartialResponseStrategy) (string, error) {
			got, err := drain(statuspb.NewStatusClient(cc).TSDBStatistics(ctx, &statuspb.TSDBStatisticsRequest{PartialResponseStrategy: p}))
			return warning(got, (*statuspb.TSDBStatisticsResponse).GetWarning), err
		},
	}
	expect := func(path string, httpStatus int, p storepb.PartialResponseStrategy, wantWarning string, want codes.Code) {
		t.Helper()
		f.setStatus(path, httpStatus)
		w, err := calls[path](p)
		if status.Code(err) != want || (w == "") != (wantWarning == "") || !strings.Contains(w, wantWarning) {
			t.Errorf("%s with %d, %v: warning %q, error %v", path, httpStatus, p, w, err)
		}
	}
	for path := range calls {
		expect(path, 503, storepb.PartialResponseStrategy_WARN, "503", codes.OK)
		expect(path, 503, storepb.PartialResponseStrategy_ABORT, "", codes.Unavailable)
		expect(path, 500, storepb.PartialResponseStrategy_WARN, "500", codes.OK)
		expect(path, 500, storepb.PartialResponseStrategy_ABORT, "", codes.Internal)
		expect(path, 400, storepb.PartialResponseStrategy_WARN, "", codes.InvalidArgument)
	}

	// Without external labels there is nothing to say about anyone.
	f.setConfig(`global: {}\n`)
	eventually(t, "the loss of labels", func() bool { return s.known.externalLabels().IsEmpty() })
	for path := range calls {
		if path == "/api/v1/metadata" {
			continue // It has no labels.
		}
		expect(path, 0, storepb.PartialResponseStrategy_WARN, "external_labels", codes.OK)
		expect(path, 0, storepb.PartialResponseStrategy_ABORT, "", codes.Unavailable)
	}
}

func warning[T any](frames []*T, get func(*T) string) string {
	var all string
	for _, f := range frames {
		if w := get(f); w != "careful" {
			all += w
		}
	}
	return all
}

// Shows that a caller who goes away ends the call to Prometheus, too, and that Info goes over the wire.
func TestCallerGoesAway(t *testing.T) {
	f, _, cc := startLeaf(t)
	info, err := infopb.NewInfoClient(cc).Info(context.Background(), &infopb.InfoRequest{})
	check(t, err)
	equal(t, `label_sets: {EXTERNAL} ComponentType: "sidecar" store: {min_time: 1000000 max_time: 9223372036854775807 supports_sharding: true supports_without_replica_labels: true chunks_name_replicas: true
		tsdb_infos: {labels: {EXTERNAL} min_time: 1000000 max_time: 9223372036854775807}} rules: {} targets: {} metric_metadata: {} exemplars: {} status: {}`, info)

	slow := make(chan struct{})
	defer close(slow)
	f.setSlow(slow)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := drain(targetspb.NewTargetsClient(cc).Targets(ctx, &targetspb.TargetsRequest{}))
		done <- err
	}()
	eventually(t, "the call", func() bool { return f.lastAsked("/api/v1/targets") != nil })
	cancel()
	if err := <-done; status.Code(err) != codes.Canceled {
		t.Fatalf("error %v", err)
	}
}
