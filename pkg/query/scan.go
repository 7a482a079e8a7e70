package query

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser/posrange"
	"github.com/prometheus/prometheus/schema"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/thanos-io/promql-engine/extlabels"
	enginequery "github.com/thanos-io/promql-engine/query"
	"github.com/thanos-io/promql-engine/warnings"

	"github.com/koios-metrics/koios/pkg/column"
	"github.com/koios-metrics/koios/pkg/store"
)

// errNotStreamed ends a scan over data that only the engine's own operators evaluate: series that differ in
// metadata labels. See also errHistograms.
var errNotStreamed = errors.New("the data can't be streamed")

// scan drains one cursor into groups. Several workers take turns: each reads a batch of series from the
// cursor, decodes and evaluates it on its own, and adds it to the groups when those before it have been
// added. So the sums are those of a single pass over the series in order, whatever runs in parallel.
type scan struct {
	q        *Queryable
	hints    *storage.SelectHints
	matchers []*labels.Matcher
	function column.Function
	then     []pointwise // what is done to the function's values before they are aggregated
	steps    column.Steps
	span     time.Duration
	op       column.Op
	by       grouping
	position posrange.PositionRange
	tracker  enginequery.SampleTracker

	ctx     context.Context
	cancel  context.CancelFunc
	reading reading
	groups  *column.Groups
	running sync.WaitGroup

	mu      sync.Mutex // guards the fields below, and the cursor
	cursor  store.Cursor
	pending bool          // the cursor stands on a series that nobody took
	ended   bool          // the cursor is at its end
	added   chan struct{} // closed when the latest batch that was read has been added
	workers int
	err     error
	read    []int64 // samples read per step
	longest int     // the most samples decoded of a series

	// Whoever adds a batch owns these.
	unique  map[uint64]struct{} // hashes of the series without their names, nil when they can't be equal
	metric  string              // of the last series with a result
	checked bool
}

// run reads everything. It returns the groups and the numbers of samples read per step.
func (s *scan) run(ctx context.Context) (groups *column.Groups, read []int64, err error) {
	defer func() {
		outcome := scanDone
		switch {
		case errors.Is(err, errNotStreamed), errors.Is(err, errHistograms):
			outcome = scanUnfit
		case err != nil:
			outcome = scanFailed
		}
		s.q.q.metrics.scans.WithLabelValues(outcome).Inc()
	}()
	ctx, end, err := s.q.beginScan(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	if err := s.q.selects.Start(ctx); err != nil {
		return nil, nil, err
	}
	defer s.q.selects.Done()
	s.ctx, s.cancel = context.WithCancel(ctx)
	defer s.cancel()

	req := s.q.opts.request(s.hints.Start, s.hints.End, s.hints, s.matchers)
	s.reading = readingOf(&s.q.opts, s.q.q.cfg.Dedup, s.hints)
	s.reading.bound(req)
	s.groups = column.NewGroups(s.op, s.steps.N, s.reserveGroup)
	s.read = make([]int64, s.steps.N)
	s.added = make(chan struct{})
	close(s.added)
	if !s.keepsName() && !oneName(s.matchers) {
		s.unique = map[uint64]struct{}{}
	}

	if s.cursor, err = s.q.q.store.Series(s.ctx, req); err != nil {
		return nil, nil, err
	}
	s.workers = 1
	s.running.Add(1)
	s.work()
	s.running.Wait()
	if s.err == nil {
		s.err = s.cursor.Err()
	}
	for _, w := range s.cursor.Warnings() {
		warnings.AddToContext(w, ctx)
	}
	err = errors.Join(s.err, s.cursor.Close())
	if errors.Is(err, errHistograms) {
		s.q.q.histograms.add(s.matchers)
		return nil, nil, errHistograms
	}
	if errors.Is(err, errNotStreamed) {
		s.q.q.unstreamed.add(s.matchers)
		return nil, nil, errNotStreamed
	}
	if err == nil {
		err = ctx.Err()
	}
	s.groups.Finish()
	return s.groups, s.read, err
}

// peak is how many samples and points one worker and the groups held at most.
func (s *scan) peak() int { return s.longest + s.groups.Len()*s.steps.N }

// oneName tells whether all series have the same metric name.
func oneName(ms []*labels.Matcher) bool {
	for _, m := range ms {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			return true
		}
	}
	return false
}

