package matrix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// plainAnswer is an answer as encoding/json sees it.
type plainAnswer struct {
	Status string `json:"status"`
	Data   struct {
		ResultType string            `json:"resultType"`
		Result     []plainSeries     `json:"result"`
		Stats      json.RawMessage   `json:"stats,omitempty"`
		Analysis   map[string]string `json:"analysis,omitempty"`
	} `json:"data"`
	Warnings []string `json:"warnings,omitempty"`
	Infos    []string `json:"infos,omitempty"`
}

type plainSeries struct {
	Metric     map[string]string    `json:"metric"`
	Values     [][2]json.RawMessage `json:"values,omitempty"`
	Histograms [][2]json.RawMessage `json:"histograms,omitempty"`
}

func ms(p [2]json.RawMessage) int64 {
	f, _ := strconv.ParseFloat(string(p[0]), 64)
	return int64(f*1000 + 0.5)
}

// generate makes an answer on a grid from start in ms.
func generate(rnd *rand.Rand, start, step int64, steps, series int) plainAnswer {
	var a plainAnswer
	a.Status, a.Data.ResultType, a.Data.Result = "success", "matrix", []plainSeries{}
	for i := range series {
		s := plainSeries{Metric: map[string]string{"__name__": "up", "instance": fmt.Sprintf("host-%02d", i), "job": []string{"a", "ü\"\\\n", "<b>"}[rnd.IntN(3)]}}
		for k := range steps {
			t := json.RawMessage(strconv.FormatFloat(float64(start+int64(k)*step)/1000, 'f', -1, 64))
			switch rnd.IntN(6) {
			case 0:
			case 1:
				s.Histograms = append(s.Histograms, [2]json.RawMessage{t, json.RawMessage(`{"count":"3","sum":"1.5","buckets":[[0,"1","2","3"],[3,"-1","2","0.5"]]}`)})
			default:
				s.Values = append(s.Values, [2]json.RawMessage{t, json.RawMessage(strconv.Quote([]string{"1", "NaN", "+Inf", "-3.5e-09"}[rnd.IntN(4)]))})
			}
		}
		if len(s.Values)+len(s.Histograms) > 0 {
			a.Data.Result = append(a.Data.Result, s)
		}
	}
	return a
}

func text(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t testing.TB, b []byte) *Answer {
	t.Helper()
	a, err := Decode(b)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return a
}

// plainOf writes an answer and reads it with encoding/json.
func plainOf(t testing.TB, a *Answer) plainAnswer {
	t.Helper()
	var buf bytes.Buffer
	if err := a.Encode(&buf); err != nil {
		t.Fatal(err)
	}
	var p plainAnswer
	if err := json.Unmarshal(buf.Bytes(), &p); err != nil {
		t.Fatalf("%v\n%s", err, buf.Bytes())
	}
	return p
}

func filter(a plainAnswer, keep func(t int64) bool) plainAnswer {
	series := a.Data.Result
	a.Data.Result = []plainSeries{}
	drop := func(p [2]json.RawMessage) bool { return !keep(ms(p)) }
	for _, s := range series {
		s.Values = slices.DeleteFunc(slices.Clone(s.Values), drop)
		s.Histograms = slices.DeleteFunc(slices.Clone(s.Histograms), drop)
		if len(s.Values) == 0 {
			s.Values = nil
		}
		if len(s.Histograms) == 0 {
			s.Histograms = nil
		}
		if len(s.Values)+len(s.Histograms) > 0 {
			a.Data.Result = append(a.Data.Result, s)
		}
	}
	return a
}

