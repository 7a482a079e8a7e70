package fanout

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

func blockID(n int) (u ulid.ULID) {
	u[15] = byte(n)
	return u
}

// gateway is a Store over blocks. Block n covers the times from 100n to 100n+99, those above 50 are downsampled
// copies of the blocks 50 below. All gateways give the same series.
func gateway(name string, blocks ...int) *fake {
	f := named(name, labels.FromStrings("c", "1"))
	f.gives, f.desc.MaxTime, f.desc.OnlyBlocks = "bucket", 10_000, true
	set := store.BlockSet{Labels: labels.FromStrings("c", "1")}
	for _, n := range blocks {
		b := store.Block{ID: blockID(n), MinTime: int64(n) * 100}
		if n > 50 {
			b.MinTime, b.Resolution = b.MinTime-5000, 300_000
		}
		b.MaxTime = b.MinTime + 99
		set.Blocks = append(set.Blocks, b)
	}
	f.desc.Blocks = []store.BlockSet{set}
	return f
}

// compacted is a gateway that has seen a compaction: of the block child instead of its parents.
func compacted(name string, child int, parents []int, blocks ...int) *fake {
	f := gateway(name, append(blocks, child)...)
	set := &f.desc.Blocks[0]
	all := gateway(name, parents...).desc.Blocks[0].Blocks
	b := &set.Blocks[len(set.Blocks)-1]
	b.MinTime, b.MaxTime, b.Resolution = all[0].MinTime, all[len(all)-1].MaxTime, all[0].Resolution
	for _, p := range all {
		set.Parents = append(set.Parents, store.ParentBlock{Child: b.ID, ID: p.ID, MinTime: p.MinTime, MaxTime: p.MaxTime})
	}
	return f
}

var errBoom = store.Errorf(store.KindUnavailable, "boom")

func broken(f *fake) *fake {
	f.openErr = errBoom
	return f
}

