package dedup

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// stay is the iterator of mode Stay. The numbers in its comments are those of the package comment.
type stay struct {
	opts     Options
	replicas []replica
	on       int // the replica that is stayed on
	copies   int // how many replicas besides it copy it
	interval interval

	started  bool
	last     sample  // as handed out; its t is the smallest there is before the first
	switched bool    // last is the first sample of another replica
	shift    float64 // what is added to the totals of the replica stayed on
	total    float64 // the last total handed out
	hasTotal bool
	marker   bool // last is a marker that was made here, and no sample of the replica
	err      error
}

func (s *stay) reset(replicas []chunkenc.Iterator, opts Options) {
	old := s.replicas
	*s = stay{opts: opts, replicas: old[:0], last: sample{t: math.MinInt64}}
	for i, it := range replicas {
		if i < cap(old) {
			s.replicas = s.replicas[:i+1]
		} else {
			s.replicas = append(s.replicas, replica{})
		}
		s.replicas[i].reset(it)
	}
}

// Next moves to the next merged sample.
func (s *stay) Next() chunkenc.ValueType {
	if s.err != nil {
		return chunkenc.ValNone
	}
	if !s.started {
		s.start()
		return s.turn()
	}
	if s.last.kind == chunkenc.ValNone {
		return chunkenc.ValNone
	}
	if s.marker {
		return s.turn()
	}
	r := &s.replicas[s.on]
	r.next()
	if s.copies > 0 {
		return s.nextOfCopies()
	}
	// The fast path (2): the replica delivers.
	if !r.done() && !r.cur.stale && r.cur.t <= s.interval.after(s.last.t, 3) {
		s.interval.add(r.cur.t - s.last.t)
		s.emit(s.on)
		return s.last.kind
	}
	return s.turn()
}

// start learns the interval and puts each replica on its first sample.
func (s *stay) start() {
	s.started = true
	for i := range s.replicas {
		r := &s.replicas[i]
		if learned := r.learn(); learned.n > 0 && (s.interval.n == 0 || learned.less(&s.interval)) {
			s.interval = learned
		}
		r.next()
	}
	s.on = -1
}

// nextOfCopies walks replicas with equal samples together (5). The one stayed on has been moved already.
func (s *stay) nextOfCopies() chunkenc.ValueType {
	earliest := int64(math.MaxInt64)
	for i := range s.replicas {
		r := &s.replicas[i]
		if !r.copies {
			continue
		}
		if i != s.on && !r.done() && r.cur.t <= s.last.t {
			r.next()
		}
		for s.invented(r) {
			r.next()
		}
		if !r.done() && r.cur.t < earliest {
			earliest = r.cur.t
		}
	}
	pick := s.greatestAt(earliest, func(r *replica) bool { return r.copies })
	if pick < 0 || earliest > s.interval.after(s.last.t, 3) || s.replicas[pick].cur.stale {
		return s.turn()
	}
	s.interval.add(earliest - s.last.t)
	chosen := s.replicas[pick].cur
	s.follow(pick, func(r *replica) bool {
		// A hole leaves a copy what it is; another value or another rhythm does not.
		hole := r.done() || r.cur.t >= s.interval.after(earliest, 1)
		return r.copies && (hole || r.cur.t == earliest && compare(&r.cur, &chosen) == 0)
	})
	return s.last.kind
}

