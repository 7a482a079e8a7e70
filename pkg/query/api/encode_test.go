package api

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/koios-metrics/koios/pkg/query"
)

// Shows how times and values are written, up to the ends of their scales.
func TestAppendPoint(t *testing.T) {
	f := func(at int64, v float64, want string) {
		t.Helper()
		got := string(appendPoint(nil, at, v))
		if got != want || !json.Valid([]byte(got)) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f(0, 0, `[0,"0"]`)
	f(1, 1, `[0.001,"1"]`)
	f(-1, -1.5, `[-0.001,"-1.5"]`)
	f(1_500, 1e20, `[1.500,"100000000000000000000"]`)
	f(1_700_006_400_010, 1e21, `[1700006400.010,"1e+21"]`)
	f(-12_345, 1e-6, `[-12.345,"0.000001"]`)
	f(60_000, 9.9e-7, `[60,"9.9e-07"]`)
	f(math.MaxInt64, math.NaN(), `[9223372036854775.807,"NaN"]`)
	f(math.MinInt64, math.Inf(-1), `[-9223372036854775.808,"-Inf"]`)
	f(1_000, math.Copysign(0, -1), `[1,"-0"]`)
}

// Shows that an answer of many pieces arrives whole.
func TestPieces(t *testing.T) {
	m := matrix(50, 2_000)
	var w countingWriter
	e := newEncoder(&w)
	e.value(m)
	if err := e.flush(); err != nil {
		t.Fatal(err)
	}
	var got []struct {
		Metric map[string]string
		Values [][2]any
	}
	if err := json.Unmarshal(w.b, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 50 || len(got[49].Values) != 2_000 || got[49].Values[1_999][1] != "50998.5" || got[49].Metric["i"] != "49" {
		t.Errorf("%d series", len(got))
	}
	if w.n < 2 || w.most > 2*sendAt {
		t.Errorf("%d pieces, the largest of %d bytes", w.n, w.most)
	}
}

type countingWriter struct {
	b       []byte
	n, most int
}

func (w *countingWriter) Write(b []byte) (int, error) {
	w.b = append(w.b, b...)
	w.n, w.most = w.n+1, max(w.most, len(b))
	return len(b), nil
}

func matrix(series, points int) promql.Matrix {
	m := make(promql.Matrix, series)
	for i := range m {
		m[i].Metric = labels.FromStrings("__name__", "requests_total", "i", fmt.Sprint(i), "job", "api")
		for j := range points {
			m[i].Floats = append(m[i].Floats, promql.FPoint{T: int64(j) * 15_000, F: float64(i*1_000+j) - 0.5})
		}
	}
	return m
}

// ns/sample of writing a range query's answer.
func BenchmarkEncode(b *testing.B) {
	m := matrix(100, 1_000)
	d := &queryData{result: &query.Result{Value: m}, analysis: struct{}{}}
	b.ReportAllocs()
	for b.Loop() {
		e := newEncoder(io.Discard)
		e.queryData(d)
		if err := e.flush(); err != nil {
			b.Fatal(err)
		}
		e.release()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/sample")
}