// A loss is a gap but where Stores that have answered serve the same blocks, for all of the time and of the
// resolutions that are asked for; the gap is that of the blocks that nobody has. All or nothing fails where
// there is a gap, and only there. (Killed: mutants that take any block for served; that count Stores that have
// failed or have doubts; that forget what a partial standby lacks; that look at ids without times; that pass
// over resolutions, those of parents too, and labels; that take one parent for all.)
func TestJudgedByBlocks(t *testing.T) {
	f := func(what string, mint, maxt, resolution int64, want string, stores ...store.Store) {
		t.Helper()
		for _, pr := range []store.PartialResponse{store.Warn, store.Abort} {
			for _, st := range stores {
				st.(*fake).requests = nil
			}
			st := over(Config{Absent: func() (lost []store.Lost) {
				for _, st := range stores {
					if st := st.(*fake); strings.HasPrefix(st.desc.Name, "absent") {
						lost = append(lost, store.Lost{Description: st.desc, Err: errBoom})
					}
				}
				return lost
			}})
			st.stores = func() (asked []store.Store) {
				for _, st := range stores {
					if !strings.HasPrefix(st.Describe().Name, "absent") {
						asked = append(asked, st)
					}
				}
				return asked
			}
			req := &store.SeriesRequest{MinTime: mint, MaxTime: maxt, MaxResolution: resolution, Matchers: request().Matchers, PartialResponse: pr}
			cur, err := st.Series(t.Context(), req)
			var ws store.Warnings
			if err == nil {
				_, ws, err = from(cur)
			}
			if pr == store.Abort {
				if (want != "") != (store.KindOf(err) == store.KindAborted) || want == "" && err != nil {
					t.Errorf("%s, all or nothing: error %v, want %q", what, err, want)
				}
				continue
			}
			got := ""
			for _, w := range ws {
				var gap *store.Gap
				if errors.As(w, &gap) {
					got += fmt.Sprintf("%s %d-%d ", gap.Store, gap.MinTime, gap.MaxTime)
				}
			}
			if got = strings.TrimSpace(got); got != want || err != nil {
				t.Errorf("%s: gaps %q, error %v, want %q", what, got, err, want)
			}
		}
	}
	doubtful := func(f *fake) *fake {
		f.warning = errors.New("careful")
		return f
	}
	querier := func(f *fake) *fake {
		f.desc.OnlyBlocks = false
		return f
	}
	f("the same", 0, 999, 0, "", broken(gateway("a", 1, 2)), gateway("b", 1, 2))
	f("the same, breaks off", 0, 999, 0, "", &fake{desc: gateway("a", 1, 2).desc, gives: "bucket", readErr: errBoom}, gateway("b", 1, 2))
	f("both broken", 0, 999, 0, "a 100-299", broken(gateway("a", 1, 2)), broken(gateway("b", 1)))
	f("less", 0, 999, 0, "a 200-299", broken(gateway("a", 1, 2)), gateway("b", 1))
	f("less, but enough", 0, 199, 0, "", broken(gateway("a", 1, 2)), gateway("b", 1))
	f("more", 0, 999, 0, "", broken(gateway("a", 1)), gateway("b", 1, 2))
	f("other", 0, 999, 0, "a 100-199", broken(gateway("a", 1, 2)), gateway("b", 2, 3))
	f("two together", 0, 999, 0, "", broken(gateway("a", 1, 2)), gateway("b", 1, 3), gateway("c", 2, 4))
	f("one of the two broken", 0, 999, 0, "a 100-199 b 100-399", broken(gateway("a", 1, 2)), broken(gateway("b", 1, 3)), gateway("c", 2, 4))
	f("two partial standbys", 0, 999, 0, "", broken(gateway("a", 1, 2, 3, 4)), gateway("b", 1, 2), gateway("c", 3, 4))
	f("three, one of them for nothing", 0, 999, 0, "", broken(gateway("a", 1, 2, 3, 4)), gateway("b", 1, 2, 3), gateway("c", 2, 3), gateway("d", 3, 4))
	f("two that lack one block", 0, 999, 0, "a 200-299", broken(gateway("a", 1, 2, 3)), gateway("b", 1), gateway("c", 3))
	f("two, one of them broken too", 0, 999, 0, "a 300-499", broken(gateway("a", 1, 2, 3, 4)), broken(gateway("b", 3, 4)), gateway("c", 1, 2))
	f("two, one of them broken while it answers", 0, 999, 0, "a 300-499", broken(gateway("a", 1, 2, 3, 4)), &fake{desc: gateway("b", 3, 4).desc, gives: "bucket", readErr: errBoom}, gateway("c", 1, 2))
	f("not seen the compaction", 0, 999, 0, "", broken(compacted("a", 40, []int{1, 2}, 3)), gateway("b", 1, 2, 3))
	f("seen it", 0, 999, 0, "", broken(gateway("b", 1, 2, 3)), compacted("a", 40, []int{1, 2}, 3))
	f("seen it while another answers", 0, 999, 0, "", &fake{desc: gateway("b", 1, 2, 3).desc, gives: "bucket", readErr: errBoom}, compacted("a", 40, []int{1, 2}, 3))
	f("a parent is missing", 0, 999, 0, "a 100-299", broken(compacted("a", 40, []int{1, 2}, 3)), gateway("b", 1, 3))
	f("a parent is missing that is not wanted", 0, 150, 0, "", broken(compacted("a", 40, []int{1, 2}, 3)), gateway("b", 1, 3))
	f("other parents", 0, 999, 0, "b 300-399", broken(gateway("b", 1, 2, 3)), compacted("a", 40, []int{1, 2}))
	relabelled := compacted("a", 40, []int{1, 2})
	relabelled.desc.Blocks[0].Labels = labels.FromStrings("c", "2")
	f("a replica label was removed", 0, 999, 0, "b 100-299", broken(gateway("b", 1, 2)), relabelled)
	coarse := compacted("a", 40, []int{1, 2})
	coarse.desc.Blocks[0].Blocks[0].Resolution = 300_000
	f("a downsampled block has the raw one's parents", 0, 999, 300_000, "b 100-299", broken(gateway("b", 1, 2)), coarse)
	f("two queriers with a parent each", 0, 999, 0, "", broken(compacted("a", 40, []int{1, 2})), querier(gateway("b", 1)), querier(gateway("c", 2)))
	f("a querier has them", 0, 999, 0, "", broken(gateway("a", 1, 2)), querier(gateway("b", 1, 2)))
	f("a querier has doubts", 0, 999, 0, "a 100-299", broken(gateway("a", 1, 2)), querier(doubtful(gateway("b", 1, 2))))
	f("a querier has more than blocks", 0, 999, 0, "a 0-999", querier(broken(gateway("a", 1, 2))), gateway("b", 1, 2))
	f("raw only", 0, 999, 0, "", broken(gateway("a", 1, 51)), gateway("b", 1))
	f("downsampled", 0, 999, 300_000, "a 100-199", broken(gateway("a", 1, 51)), gateway("b", 1))
	f("absent", 0, 999, 0, "", gateway("absent", 1, 2), gateway("b", 1, 2))
	f("absent, less", 0, 999, 0, "absent 200-299", gateway("absent", 1, 2), gateway("b", 1))

	cut := func(f *fake, mint, maxt int64) *fake {
		f.desc.MinTime, f.desc.MaxTime = mint, maxt
		return f
	}
	f("the half of a block", 0, 999, 0, "a 100-199", broken(gateway("a", 1)), cut(gateway("b", 1), 150, 999))
	f("two halves", 0, 999, 0, "", broken(gateway("a", 1)), querier(cut(gateway("b", 1), 150, 999)), querier(cut(gateway("c", 1), 0, 149)))
	f("two parts and a hole", 0, 999, 0, "a 100-199", broken(gateway("a", 1)), querier(cut(gateway("b", 1), 150, 999)), querier(cut(gateway("c", 1), 0, 148)))

	group := func(failures int) *fake {
		f := broken(named("group"))
		f.desc.Group, f.failures = true, failures
		return f
	}
	f("a group", 0, 999, 0, "", group(2))
	f("a group that fails", 0, 999, 0, "group 0-999", group(9))
	refused := gateway("a", 1)
	refused.openErr = store.Errorf(store.KindLimit, "too much")
	spare := gateway("b", 1)
	spare.openErr = refused.openErr
	f("past a limit", 0, 999, 0, "", querier(gateway("c", 1)), refused, spare)
	if len(refused.requests)+len(spare.requests) != 1 {
		t.Error("what one gateway refuses is asked of another")
	}
}