// turn chooses where to go on when the replica stayed on is late, stale or at its end (3, 6).
func (s *stay) turn() chunkenc.ValueType {
	s.interval.learn()
	if s.cutOff() {
		return s.end(nil)
	}
	from := s.last.t
	if s.last.kind != chunkenc.ValNone {
		from = max(from+1, s.interval.after(from, 1))
	}
	stale, earliest, own := int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64)
	for i := range s.replicas {
		r := &s.replicas[i]
		if !r.copies {
			s.bring(r, from)
		}
		r.alive(s.last.t)
		for !r.copies && s.invented(r) {
			r.next()
			r.alive(s.last.t)
		}
		if err := r.it.Err(); err != nil && r.done() {
			return s.end(err)
		}
		if r.hasStale {
			stale = min(stale, r.staleAt)
		}
		if !r.done() {
			earliest = min(earliest, r.cur.t)
			if r.copies {
				own = min(own, r.cur.t)
			}
		}
	}
	// A stream that never began, or whose end was marked already, needs no marker.
	if stale != math.MaxInt64 && s.aliveAfter(stale) > s.interval.after(stale, 3) && s.last.kind != chunkenc.ValNone && !s.last.stale {
		s.last = sample{t: stale, kind: chunkenc.ValFloat, f: math.Float64frombits(value.StaleNaN), stale: true}
		s.marker, s.switched = true, false
		return s.last.kind
	}
	if s.on < 0 {
		earliest = s.home(earliest)
	}
	// What is stayed on is as good as another that is earlier by less than half an interval.
	var pick int
	if own != math.MaxInt64 && own < s.interval.after(earliest, 1) {
		pick = s.greatestAt(own, func(r *replica) bool { return r.copies })
	} else {
		pick = s.greatestAt(earliest, func(*replica) bool { return true })
	}
	if pick < 0 {
		return s.end(nil)
	}
	chosen := s.replicas[pick].cur
	if s.replicas[pick].copies && !s.marker {
		s.interval.add(chosen.t - s.last.t)
	}
	s.follow(pick, func(r *replica) bool { return r.cur.t == chosen.t && compare(&r.cur, &chosen) == 0 })
	return s.last.kind
}

// home returns the time of the first sample to begin with (7): among the replicas that begin within 1.5 I of
// the earliest, that of the one which scrapes first in the interval. Wherever a reader begins, it is the
// same replica.
func (s *stay) home(earliest int64) int64 {
	whole := s.interval.whole()
	if whole == 0 {
		return earliest
	}
	best, bestPhase := earliest, int64(math.MaxInt64)
	for i := range s.replicas {
		r := &s.replicas[i]
		if r.done() || r.cur.t >= s.interval.after(earliest, 3) {
			continue
		}
		phase := r.cur.t % whole
		if phase < 0 {
			phase += whole
		}
		if phase < bestPhase || phase == bestPhase && r.cur.t < best {
			best, bestPhase = r.cur.t, phase
		}
	}
	return best
}

// aliveAfter returns when the first of the replicas that did not end at this very moment has its next sample.
// Those that did and came back at once saw the same end (5).
func (s *stay) aliveAfter(stale int64) int64 {
	earliest := int64(math.MaxInt64)
	for i := range s.replicas {
		if r := &s.replicas[i]; !r.done() && !(r.hasStale && r.staleAt == stale) {
			earliest = min(earliest, r.cur.t)
		}
	}
	return earliest
}

// cutOff tells whether the replica stayed on ended because no more of it was read: its next sample may lie
// behind the time up to which replicas were read. The others need not be looked at then.
func (s *stay) cutOff() bool {
	if s.opts.Until == 0 || s.on < 0 || s.marker || s.interval.after(s.last.t, 3) <= s.opts.Until {
		return false
	}
	for i := range s.replicas {
		if r := &s.replicas[i]; r.copies && (!r.done() || r.it.Err() != nil) {
			return false
		}
	}
	return true
}

func (s *stay) end(err error) chunkenc.ValueType {
	s.err = err
	s.last.kind = chunkenc.ValNone
	return chunkenc.ValNone
}

// bring moves a replica that was not followed to its first sample at or after t, so that the sample
// before it is known where there is one nearby.
func (s *stay) bring(r *replica, t int64) {
	if r.done() || r.cur.t >= t {
		return
	}
	if near := t - 4*s.interval.length; r.cur.t < near && near < t {
		r.seek(near)
	}
	if r.staleAt <= s.last.t {
		r.hasStale = false
	}
	for !r.done() && r.cur.t < t {
		if r.cur.stale && r.cur.t > s.last.t && !r.hasStale {
			r.staleAt, r.hasStale = r.cur.t, true
		}
		if !r.cur.stale && r.hasStale && r.cur.t > r.staleAt {
			r.hasStale = false // it came back
		}
		r.next()
	}
}