// Shows that cutting an answer anywhere, joining the parts in any order, overlapping ones too, and thinning it out leave
// the samples that the same done over decoded JSON leaves.
func TestCutAndJoin(t *testing.T) {
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		step := []int64{1, 250, 15_000, 3_600_000}[rnd.IntN(4)]
		start := []int64{0, 1_700_000_000_000, 1_700_000_000_123, -5 * step}[rnd.IntN(4)]
		if start < 0 {
			step = 15_000
			start = -75_000
		}
		steps := rnd.IntN(30)
		want := generate(rnd, start, step, steps, rnd.IntN(5))
		if start < 0 {
			continue // ms() rounds towards zero; times before 1970 have a test of their own
		}
		a := decode(t, text(t, want))
		if d := cmp.Diff(want, plainOf(t, a)); d != "" {
			t.Fatalf("seed %d: decoded and encoded: %s", seed, d)
		}
		end := start + int64(steps)*step
		from, to := start+rnd.Int64N(end-start+1), start+rnd.Int64N(end-start+1)
		if d := cmp.Diff(filter(want, func(t int64) bool { return t >= from && t <= to }), plainOf(t, a.Between(from, to))); d != "" {
			t.Fatalf("seed %d: between %d and %d: %s", seed, from, to, d)
		}
		n := 1 + rnd.Int64N(5)
		if d := cmp.Diff(filter(want, func(t int64) bool { return (t-start)%(n*step) == 0 }), plainOf(t, a.Every(start, n*step))); d != "" {
			t.Fatalf("seed %d: every %d: %s", seed, n, d)
		}
		var parts []*Answer
		for at := start; at <= end; {
			next := at + 1 + rnd.Int64N(end-start+1)
			overlap := rnd.Int64N(2) * rnd.Int64N(3*step)
			parts = append(parts, a.Between(at-overlap, next-1))
			at = next
		}
		parts = append(parts, a.Every(start, 2*step))
		rnd.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		if d := cmp.Diff(want, plainOf(t, Join(parts...))); d != "" {
			t.Fatalf("seed %d: joined of %d parts: %s", seed, len(parts), d)
		}
		if d := cmp.Diff(want, plainOf(t, a)); d != "" {
			t.Fatalf("seed %d: the answer itself changed: %s", seed, d)
		}
	}
}

// What is said beside the series is joined once each, and what stands in an answer besides is passed over or kept.
func TestBeside(t *testing.T) {
	a := decode(t, []byte(` { "data" : {"result":[ {"values":[[1,"2"]],"metric":{"b":"","a":"x"},"other":[{}]} ],"stats":{"samples":{}},"analysis":{},"resultType":"matrix", "x":null},
		"status":"success","warnings":["w","v"],"infos":["i"], "more":[true,false,-1.5e+3] } `))
	b := decode(t, []byte(`{"status":"success","data":{"resultType":"matrix","result":null},"warnings":["w"],"infos":["j"]}`))
	j := Join(a, b)
	if d := cmp.Diff([][]string{{"w", "v"}, {"i", "j"}}, [][]string{j.Warnings, j.Infos}); d != "" {
		t.Error(d)
	}
	if string(a.Stats) != `{"samples":{}}` || string(a.Analysis) != `{}` || j.Stats != nil {
		t.Errorf("stats %s, analysis %s, joined stats %s", a.Stats, a.Analysis, j.Stats)
	}
	if len(j.Series) != 1 || j.Series[0].Labels.Get("a") != "x" {
		t.Errorf("series %v", j.Series)
	}
	_, err := Decode([]byte(`{"status":"error","errorType":"execution","error":"too much","data":null,"warnings":["w"]}`))
	var f *Failure
	if !errors.As(err, &f) || f.Type != "execution" || f.Text != "too much" || len(f.Warnings) != 1 {
		t.Errorf("failure %v", err)
	}
}