// Who was merely slower than another stands by again: the one that won may still fail, be it the one asked first
// or second. (Killed: a mutant that drops the slower one for good.)
func TestTheSlowerOneStandsBy(t *testing.T) {
	for _, first := range []time.Duration{time.Second, 300 * time.Millisecond} { // hedged after 250 ms
		synctest.Test(t, func(t *testing.T) {
			a, b := gateway("a", 1), gateway("b", 1)
			a.delay, b.delay = first, 500*time.Millisecond
			fails := a
			if first == time.Second {
				fails = b // answers at 750 ms
			}
			fails.readErr = errBoom
			st := over(Config{}, a, b)
			st.pace.blame("b", time.Hour)
			cur, err := st.Series(t.Context(), request())
			if err != nil {
				t.Fatal(err)
			}
			if n, ws, err := from(cur); n["bucket"] != 3 || len(ws) > 0 || err != nil {
				t.Errorf("%v, warnings %v, error %v", n, ws, err)
			}
			if got := testutil.ToFloat64(st.metrics.hedges); got != 1 {
				t.Errorf("%v hedges", got)
			}
		})
	}
}

// Two that hold all of a Store's blocks between them stand by for it as one that holds them alone would: asked when
// it is late, and not before. Where they lack a block the late one is waited for. (Killed: a part that hedges only
// where one standby holds all; two of a kind taken for all.)
func TestTwoStandByAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := gateway("a", 1, 2, 3), gateway("b", 1), gateway("c", 3)
		a.delay = time.Minute
		cur, err := over(Config{}, a, b, c).Series(t.Context(), &store.SeriesRequest{MaxTime: 999, Matchers: request().Matchers})
		if err != nil {
			t.Fatal(err)
		}
		if n, ws, err := from(cur); n["bucket"] != 3 || len(ws) > 0 || err != nil {
			t.Errorf("%v, warnings %v, error %v", n, ws, err)
		}
		if len(b.requests)+len(c.requests) > 0 {
			t.Error("two that lack a block were asked in another's place")
		}
	})
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a, b, c := gateway("a", 1, 2), gateway("b", 1), gateway("c", 2)
			if late {
				a.delay = time.Hour
			}
			st := over(Config{}, a, b, c)
			start := time.Now()
			cur, err := st.Series(t.Context(), &store.SeriesRequest{MaxTime: 999, Matchers: request().Matchers, PartialResponse: store.Abort})
			if err != nil {
				t.Fatal(err)
			}
			if n, ws, err := from(cur); n["bucket"] != 3 || len(ws) > 0 || err != nil {
				t.Errorf("%v, warnings %v, error %v", n, ws, err)
			}
			want := 0
			if late {
				want = 1
			}
			if got := len(b.requests) + len(c.requests); got != 2*want || time.Since(start) > time.Second {
				t.Errorf("late %v: the standbys were asked %d times, and it took %s", late, got, time.Since(start))
			}
		})
	}
}