// invented tells whether handing out the replica's sample would show a fall that it has not seen (4).
func (s *stay) invented(r *replica) bool {
	if !s.opts.Counter || s.opts.Totals || r.done() || r.cur.stale || r.cur.gauge || s.last.kind != r.cur.kind || s.last.stale {
		return false
	}
	if !(r.cur.f < s.last.f) || r.cur.t >= s.interval.after(s.last.t, 3) {
		return false
	}
	fell := r.prev.kind == r.cur.kind && !r.prev.stale && r.cur.f < r.prev.f
	return !fell
}

// greatestAt returns the replica among those wanted that has the greatest sample at t, the one stayed
// on before its equals, -1 if there is none.
func (s *stay) greatestAt(t int64, wanted func(*replica) bool) int {
	best := -1
	for i := range s.replicas {
		r := &s.replicas[i]
		if r.done() || r.cur.t != t || !wanted(r) {
			continue
		}
		if best < 0 {
			best = i
			continue
		}
		if c := compare(&r.cur, &s.replicas[best].cur); c > 0 || c == 0 && i == s.on {
			best = i
		}
	}
	return best
}

// follow hands out the sample of a replica, stays on it and marks which of the others copy it.
func (s *stay) follow(pick int, copies func(*replica) bool) {
	s.copies = 0
	for i := range s.replicas {
		r := &s.replicas[i]
		r.copies = i == pick || copies(r)
		if r.copies && i != pick {
			s.copies++
		}
	}
	s.emit(pick)
}

func (s *stay) emit(i int) {
	r := &s.replicas[i]
	s.switched = i != s.on || s.marker
	if s.switched && s.opts.Totals {
		s.shift = s.continued(r)
	}
	s.on, s.marker = i, false
	s.last = r.cur
	if s.opts.Totals && r.cur.kind == chunkenc.ValFloat {
		s.last.f += s.shift
		s.total, s.hasTotal = s.last.f, true
	}
}

// continued returns what must be added to the replica's totals so that they go on from the last one.
func (s *stay) continued(r *replica) float64 {
	if !s.hasTotal || r.cur.kind != chunkenc.ValFloat {
		return 0
	}
	grown := 0.0
	if r.prev.kind == chunkenc.ValFloat && r.cur.f > r.prev.f {
		grown = r.cur.f - r.prev.f
	}
	return s.total + grown - r.cur.f
}

// Seek moves to the first merged sample at or after t. It walks, so that the samples are the same
// whatever was sought.
//
//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (s *stay) Seek(t int64) chunkenc.ValueType {
	if s.started && s.err == nil && s.last.kind != chunkenc.ValNone && s.last.t >= t {
		return s.last.kind
	}
	for {
		if kind := s.Next(); kind == chunkenc.ValNone || s.last.t >= t {
			return kind
		}
	}
}

// At returns the current float sample.
func (s *stay) At() (int64, float64) { return s.last.t, s.last.f }

// AtHistogram returns the current histogram; h may be reused.
func (s *stay) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	r := &s.replicas[s.on]
	if ahead, _ := r.current(); ahead != nil {
		if h == nil {
			h = &histogram.Histogram{}
		}
		ahead.CopyTo(h)
	} else {
		_, h = r.it.AtHistogram(h)
	}
	h.CounterResetHint = s.hint(h.CounterResetHint)
	return s.last.t, h
}

// AtFloatHistogram returns the current histogram of either kind as a float histogram; fh may be reused.
func (s *stay) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	r := &s.replicas[s.on]
	switch ahead, aheadF := r.current(); {
	case ahead != nil:
		fh = ahead.ToFloat(fh)
	case aheadF != nil:
		if fh == nil {
			fh = &histogram.FloatHistogram{}
		}
		aheadF.CopyTo(fh)
	default:
		_, fh = r.it.AtFloatHistogram(fh)
	}
	fh.CounterResetHint = s.hint(fh.CounterResetHint)
	return s.last.t, fh
}

// hint takes back what a replica says about resets since its own previous sample where that is not
// the sample handed out before.
func (s *stay) hint(h histogram.CounterResetHint) histogram.CounterResetHint {
	if s.switched && h != histogram.GaugeType {
		return histogram.UnknownCounterReset
	}
	return h
}

// AtT returns the time of the current sample.
func (s *stay) AtT() int64 { return s.last.t }

// Err returns what ended the stream early.
func (s *stay) Err() error { return s.err }
