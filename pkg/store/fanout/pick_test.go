package fanout

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/pkg/store"
)

const keepC1 = "- {action: keep, source_labels: [c], regex: '1'}"

func parse(t testing.TB, text string) []*relabel.Config {
	t.Helper()
	var cfgs []*relabel.Config
	if err := yaml.UnmarshalStrict([]byte(text), &cfgs); err != nil {
		t.Fatal(err)
	}
	for _, c := range cfgs {
		if err := c.Validate(model.UTF8Validation); err != nil {
			t.Fatal(err)
		}
	}
	return cfgs
}

func local(f *fake) *fake {
	f.desc.Local = true
	return f
}

// Which Stores are asked, by time, external labels, address and relabelling, and with which matchers.
func TestPick(t *testing.T) {
	c1, c2 := labels.FromStrings("c", "1"), labels.FromStrings("c", "2")
	odd := labels.FromStrings("c", "1", "path", "a.b|c")
	early := named("early", c1)
	early.desc.MinTime, early.desc.MaxTime = -100, 9
	f := func(what string, cfg Config, req *store.SeriesRequest, want string, stores ...*fake) {
		t.Helper()
		var all []store.Store
		for _, s := range stores {
			s.requests = nil
			all = append(all, s)
		}
		cur, err := over(cfg, all...).Series(t.Context(), req)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		cur.Close()
		var got []string
		for _, s := range stores {
			for _, r := range s.requests {
				ms := strings.ReplaceAll(fmt.Sprint(r.Matchers), ` __name__="up"`, "")
				got = append(got, s.desc.Name+ms)
			}
		}
		if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	x := eq("x", "y")
	f("time", Config{}, request(x), `now[x="y"]`, early, named("now", c1))
	f("external labels", Config{}, request(eq("c", "2")), `two[c="2"] both[c="2"] unknown[c="2"] other[c="2"]`,
		named("one", c1), named("two", c2), named("both", c1, c2), named("unknown"), named("other", labels.FromStrings("d", "1")))
	f("absent external label", Config{}, request(eq("d", "")), `one[d=""]`, named("one", c1), named("d", labels.FromStrings("d", "1")))
	f("a contradiction in each set", Config{}, request(eq("c", "1"), eq("d", "2")), ``,
		named("x", labels.FromStrings("c", "1", "d", "1"), labels.FromStrings("c", "2", "d", "2")))
	f("selector", Config{SelectorLabels: labels.FromStrings("q", "1")}, request(x, eq("q", "1")), `one[x="y"]`, named("one", c1))
	f("other selector", Config{SelectorLabels: labels.FromStrings("q", "1")}, request(x, eq("q", "2")), ``, named("one", c1))

	addressed := request(x)
	addressed.StoreMatchers = [][]*labels.Matcher{{eq("__address__", "b"), eq("ignored", "x")}, {labels.MustNewMatcher(labels.MatchRegexp, "__address__", "c.*")}}
	f("store matchers", Config{}, addressed, `b[x="y"] cc[x="y"]`, named("a"), named("b"), named("cc"), local(named("b")))
	addressed.StoreMatchers = [][]*labels.Matcher{{eq("ignored", "x")}}
	f("store matchers without address", Config{}, addressed, `a[x="y"]`, named("a"), local(named("b")))

	keep := Config{Relabel: parse(t, keepC1)}
	f("relabelling", keep, request(x), `one[x="y"] both[x="y" c=~"1"] unknown[x="y" c=~"1"]`,
		named("one", c1), named("two", c2), named("both", c1, c2), named("unknown"))
	f("relabelling, quoted", keep, request(x), `both[x="y" c=~"1" path=~"a\\.b\\|c|^$"]`, named("both", c1, c2, odd))
	f("relabelling and a matcher on a dropped set", keep, request(eq("c", "2")), ``, named("both", c1, c2))
	f("relabelling by hash", Config{Relabel: parse(t, `
- {action: hashmod, source_labels: [c], target_label: __shard, modulus: 2}
- {action: keep, source_labels: [__shard], regex: '0'}`)}, request(x), `two[x="y"] both[x="y" c=~"2"]`, named("one", c1), named("two", c2), named("both", c1, c2))
}

// The matchers that hold a Store to a part of its label sets admit what is in that part.
func TestHolding(t *testing.T) {
	sets := []labels.Labels{labels.FromStrings("a", "x.y"), labels.FromStrings("a", "(", "b", "1")}
	admits := func(ls labels.Labels) bool {
		for _, m := range holding(sets) {
			if !m.Matches(ls.Get(m.Name)) {
				return false
			}
		}
		return true
	}
	for _, ls := range sets {
		if !admits(ls) {
			t.Errorf("%s is not admitted", ls)
		}
	}
	for _, ls := range []labels.Labels{labels.FromStrings("a", "xzy"), labels.FromStrings("b", "1"), labels.FromStrings("a", "(", "b", "2")} {
		if admits(ls) {
			t.Errorf("%s is admitted", ls)
		}
	}
}

// Data of Stores that can't be asked at present is named where the request may touch it, and only there.
// All-or-nothing requests fail there, and only there.
func TestAbsent(t *testing.T) {
	lost := store.Lost{Err: errors.New("gone"), Description: store.Description{
		Name: "down:1", LabelSets: []labels.Labels{labels.FromStrings("c", "1"), labels.FromStrings("c", "2")}, MinTime: 100, MaxTime: 200,
	}}
	f := func(what string, change func(*store.SeriesRequest, *Config), want string) {
		t.Helper()
		cfg := Config{Absent: func() []store.Lost { return []store.Lost{lost} }}
		req := request()
		change(req, &cfg)
		st := over(cfg, named("one"))
		cur, err := st.Series(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		_, ws, err := from(cur)
		if got := strings.Join(ws.Strings(), "; "); got != want || err != nil {
			t.Errorf("%s: %q, error %v, want %q", what, got, err, want)
		}
		_, ws, err = st.LabelNames(t.Context(), &store.LabelNamesRequest{MinTime: req.MinTime, MaxTime: req.MaxTime, Matchers: req.Matchers, StoreMatchers: req.StoreMatchers, PartialResponse: req.PartialResponse})
		if got := strings.Join(ws.Strings(), "; "); got != want || err != nil {
			t.Errorf("%s, label names: %q, error %v, want %q", what, got, err, want)
		}
		req.PartialResponse = store.Abort
		wanted := func(what string, err error) {
			if (want != "") != (store.KindOf(err) == store.KindAborted) || want != "" && err.Error() != want {
				t.Errorf("%s: error %v, want %q", what, err, want)
			}
		}
		_, _, err = st.LabelNames(t.Context(), &store.LabelNamesRequest{MinTime: req.MinTime, MaxTime: req.MaxTime, Matchers: req.Matchers, StoreMatchers: req.StoreMatchers, PartialResponse: req.PartialResponse})
		wanted(what+", label names, all or nothing", err)
		if cur, err = st.Series(t.Context(), req); err == nil {
			_, _, err = from(cur)
		}
		wanted(what+", all or nothing", err)
	}
	text := func(sets, from string) string {
		return "data of down:1 (" + sets +
			") between 1970-01-01T00:00:00." + from + "Z and 1970-01-01T00:00:00.2Z may be missing: gone"
	}
	f("all of it", func(*store.SeriesRequest, *Config) {}, text(`[{c="1"} {c="2"}]`, "1"))
	f("a part", func(r *store.SeriesRequest, _ *Config) { r.MinTime, r.Matchers = 150, append(r.Matchers, eq("c", "2")) }, text(`[{c="2"}]`, "15"))
	f("other labels", func(r *store.SeriesRequest, _ *Config) { r.Matchers = append(r.Matchers, eq("c", "3")) }, "")
	f("another time", func(r *store.SeriesRequest, _ *Config) { r.MinTime = 201 }, "")
	f("another address", func(r *store.SeriesRequest, _ *Config) {
		r.StoreMatchers = [][]*labels.Matcher{{eq("__address__", "one")}}
	}, "")
	f("dropped in part", func(_ *store.SeriesRequest, c *Config) { c.Relabel = parse(t, keepC1) }, text(`[{c="1"}]`, "1"))
}
