package tracing

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// jaegerCollector writes spans to a Jaeger collector: batches of Jaeger's Thrift schema in Thrift's
// binary protocol, by HTTP POST. OpenTelemetry's own exporter for it was withdrawn, and a collector given
// by its Thrift address takes nothing else there.
type jaegerCollector struct {
	url            string
	user, password string
	client         *http.Client
}

func newJaegerCollector(endpoint, user, password string) (*jaegerCollector, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("endpoint %q is no URL like http://host:14268/api/traces", endpoint)
	}
	if user != "" && password == "" {
		return nil, fmt.Errorf("user %q is given without a password", user)
	}
	return &jaegerCollector{url: endpoint, user: user, password: password, client: &http.Client{}}, nil
}

// ExportSpans implements sdktrace.SpanExporter. The batching processor bounds it in time.
func (c *jaegerCollector) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if len(spans) == 0 {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(jaegerBatch(spans)))
	if err != nil {
		return fmt.Errorf("write spans to %s: %w", c.url, err)
	}
	req.Header.Set("Content-Type", "application/x-thrift")
	if c.user != "" {
		req.SetBasicAuth(c.user, c.password)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("write spans: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("write spans to %s: collector answers %s", c.url, resp.Status)
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (c *jaegerCollector) Shutdown(context.Context) error {
	c.client.CloseIdleConnections()
	return nil
}

// thrift appends values in Thrift's binary protocol: a field is its type (1 byte), its id (2) and its
// value; a struct ends with a zero byte; lengths are 4 bytes; all big-endian.
type thrift []byte

// Type bytes of the protocol.
const (
	thriftBool   = 2
	thriftDouble = 4
	thriftI32    = 8
	thriftI64    = 10
	thriftString = 11
	thriftStruct = 12
	thriftList   = 15
)

func (b *thrift) field(typ byte, id uint16) { *b = binary.BigEndian.AppendUint16(append(*b, typ), id) }
func (b *thrift) u32(v uint32)              { *b = binary.BigEndian.AppendUint32(*b, v) }
func (b *thrift) u64(v uint64)              { *b = binary.BigEndian.AppendUint64(*b, v) }
func (b *thrift) end()                      { *b = append(*b, 0) }

func (b *thrift) str(id uint16, s string) {
	b.field(thriftString, id)
	b.u32(uint32(len(s)))
	*b = append(*b, s...)
}

func (b *thrift) i32(id uint16, v int32) { b.field(thriftI32, id); b.u32(uint32(v)) }
func (b *thrift) i64(id uint16, v int64) { b.field(thriftI64, id); b.u64(uint64(v)) }

func (b *thrift) structs(id uint16, n int) {
	b.field(thriftList, id)
	*b = append(*b, thriftStruct)
	b.u32(uint32(n))
}

// jaegerBatch is struct Batch {1: Process, 2: list<Span>}. All spans of a provider share a resource.
func jaegerBatch(spans []sdktrace.ReadOnlySpan) []byte {
	var b thrift
	b.field(thriftStruct, 1)
	b.process(spans[0].Resource().Attributes())
	b.structs(2, len(spans))
	for _, s := range spans {
		b.span(s)
	}
	b.end()
	return b
}

// process is struct Process {1: serviceName, 2: list<Tag>}.
func (b *thrift) process(attrs []attribute.KeyValue) {
	name := "unknown"
	var tags []attribute.KeyValue
	for _, a := range attrs {
		if a.Key == "service.name" {
			name = a.Value.AsString()
			continue
		}
		tags = append(tags, a)
	}
	b.str(1, name)
	b.tags(2, tags)
	b.end()
}

// span is struct Span {1: traceIdLow, 2: traceIdHigh, 3: spanId, 4: parentSpanId, 5: operationName,
// 6: list<SpanRef>, 7: flags, 8: startTime µs, 9: duration µs, 10: list<Tag>, 11: list<Log>}.
func (b *thrift) span(s sdktrace.ReadOnlySpan) {
	tid, sid, pid := s.SpanContext().TraceID(), s.SpanContext().SpanID(), s.Parent().SpanID()
	b.i64(1, int64(binary.BigEndian.Uint64(tid[8:])))
	b.i64(2, int64(binary.BigEndian.Uint64(tid[:8])))
	b.i64(3, int64(binary.BigEndian.Uint64(sid[:])))
	b.i64(4, int64(binary.BigEndian.Uint64(pid[:])))
	b.str(5, s.Name())
	if links := s.Links(); len(links) > 0 {
		b.structs(6, len(links))
		for _, l := range links {
			b.link(l.SpanContext)
		}
	}
	b.i32(7, int32(s.SpanContext().TraceFlags()))
	b.i64(8, s.StartTime().UnixMicro())
	b.i64(9, s.EndTime().Sub(s.StartTime()).Microseconds())
	b.tags(10, spanTags(s))
	if events := s.Events(); len(events) > 0 {
		b.structs(11, len(events))
		for _, e := range events {
			b.i64(1, e.Time.UnixMicro())
			b.tags(2, append([]attribute.KeyValue{attribute.String("event", e.Name)}, e.Attributes...))
			b.end()
		}
	}
	b.end()
}

// link is struct SpanRef {1: refType (1 is "follows from"), 2: traceIdLow, 3: traceIdHigh, 4: spanId}.
func (b *thrift) link(sc trace.SpanContext) {
	tid, sid := sc.TraceID(), sc.SpanID()
	b.i32(1, 1)
	b.i64(2, int64(binary.BigEndian.Uint64(tid[8:])))
	b.i64(3, int64(binary.BigEndian.Uint64(tid[:8])))
	b.i64(4, int64(binary.BigEndian.Uint64(sid[:])))
	b.end()
}

func spanTags(s sdktrace.ReadOnlySpan) []attribute.KeyValue {
	tags := append([]attribute.KeyValue(nil), s.Attributes()...)
	tags = append(tags, attribute.String("otel.scope.name", s.InstrumentationScope().Name))
	if k := s.SpanKind(); k != trace.SpanKindInternal {
		tags = append(tags, attribute.String("span.kind", k.String()))
	}
	if st := s.Status(); st.Code != codes.Unset {
		tags = append(tags, attribute.String("otel.status_code", map[codes.Code]string{codes.Error: "ERROR", codes.Ok: "OK"}[st.Code]))
		if st.Code == codes.Error {
			tags = append(tags, attribute.Bool("error", true))
		}
		if st.Description != "" {
			tags = append(tags, attribute.String("otel.status_description", st.Description))
		}
	}
	return tags
}

// tags is list<Tag {1: key, 2: type, 3: string, 4: double, 5: bool, 6: long}>; the types are string 0,
// double 1, bool 2, long 3.
func (b *thrift) tags(id uint16, attrs []attribute.KeyValue) {
	b.structs(id, len(attrs))
	for _, a := range attrs {
		b.str(1, string(a.Key))
		switch a.Value.Type() {
		case attribute.BOOL:
			b.i32(2, 2)
			b.field(thriftBool, 5)
			v := byte(0)
			if a.Value.AsBool() {
				v = 1
			}
			*b = append(*b, v)
		case attribute.INT64:
			b.i32(2, 3)
			b.i64(6, a.Value.AsInt64())
		case attribute.FLOAT64:
			b.i32(2, 1)
			b.field(thriftDouble, 4)
			b.u64(math.Float64bits(a.Value.AsFloat64()))
		default:
			b.i32(2, 0)
			b.str(3, a.Value.String())
		}
		b.end()
	}
}
