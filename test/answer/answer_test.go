package answer

import (
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func answerOf(t *testing.T, typ, result string) *Answer {
	t.Helper()
	a := &Answer{Type: typ}
	if err := a.read([]byte(result)); err != nil {
		t.Fatal(err)
	}
	return a
}

// Two answers are the same when labels, times and values are, in any order of series, to one part in 1e9.
func TestDiff(t *testing.T) {
	const base = `[{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{"a":"2"},"value":[1,"NaN"]}]`
	f := func(typ, want, got string, ordered bool, diff string) {
		t.Helper()
		d := Diff(answerOf(t, typ, want), answerOf(t, typ, got), ordered)
		if (diff == "") != (d == "") || !strings.Contains(d, diff) {
			t.Errorf("difference %q, want %q", d, diff)
		}
	}
	f("vector", base, base, true, "")
	f("vector", base, `[{"metric":{"a":"2"},"value":[1,"NaN"]},{"metric":{"a":"1"},"value":[1,"1.0000000001"]}]`, false, "")
	f("vector", base, `[{"metric":{"a":"2"},"value":[1,"NaN"]},{"metric":{"a":"1"},"value":[1,"1"]}]`, true, "at place 0")
	f("vector", base, `[{"metric":{"a":"1"},"value":[1,"1"]}]`, false, "missing")
	f("vector", `[]`, base, false, "not asked for")
	f("vector", base, `[{"metric":{"a":"1"},"value":[1,"1.00000001"]},{"metric":{"a":"2"},"value":[1,"NaN"]}]`, false, "want 1")
	f("vector", base, `[{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{"a":"2"},"value":[1,"NaN"]}]`, false, "not asked for")
	f("matrix", `[{"metric":{},"values":[[1,"1"],[2,"2"]]}]`, `[{"metric":{},"values":[[1,"1"]]}]`, false, "1 points, want 2")
	f("matrix", `[{"metric":{},"values":[[1,"1"]]}]`, `[{"metric":{},"values":[[2,"1"]]}]`, false, "point at 2000")
	f("matrix", `[{"metric":{},"histograms":[[1,{"count":"1","sum":"2","buckets":[[0,"1","2","1"]]}]]}]`,
		`[{"metric":{},"histograms":[[1,{"count":"1","sum":"2","buckets":[[0,"1","2","2"]]}]]}]`, false, "want")
	f("matrix", `[{"metric":{},"histograms":[[1,{"count":"1","sum":"2","buckets":[]}]]}]`, `[{"metric":{},"values":[[1,"1"]]}]`, false, "want")
	f("scalar", `[1,"+Inf"]`, `[1,"-Inf"]`, false, "want +Inf")
	f("string", `[1,"x"]`, `[1,"y"]`, false, "want x")
}

// A question travels as a form and its answer is read back; a refusal keeps its status, type and text.
func TestAsk(t *testing.T) {
	var form url.Values
	var path string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		form, path = r.Form, r.URL.Path
		if form.Get("query") == "bad" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"status":"error","errorType":"bad_data","error":"no"}`))
			return
		}
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"scalar","result":[1,"2.5"]},"warnings":["w"]}`))
	}))
	defer srv.Close()

	at := time.UnixMilli(1500)
	a, err := Ask(t.Context(), srv.URL, Over("x", at, at.Add(time.Minute), 5*time.Second, "dedup", "false"))
	if err != nil {
		t.Fatal(err)
	}
	if path != "/api/v1/query_range" || form.Get("start") != "1.5" || form.Get("end") != "61.5" || form.Get("step") != "5" || form.Get("dedup") != "false" {
		t.Errorf("asked %s %v", path, form)
	}
	if len(a.Series) != 1 || a.Series[0].Points[0].Value != 2.5 || len(a.Warnings) != 1 {
		t.Errorf("answer %+v", a)
	}
	_, err = Ask(t.Context(), srv.URL, At("bad", at))
	var no *Error
	if !errors.As(err, &no) || no.Status != 400 || no.Type != "bad_data" || no.Message != "no" {
		t.Errorf("refusal %v", err)
	}
	if path != "/api/v1/query" || form.Get("time") != "1.5" {
		t.Errorf("asked %s %v", path, form)
	}
}

// Values that are not finite are close to themselves only.
func TestClose(t *testing.T) {
	for _, v := range []float64{0, 1e300, math.NaN(), math.Inf(1), math.Inf(-1)} {
		if !Close(v, v) || Close(v, 7) {
			t.Errorf("%v", v)
		}
	}
}