// What a Store warned of before it failed is handed on, once, also when another one takes over. (Killed: a
// mutant that forgets the warnings of attempts that are over.)
func TestWarningsOutliveTheirStore(t *testing.T) {
	bad := func(f *fake) *fake {
		f.readErr, f.warning = errBoom, errors.New("careful")
		return f
	}
	for _, stores := range [][]store.Store{{bad(named("a")), named("b")}, {bad(gateway("a", 1)), gateway("b", 1)}} {
		st := over(Config{}, stores...)
		st.pace.blame("b", time.Hour)
		cur, err := st.Series(t.Context(), request())
		if err != nil {
			t.Fatal(err)
		}
		_, ws, err := from(cur)
		if careful := strings.Count(strings.Join(ws.Strings(), "; "), "careful"); careful != 1 || err != nil {
			t.Errorf("warnings %v, error %v", ws, err)
		}
	}
}

// Of gateways with the same blocks one is asked, in turns, and those that failed lately are asked last.
func TestStandbysAreNotAsked(t *testing.T) {
	a, b, c := gateway("a", 1, 2), gateway("b", 1, 2), gateway("c", 1)
	st := over(Config{}, a, b, c)
	ask := func() {
		cur, err := st.Series(t.Context(), &store.SeriesRequest{MaxTime: 999, Matchers: request().Matchers})
		if err != nil {
			t.Fatal(err)
		}
		if n, ws, err := from(cur); n["bucket"] != 3 || len(ws) > 0 || err != nil {
			t.Errorf("%v, warnings %v, error %v", n, ws, err)
		}
	}
	for range 30 {
		ask()
	}
	if len(a.requests) < 5 || len(b.requests) < 5 || len(a.requests)+len(b.requests) != 30 || len(c.requests) != 0 {
		t.Errorf("asked %d, %d and %d times", len(a.requests), len(b.requests), len(c.requests))
	}
	// Nor is one that differs by a compaction.
	d, e := compacted("d", 40, []int{1, 2}, 3), gateway("e", 1, 2, 3)
	both := over(Config{}, d, e)
	for range 30 {
		cur, err := both.Series(t.Context(), &store.SeriesRequest{MaxTime: 999, Matchers: request().Matchers})
		if err != nil {
			t.Fatal(err)
		}
		if n, ws, err := from(cur); n["bucket"] != 3 || len(ws) > 0 || err != nil {
			t.Errorf("%v, warnings %v, error %v", n, ws, err)
		}
	}
	if len(d.requests) < 5 || len(e.requests) < 5 || len(d.requests)+len(e.requests) != 30 {
		t.Errorf("asked %d and %d times", len(d.requests), len(e.requests))
	}
	a.openErr, a.requests = errBoom, nil
	for range 30 {
		ask()
	}
	if len(a.requests) > 1 {
		t.Errorf("the broken one is asked %d times", len(a.requests))
	}
}