// pointBytes is what the engine makes of each point of a group: a time and a value.
const pointBytes = 16

// reserveGroup charges a new group, its labels as they are and as the key of the group.
func (s *scan) reserveGroup(l labels.Labels) error {
	if err := s.q.reserve(s.op.GroupBytes(s.steps.N, pointBytes) + 2*int64(l.ByteSize())); err != nil {
		return fmt.Errorf("keep %d groups of %d steps: %w", s.groups.Len()+1, s.steps.N, err)
	}
	s.tracker.Add(s.steps.N)
	return s.tracker.CheckLimit()
}

// work is one worker: it goes on until the cursor is at its end or something failed.
func (s *scan) work() {
	defer s.running.Done()
	defer func() {
		if p := recover(); p != nil {
			// One request must not take the process with it.
			s.fail(fmt.Errorf("BUG: scan of %v: %v\n%s", s.matchers, p, debug.Stack()))
		}
	}()
	w := newBatch(s)
	defer w.release()
	for {
		before, done := s.take(w)
		if done == nil {
			break
		}
		s.evaluate(w, before, done)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, n := range w.evaluator.Samples() {
		s.read[i] += n
	}
	s.longest = max(s.longest, w.longest)
}

// evaluate does the work on one batch. Before is closed when the batches before it have been added, and
// done is closed here in any case, or whoever comes after would wait for ever.
func (s *scan) evaluate(w *batch, before <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	err := w.evaluate()
	<-before
	if s.failed() {
		return
	}
	if err == nil {
		err = s.add(w)
	}
	if err != nil {
		s.fail(err)
	}
}

// take reads the next batch. Before is closed when all batches before it have been added, done is to be
// closed when this one is; nil says that there is none.
func (s *scan) take(w *batch) (before <-chan struct{}, done chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.ended {
		return nil, nil
	}
	if err := w.fill(); err != nil {
		s.failLocked(err)
		return nil, nil
	}
	if len(w.series) == 0 {
		return nil, nil
	}
	if !s.ended && s.workers < runtime.GOMAXPROCS(0) {
		// There is more: another worker can read on while this one evaluates.
		s.workers++
		s.running.Add(1)
		go s.work()
	}
	before, done = s.added, make(chan struct{})
	s.added = done
	return before, done
}

func (s *scan) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
}

func (s *scan) failLocked(err error) {
	if s.err == nil {
		s.err = err
		s.cancel()
	}
}

func (s *scan) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// add adds a batch to the groups.
func (s *scan) add(w *batch) error {
	for i := range w.series {
		c := &w.columns[i]
		if !w.some[i] {
			continue
		}
		ls := w.series[i].labels
		if err := s.check(ls); err != nil {
			return err
		}
		if c.Count() == 0 {
			continue
		}
		if err := s.groups.Add(w.key(i), c, func() labels.Labels { return s.by.labels(s.outputLabels(ls)) }); err != nil {
			return err
		}
	}
	return nil
}

// outputLabels are the labels of what the function makes of a series.
func (s *scan) outputLabels(ls labels.Labels) labels.Labels {
	if s.keepsName() {
		return ls
	}
	return ls.DropReserved(schema.IsMetadataLabel)
}

// check does what the engine does once per series with a result: series that are equal without their
// names are an error, and rates of what is not named like a counter are noted.
func (s *scan) check(ls labels.Labels) error {
	if s.keepsName() {
		return nil
	}
	name := ls.Get(model.MetricNameLabel)
	if s.unique != nil {
		h := s.outputLabels(ls).Hash()
		if _, ok := s.unique[h]; ok {
			return extlabels.ErrDuplicateLabelSet
		}
		if err := s.q.reserve(hashBytes); err != nil {
			return err
		}
		s.unique[h] = struct{}{}
	} else if ls.Get("__type__") != "" || ls.Get("__unit__") != "" {
		return errNotStreamed
	}
	if s.checked && name == s.metric {
		return nil
	}
	s.checked, s.metric = true, name
	if (s.function.Name == "rate" || s.function.Name == "increase") && name != "" && !namedLikeCounter(name) {
		warnings.AddToContext(annotations.NewPossibleNonCounterInfo(name, s.position), s.ctx)
	}
	return nil
}

// hashBytes is what a hash takes in a map, roughly.
const hashBytes = 24

func namedLikeCounter(name string) bool {
	for _, suffix := range []string{"_total", "_sum", "_count", "_bucket"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}
