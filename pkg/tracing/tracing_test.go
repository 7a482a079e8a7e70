package tracing

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Each documented configuration is read; each fault is refused with its cause; back ends that can't be
// written to leave the process without traces and say so once.
func TestConfigs(t *testing.T) {
	f := func(content, wantErr, wantLog string, enabled bool) {
		t.Helper()
		var logs bytes.Buffer
		p, err := New(t.Context(), []byte(content), "query", log.NewLogfmtLogger(&logs))
		if wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), wantErr) {
				t.Errorf("%s: %v: want %q", content, err, wantErr)
			}
			return
		}
		if err != nil {
			t.Errorf("%s: %v", content, err)
			return
		}
		if p.Enabled() != enabled {
			t.Errorf("%s: enabled %v", content, p.Enabled())
		}
		if !strings.Contains(logs.String(), wantLog) || wantLog == "" && logs.Len() > 0 {
			t.Errorf("%s: log %q: want %q", content, logs.String(), wantLog)
		}
		if err := p.Shutdown(); err != nil {
			t.Error(err)
		}
	}
	f("", "", "", false)
	f("\n  \n", "", "", false)
	f("type: OTLP\nconfig: {client_type: grpc, endpoint: 'localhost:4317', insecure: true}", "", "", true)
	f(`"type": "otlp"`+"\n"+`"config": {"client_type": "http", "endpoint": "localhost:4318", "insecure": true, "compression": "gzip", "retry_config": {"retry_enabled": true}, "headers": {"a": "b"}, "timeout": "5s", "sampler_type": "traceidratiobased", "sampler_param": "0.5"}`, "", "", true)
	f("type: JAEGER\nconfig: {endpoint: 'http://localhost:14268/api/traces', sampler_type: const, sampler_param: 1, tags: 'a=b', rpc_metrics: true, disabled: false, traceid_128bit: true}", "", "", true)
	f("type: JAEGER\nconfig: {endpoint: 'http://localhost:14268/api/traces', sampler_type: remote, sampler_manager_host_port: 'localhost:1', sampler_refresh_interval: 1m}", "", "", true)
	f("type: JAEGER\nconfig: {endpoint: 'http://localhost:14268/api/traces'}", "", "samples nothing", true)
	f("type: JAEGER\nconfig: {agent_host: a, sampler_type: const}", "", "agent (a:6831) is not supported", false)
	f("type: LIGHTSTEP\nconfig: {access_token: x, collector: {scheme: http, host: localhost, port: 1}}", "", "", true)
	f("type: GOOGLE_CLOUD\nconfig: {project_id: p, sample_factor: 16}", "", "GOOGLE_CLOUD is not supported", false)
	f("type: STACKDRIVER\nconfig: {project_id: p}", "", "STACKDRIVER is not supported", false)
	f("type: ELASTIC_APM\nconfig: {sample_rate: 0.5}", "", "ELASTIC_APM is not supported", false)

	f("typ: OTLP", "typ", "", false)
	f("config: {}", "type is missing", "", false)
	f("type: ZIPKIN", "unknown type", "", false)
	f("type: OTLP\nconfig: {}", "client_type", "", false)
	f("type: OTLP\nconfig: {client_type: grpc, sampler_type: often}", `sampler_type "often"`, "", false)
	f("type: OTLP\nconfig: {client_type: grpc, sampler_param: x}", `"x" is no number`, "", false)
	f("type: OTLP\nconfig: {client_type: grpc, timeout: soon}", "soon", "", false)
	f("type: OTLP\nconfig: {client_type: grpc, tls_config: {ca_file: /nowhere/ca}}", "tls_config", "", false)
	f("type: OTLP\nconfig: {client_type: grpc, compression: zip}", "zip", "", false)
	f("type: JAEGER\nconfig: {endpoint: nowhere}", "no URL", "", false)
	f("type: JAEGER\nconfig: {endpoint: 'http://a', user: u}", "without a password", "", false)
	f("type: JAEGER\nconfig: {endpoint: 'http://a', sampler_type: x}", `sampler_type "x"`, "", false)
	f("type: JAEGER\nconfig: {endpoint: 'http://a', sampler_type: const, tags: 'a'}", "no key=value", "", false)
	f("type: LIGHTSTEP\nconfig: {}", "access_token", "", false)
}

