package promqlcompat

import (
	"math/rand"
	randv2 "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/cortexproject/promqlsmith"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/koios-metrics/koios/test/dataset"
)

// question is a generated query. The same seed and index give the same question on any machine.
type question struct {
	index      int64
	expr       parser.Expr
	start, end time.Time
	step       time.Duration // 0: instant
	road       int
}

// generator makes questions.
type generator struct {
	seed  int64
	sets  []labels.Labels
	funcs []*parser.Function
}

func newGenerator(seed int64, sets []labels.Labels) *generator {
	sets = slices.Clone(sets)
	slices.SortFunc(sets, labels.Compare)
	g := &generator{seed: seed, sets: sets}
	for _, f := range parser.Functions {
		// Functions of the clock and experimental ones are left out; promqlsmith registers holt_winters, which no
		// engine knows any more.
		if !f.Experimental && f.Name != "holt_winters" {
			g.funcs = append(g.funcs, f)
		}
	}
	slices.SortFunc(g.funcs, func(a, b *parser.Function) int { return strings.Compare(a.Name, b.Name) })
	return g
}

// question makes the one of an index.
func (g *generator) question(index int64) question {
	rnd := rand.New(&source{randv2.NewPCG(uint64(g.seed), uint64(index))})
	s := promqlsmith.New(rnd, g.sets,
		promqlsmith.WithEnabledFunctions(slices.Clone(g.funcs)),
		promqlsmith.WithEnableOffset(true),
		promqlsmith.WithEnableAtModifier(true),
		promqlsmith.WithEnableVectorMatching(true),
		promqlsmith.WithAtModifierMaxTimestamp(int64(1)<<62), // moved to the data below
		promqlsmith.WithMaxDepth(2+rnd.Intn(4)),
	)
	steady(s)
	q := question{index: index, road: int(index % int64(len(roads)))}
	at := func() time.Time {
		return dataset.Start.Add(20*time.Minute + time.Duration(rnd.Int63n((span-20*time.Minute).Milliseconds()))*time.Millisecond)
	}
	q.start = at()
	q.end = q.start
	ranged := rnd.Intn(2) == 0
	if ranged {
		q.step = time.Duration(1+rnd.Intn(600)) * time.Second
		q.end = q.start.Add(time.Duration(rnd.Intn(20)) * q.step)
	}
	for {
		var e parser.Expr
		if ranged {
			e = s.WalkRangeQuery()
		} else {
			e = s.WalkInstantQuery()
		}
		if e == nil {
			continue
		}
		parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
			switch n := n.(type) {
			case *parser.VectorSelector:
				moved(&n.Timestamp, at)
				if rnd.Intn(8) > 0 {
					g.widen(n)
				}
			case *parser.SubqueryExpr:
				moved(&n.Timestamp, at)
				n.Range = time.Duration(1+rnd.Intn(20)) * time.Minute
				n.Step = time.Duration(1+rnd.Intn(180)) * time.Second
				if rnd.Intn(2) == 0 {
					n.Expr = aggregate(rnd, n.Expr)
				}
			case *parser.MatrixSelector:
				n.Range = time.Duration(1+rnd.Intn(1200)) * time.Second
			}
			return nil
		})
		// What is asked is the text: trees can be made that no text stands for.
		parsed, err := parser.ParseExpr(e.String())
		if err == nil {
			q.expr = parsed
			return q
		}
	}
}

// aggregate makes an aggregation of what is below a subquery, where promqlsmith puts plain selectors only.
func aggregate(rnd *rand.Rand, e parser.Expr) parser.Expr {
	ops := []parser.ItemType{parser.SUM, parser.MIN, parser.MAX, parser.AVG, parser.COUNT, parser.STDDEV}
	return &parser.AggregateExpr{Op: ops[rnd.Intn(len(ops))], Expr: e, Grouping: []string{"instance", "job", "code"}[:rnd.Intn(4)], Without: rnd.Intn(2) == 0}
}

// widen leaves a selector that no series matches its name only: most questions shall have answers.
func (g *generator) widen(n *parser.VectorSelector) {
	if !slices.ContainsFunc(g.sets, func(ls labels.Labels) bool { return matches(n, ls) }) {
		n.LabelMatchers = slices.DeleteFunc(n.LabelMatchers, func(m *labels.Matcher) bool { return m.Name != labels.MetricName })
	}
}

func matches(n *parser.VectorSelector, ls labels.Labels) bool {
	return !slices.ContainsFunc(n.LabelMatchers, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
}

// moved puts the time of an @ modifier near the data.
func moved(ts **int64, at func() time.Time) {
	if *ts != nil {
		ms := at().UnixMilli()
		*ts = &ms
	}
}

// steady sorts what promqlsmith took from maps, so that a seed makes the same queries each time. Its fields can be
// read by reflection only; sorting changes the arrays, not the fields.
func steady(s *promqlsmith.PromQLSmith) {
	sortStrings := func(v reflect.Value) {
		slices.Sort(unsafe.Slice((*string)(v.UnsafePointer()), v.Len()))
	}
	v := reflect.ValueOf(s).Elem()
	sortStrings(v.FieldByName("labelNames"))
	for values := v.FieldByName("labelValues").MapRange(); values.Next(); {
		sortStrings(values.Value())
	}
}

// source makes a new generator of random numbers one for promqlsmith, which wants an old one.
type source struct{ *randv2.PCG }

// Int63 implements rand.Source.
func (s *source) Int63() int64 { return int64(s.Uint64() >> 1) }

// Seed implements rand.Source; it is never called.
func (s *source) Seed(int64) { panic("BUG: promqlcompat: a source is seeded once") }