// What is not the answer of a range query is refused, wherever it ends and whatever is wrong with it.
func TestRefused(t *testing.T) {
	whole := `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1.5,"2"],[3,"NaN"]],"histograms":[[2,{"count":"1","buckets":[[0,"1","2","3"]]}]]}]},"warnings":["w"]}`
	if _, err := Decode([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		if _, err := Decode([]byte(whole[:i])); !errors.Is(err, ErrSyntax) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	for _, c := range [][2]string{
		{`"matrix"`, `"vector"`},
		{`"success"`, `"well"`},
		{`[1.5,"2"]`, `[1.5,2]`},
		{`[1.5,"2"]`, `[1.5,"2","3"]`},
		{`[1.5,"2"]`, `[1.2345,"2"]`},
		{`[1.5,"2"]`, `[3,"2"]`},
		{`[1.5,"2"]`, `[01,"2"]`},
		{`[1.5,"2"]`, `[99999999999999999,"2"]`},
		{`[1.5,"2"]`, `["1.5","2"]`},
		{`[1.5,"2"]`, `[1.5,"\u0041"]`},
		{`{"a":"b"}`, `{"a":1}`},
		{`{"a":"b"}`, `{"a":"\x"}`},
		{`{"a":"b"}`, "{\"a\":\"\n\"}"},
		{`"metric":{"a":"b"},`, ``},
		{`"w"`, `1`},
		{`"result":[`, `"result":[{"metric":{"a":"b"},"values":[]},`},
		{`{"count":"1"`, `{"count":` + strings.Repeat("[", 1000)},
	} {
		if _, err := Decode([]byte(strings.Replace(whole, c[0], c[1], 1))); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s instead of %s: %v", c[1], c[0], err)
		}
	}
}

// Times before 1970 and fractions of a second are read to the millisecond.
func TestTimes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "-1": -1000, "-1.5": -1500, "1700000000.123": 1_700_000_000_123, "0.001": 1, "5.10": 5100} {
		s := scanner{b: []byte(text)}
		if got, err := s.time(); err != nil || got != want || s.at != len(text) {
			t.Errorf("%s: %d, %v, want %d", text, got, err, want)
		}
	}
}

// FuzzDecode shows that any bytes are refused or give an answer that encoding/json reads back the same.
func FuzzDecode(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 5 {
		f.Add(text(f, generate(rnd, 1_700_000_000_000, 15_000, 10, 3)))
	}
	f.Add([]byte(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"\u0062"},"values":[]}]}}`))
	f.Add([]byte(`{"status":"error","errorType":"x","error":"y"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Decode(b)
		if err != nil {
			return
		}
		if !json.Valid(b) {
			t.Fatalf("%q is not JSON and was taken", b)
		}
		var buf bytes.Buffer
		if err := a.Encode(&buf); err != nil {
			t.Fatal(err)
		}
		again, err := Decode(buf.Bytes())
		if err != nil {
			t.Fatalf("%v\nwritten: %s", err, buf.Bytes())
		}
		if len(again.Series) != len(a.Series) {
			t.Fatalf("%d series, then %d", len(a.Series), len(again.Series))
		}
		for i := range a.Series {
			if !labels.Equal(a.Series[i].Labels, again.Series[i].Labels) {
				t.Fatalf("series %s, then %s", a.Series[i].Labels, again.Series[i].Labels)
			}
		}
		half := Join(a.Between(-1<<50, 5_000), a.Between(5_001, 1<<50))
		for i := range half.Series {
			_ = half.Series[i]
		}
	})
}

// BenchmarkMatrix reads, cuts in halves, joins and writes a day of a thousand series at a step of a minute and a half, and
// the same by way of Prometheus's own model.
func BenchmarkMatrix(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var a plainAnswer
	a.Status, a.Data.ResultType = "success", "matrix"
	const series, steps = 1000, 960
	for i := range series {
		s := plainSeries{Metric: map[string]string{"__name__": "http_requests_total", "instance": fmt.Sprintf("host-%04d:9090", i), "job": "api"}}
		for k := range steps {
			s.Values = append(s.Values, [2]json.RawMessage{json.RawMessage(strconv.Itoa(1_700_000_000 + k*90)), json.RawMessage(strconv.Quote(strconv.FormatFloat(rnd.Float64()*100, 'f', -1, 64)))})
		}
		a.Data.Result = append(a.Data.Result, s)
	}
	in := text(b, a)
	const middle = int64(1_700_000_000+90*480) * 1000
	report := func(b *testing.B) {
		b.SetBytes(int64(len(in)))
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/series")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series/steps, "ns/sample")
	}
	b.Run("koios", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			a := decode(b, in)
			var n counter
			if err := Join(a.Between(0, middle), a.Between(middle+1, 1<<50)).Encode(&n); err != nil || int(n) < len(in)-100 {
				b.Fatal(n, err)
			}
		}
		report(b)
	})
	b.Run("model", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var a struct {
				Data struct{ Result model.Matrix }
			}
			if err := json.Unmarshal(in, &a); err != nil {
				b.Fatal(err)
			}
			if _, err := json.Marshal(a); err != nil {
				b.Fatal(err)
			}
		}
		report(b)
	})
}