// Spans reach an OTLP collector under the documented service name with the attributes of the
// configuration and of the environment; nothing is sampled except what a client forces, and its answer
// names the trace. The wish travels on as baggage.
func TestForcedTraceOverOTLP(t *testing.T) {
	got := make(chan *collector.ExportTraceServiceRequest, 1)
	back := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &req); err != nil {
			t.Error(err)
		}
		got <- &req
	}))
	defer back.Close()
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment=test")
	config := fmt.Sprintf("type: OTLP\nconfig: {client_type: http, endpoint: %q, insecure: true, sampler_type: neversample, resource_attributes: {own: attr}}", strings.TrimPrefix(back.URL, "http://"))
	p, err := New(t.Context(), []byte(config), "query", log.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	carried := propagation.MapCarrier{}
	h := p.Handler("/query", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p.Propagator().Inject(r.Context(), carried)
	}))

	plain := httptest.NewRecorder()
	h.ServeHTTP(plain, httptest.NewRequest(http.MethodGet, "/", nil))
	if id := plain.Header().Get(TraceIDHeader); id != "" {
		t.Errorf("a request that is not sampled has trace id %s", id)
	}
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set(ForceHeader, "1")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	id := rec.Header().Get(TraceIDHeader)
	if len(id) != 32 {
		t.Fatalf("trace id %q", id)
	}
	if !strings.Contains(carried["baggage"], "x-thanos-force-tracing=") || !strings.Contains(carried["traceparent"], id) {
		t.Errorf("carried on: %v", carried)
	}
	// Another process sees only what was carried.
	ctx := p.Propagator().Extract(context.Background(), propagation.MapCarrier{"baggage": carried["baggage"]})
	_, span := p.Tracers().Tracer("t").Start(ctx, "s")
	if !span.SpanContext().IsSampled() {
		t.Error("the baggage does not force sampling")
	}
	span.End()
	if err := p.Shutdown(); err != nil {
		t.Fatal(err)
	}
	r := <-got
	attrs := map[string]string{}
	for _, kv := range r.ResourceSpans[0].Resource.Attributes {
		attrs[kv.Key] = kv.Value.GetStringValue()
	}
	for k, want := range map[string]string{"service.name": "thanos-query", "deployment": "test", "own": "attr"} {
		if attrs[k] != want {
			t.Errorf("resource attribute %s is %q: want %q", k, attrs[k], want)
		}
	}
}