// Label calls are judged the same way, and don't wait for a Store whose blocks another one has told of.
func TestLabelCallsByBlocks(t *testing.T) {
	a, b := gateway("a", 1, 2), gateway("b", 1, 2)
	a.hangs = true
	for _, pr := range []store.PartialResponse{store.Warn, store.Abort} {
		names, ws, err := over(Config{}, a, b).LabelNames(t.Context(), &store.LabelNamesRequest{MaxTime: 999, PartialResponse: pr})
		if len(names) != 2 || len(ws) > 0 || err != nil {
			t.Errorf("%v, warnings %v, error %v", names, ws, err)
		}
	}
	b.desc.Blocks[0].Blocks = b.desc.Blocks[0].Blocks[:1]
	names, ws, err := over(Config{ResponseTimeout: 20 * time.Millisecond}, a, b).LabelNames(t.Context(), &store.LabelNamesRequest{MaxTime: 999})
	if len(names) != 2 || len(ws) != 1 || err != nil {
		t.Errorf("%v, warnings %v, error %v", names, ws, err)
	}
}

// Stores that hang in the middle, one after the other, cost little more than the first of them; in this
// process, where nobody sends ahead, each has its time. (Killed: a mutant whose patience stays the same.)
func TestHangsDontAddUp(t *testing.T) {
	for _, local := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var stores []store.Store
			for i := range 10 {
				f := named(fmt.Sprintf("s%d", i))
				f.stalls, f.desc.Local = true, local
				stores = append(stores, f)
			}
			start := time.Now()
			cur, err := over(Config{ResponseTimeout: 8 * time.Second}, stores...).Series(t.Context(), request())
			if err != nil {
				t.Fatal(err)
			}
			n, ws, err := from(cur)
			if len(n) != 10 || len(ws) != 10 || err != nil {
				t.Errorf("%v, warnings %v, error %v", n, ws, err)
			}
			if took := time.Since(start); local != (took > 30*time.Second) {
				t.Errorf("local %v: %v", local, took)
			}
		})
	}
}

// Two Stores that differ in a replica label are taken for replicas once most of their series have been seen to
// be the same, and no more when they are not. (Killed: a mutant that believes labels.)
func TestTwins(t *testing.T) {
	series := func(from, to int) *sketch {
		s := &sketch{}
		for i := from; i < to; i++ {
			s.add(labels.FromStrings("i", fmt.Sprint(i)))
			s.add(labels.FromStrings("i", fmt.Sprint(i)))
		}
		return s
	}
	f := func(a, b *sketch, want bool) {
		t.Helper()
		tw := &twins{seen: map[pairKey]*alike{}}
		shared, all := a.compare(b)
		tw.note(pairKey{1, 2}, shared, all)
		if got := tw.proven(pairKey{1, 2}); got != want {
			t.Errorf("%d of %d shared: proven is %v", shared, all, got)
		}
	}
	f(series(0, 0), series(0, 0), false)
	f(series(0, 1), series(0, 1), true)
	f(series(0, 1000), series(0, 1000), true)
	f(series(0, 1000), series(10, 1010), true)
	f(series(0, 1000), series(1000, 2000), false)
	f(series(0, 1000), series(500, 1500), false)
	f(series(0, 10), series(0, 5), false)

	tw := &twins{seen: map[pairKey]*alike{}}
	for range 100 {
		tw.note(pairKey{1, 2}, 64, 64)
	}
	for range 100 {
		tw.note(pairKey{1, 2}, 0, 64)
	}
	if tw.proven(pairKey{1, 2}) {
		t.Error("what was once is believed for ever")
	}
	d := func(only bool, sets ...labels.Labels) *store.Description {
		return &store.Description{LabelSets: sets, OnlyBlocks: only}
	}
	a, b, c := labels.FromStrings("c", "1", "r", "a"), labels.FromStrings("c", "1", "r", "b"), labels.FromStrings("c", "2", "r", "b")
	for i, p := range [][2]*store.Description{{d(false, a), d(false, a)}, {d(false, a), d(false, c)}, {d(true, a), d(true, b)}, {d(false, a, b), d(false, b)}, {d(false), d(false)}} {
		if _, ok := twinKey(p[0], p[1], []string{"r"}); ok {
			t.Errorf("pair %d looks like replicas", i)
		}
	}
	x, ok := twinKey(d(false, a), d(false, b), []string{"r"})
	y, _ := twinKey(d(false, b), d(false, a), []string{"r"})
	if !ok || x != y {
		t.Error("two replicas do not look like some")
	}
}