// Spans reach a Jaeger collector as a Thrift batch with the right service, ids, times and tags.
func TestJaegerCollector(t *testing.T) {
	type received struct {
		body        []byte
		contentType string
		user        string
	}
	got := make(chan received, 1)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		user, _, _ := r.BasicAuth()
		got <- received{body, r.Header.Get("Content-Type"), user}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer back.Close()
	t.Setenv("NOT_THERE", "")
	config := fmt.Sprintf("type: JAEGER\nconfig: {endpoint: %q, user: u, password: p, sampler_type: const, sampler_param: 1, tags: 'site=${NOT_THERE:home}'}", back.URL)
	p, err := New(t.Context(), []byte(config), "sidecar", log.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	ctx, parent := p.Tracers().Tracer("scope").Start(t.Context(), "parent")
	_, span := p.Tracers().Tracer("scope").Start(ctx, "op", trace.WithSpanKind(trace.SpanKindServer), trace.WithLinks(trace.LinkFromContext(ctx)))
	span.SetAttributes(attribute.Int64("n", 7), attribute.Float64("f", 1.5), attribute.Bool("b", true), attribute.StringSlice("l", []string{"x", "y"}))
	span.AddEvent("happened", trace.WithAttributes(attribute.String("k", "v")))
	span.SetStatus(otelcodes.Error, "broke")
	span.End()
	parent.End()
	if err := p.Shutdown(); err != nil {
		t.Fatal(err)
	}
	r := <-got
	if r.contentType != "application/x-thrift" || r.user != "u" {
		t.Errorf("content type %q, user %q", r.contentType, r.user)
	}
	rest := r.body
	batch := readStruct(t, &rest)
	if len(rest) != 0 {
		t.Errorf("%d bytes after the batch", len(rest))
	}
	process := batch[1].(map[uint16]any)
	if process[1] != "thanos-sidecar" || readTags(process[2])["site"] != "home" {
		t.Errorf("process %v", process)
	}
	s := batch[2].([]any)[0].(map[uint16]any)
	tid, sid, pid := span.SpanContext().TraceID(), span.SpanContext().SpanID(), parent.SpanContext().SpanID()
	want := map[uint16]any{
		1: int64(binary.BigEndian.Uint64(tid[8:])), 2: int64(binary.BigEndian.Uint64(tid[:8])),
		3: int64(binary.BigEndian.Uint64(sid[:])), 4: int64(binary.BigEndian.Uint64(pid[:])), 5: "op", 7: int32(1),
	}
	for id, w := range want {
		if s[id] != w {
			t.Errorf("span field %d is %v: want %v", id, s[id], w)
		}
	}
	wantTags := map[string]any{
		"n": int64(7), "f": 1.5, "b": true, "l": `["x","y"]`, "span.kind": "server", "error": true,
		"otel.status_code": "ERROR", "otel.status_description": "broke", "otel.scope.name": "scope",
	}
	if d := cmp.Diff(wantTags, readTags(s[10])); d != "" {
		t.Errorf("tags (-want +got):\n%s", d)
	}
	event := s[11].([]any)[0].(map[uint16]any)
	if d := cmp.Diff(map[string]any{"event": "happened", "k": "v"}, readTags(event[2])); d != "" {
		t.Errorf("event (-want +got):\n%s", d)
	}
}

// readStruct decodes a Thrift struct in the binary protocol, independently of the encoder.
func readStruct(t *testing.T, b *[]byte) map[uint16]any {
	t.Helper()
	m := map[uint16]any{}
	for {
		typ := (*b)[0]
		*b = (*b)[1:]
		if typ == 0 {
			return m
		}
		id := binary.BigEndian.Uint16(*b)
		*b = (*b)[2:]
		m[id] = readValue(t, b, typ)
	}
}

func readValue(t *testing.T, b *[]byte, typ byte) any {
	t.Helper()
	take := func(n int) []byte {
		v := (*b)[:n]
		*b = (*b)[n:]
		return v
	}
	switch typ {
	case 2:
		return take(1)[0] == 1
	case 4:
		var f float64
		if err := binary.Read(bytes.NewReader(take(8)), binary.BigEndian, &f); err != nil {
			t.Fatal(err)
		}
		return f
	case 8:
		return int32(binary.BigEndian.Uint32(take(4)))
	case 10:
		return int64(binary.BigEndian.Uint64(take(8)))
	case 11:
		return string(take(int(binary.BigEndian.Uint32(take(4)))))
	case 12:
		return readStruct(t, b)
	case 15:
		elem, n := take(1)[0], int(binary.BigEndian.Uint32(take(4)))
		var l []any
		for range n {
			l = append(l, readValue(t, b, elem))
		}
		return l
	}
	t.Fatalf("unknown type %d", typ)
	return nil
}

func readTags(list any) map[string]any {
	m := map[string]any{}
	for _, e := range list.([]any) {
		tag := e.(map[uint16]any)
		// The type of a tag says which field has its value.
		m[tag[1].(string)] = tag[map[int32]uint16{0: 3, 1: 4, 2: 5, 3: 6}[tag[2].(int32)]]
	}
	return m
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("type: OTLP\nconfig: {client_type: http, endpoint: 'localhost:4318', insecure: true}"))
	f.Add([]byte("type: JAEGER\nconfig: {endpoint: 'http://localhost:14268/api/traces', tags: 'a=${B:c}'}"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if strings.Contains(strings.ToLower(string(b)), "remote") {
			return // would poll a server
		}
		p, err := New(context.Background(), b, "query", log.NewNopLogger())
		if err == nil {
			_ = p.Shutdown()
		}
	})
}
