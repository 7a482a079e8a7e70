package dedup

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// item is a sample on its way out.
type item struct {
	held
	replica int
	own     sample // the replica's own sample before; kind ValNone if none is known
}

// stay is the iterator of mode Stay. The rules and invariants in its comments are those of DESIGN.md.
type stay struct {
	opts     Options
	replicas []replica
	scores   []score
	equal    []int // timestamps that two replicas have in common, a row for each replica
	bits     uint  // of the last cell
	seg      segment
	learned  bool // seg is that of a cell
	alone    bool // the base is one replica without copies
	begun    bool

	baseT   int64     // time of the last of the base that stands
	based   bool      // there is one
	before  int64     // time of the last of the base, whether it stands or not
	recent  [4]sample // the last ones pushed, taken or not: no more lie within one and a half intervals
	recents int
	taken   bool
	takenT  int64  // time of the last one taken
	queue   []item // decided, in order
	at      int
	ended   bool // nothing will come into the queue any more

	last     held   // as handed out
	raw      sample // the same as it was scraped
	total    float64
	shift    float64
	hasTotal bool
	joined   bool // last follows the replica's own sample before
	err      error
}

func (s *stay) reset(replicas []chunkenc.Iterator, opts Options) {
	n := len(replicas)
	old := s.replicas[:cap(s.replicas)]
	for len(old) < n {
		old = append(old, replica{})
	}
	seg := segment{order: s.seg.order, copies: s.seg.copies, until: math.MinInt64}
	clear(s.queue)
	*s = stay{opts: opts, replicas: old[:n], scores: s.scores, equal: s.equal, seg: seg, queue: s.queue[:0], bits: 14, before: math.MinInt64}
	if cap(s.scores) < n {
		s.scores, s.equal = make([]score, n), make([]int, n*n)
		s.seg.order, s.seg.copies = make([]int, n), make([]bool, n)
	}
	s.scores, s.equal = s.scores[:n], s.equal[:n*n]
	s.seg.order, s.seg.copies = s.seg.order[:n], s.seg.copies[:n]
	for i, it := range replicas {
		s.seg.order[i], s.seg.copies[i] = i, false
		s.replicas[i].reset(it)
	}
}

// Next moves to the next merged sample.
func (s *stay) Next() chunkenc.ValueType {
	if s.at == len(s.queue) && s.alone && s.follow() {
		return s.last.kind
	}
	for s.at == len(s.queue) {
		if s.ended {
			s.last.kind = chunkenc.ValNone
			return chunkenc.ValNone
		}
		clear(s.queue)
		s.queue, s.at = s.queue[:0], 0
		s.advance()
	}
	s.hand(&s.queue[s.at])
	s.at++
	return s.last.kind
}

// follow is the fast path: the base is one replica, and its next sample follows the one handed out, in time.
func (s *stay) follow() bool {
	r := &s.replicas[s.seg.order[0]]
	i := r.next
	if i == 0 || i >= len(r.times) {
		return false
	}
	t, own := r.times[i], r.times[i-1]
	if t >= s.seg.until || t-own > s.seg.late || own != s.baseT || own != s.takenT || own != s.raw.t {
		return false
	}
	r.next++
	s.joined = true
	s.last = r.buf[i]
	s.raw = s.last.sample
	s.before, s.baseT, s.takenT = t, t, t
	if s.opts.Totals {
		if s.raw.kind == chunkenc.ValFloat {
			s.last.f += s.shift
			s.total, s.hasTotal = s.last.f, true
		}
	} else if s.opts.Counter {
		// It can't be invented: the one before was not, and a fall since is the replica's own.
		s.recent[s.recents%len(s.recent)] = s.raw
		s.recents++
	}
	return true
}

// hand makes an item the current sample.
func (s *stay) hand(it *item) {
	s.joined = s.begun && it.own.kind != chunkenc.ValNone && it.own.t == s.raw.t && compare(&it.own, &s.raw) == 0
	since := s.raw.t
	s.last, s.raw, s.begun = it.held, it.sample, true
	if !s.opts.Totals || it.kind != chunkenc.ValFloat || value.IsStaleNaN(it.f) {
		return
	}
	if !s.joined && s.hasTotal {
		s.shift = s.total - it.f
		if it.own.kind == it.kind && it.f > it.own.f {
			// Its growth since the sample handed out before, or that part of its growth since its own.
			s.shift += (it.f - it.own.f) * min(1, float64(it.t-since)/float64(it.t-it.own.t))
		}
	}
	s.last.f += s.shift
	s.total, s.hasTotal = s.last.f, true
}

// advance decides at least one more sample, or ends the stream. The next sample of the base is found
// first, then what lies between it and the one before.
func (s *stay) advance() {
	for len(s.queue) == 0 && !s.ended {
		n, ok := s.nextBase()
		if !ok {
			s.finish()
			return
		}
		near := s.before != math.MinInt64 && n.t < add(s.before, s.seg.half) && !s.ofBase(s.before)
		s.before = n.t
		if near { // (3)
			continue
		}
		p := int64(math.MinInt64)
		if s.based {
			p = s.baseT
		}
		if s.hole(p, n.t) {
			s.fill(0, p, n.t)
		}
		s.push(n)
		s.baseT, s.based = n.t, true
	}
}

// ofBase tells whether the replica that is the base now, or a copy of it, has a sample at t.
func (s *stay) ofBase(t int64) bool {
	for i := range s.replicas {
		r := &s.replicas[i]
		if j := r.at(t, r.next); s.seg.copies[i] && j < len(r.times) && r.times[j] == t {
			return true
		}
	}
	return false
}

// finish decides what follows the last of the base, and reports what stopped a replica.
func (s *stay) finish() {
	s.ended = true
	for i := range s.replicas {
		if err := s.replicas[i].it.Err(); err != nil {
			s.err = err
			return
		}
	}
	if s.based {
		s.fill(0, s.baseT, math.MaxInt64)
		s.mark(math.MaxInt64)
	}
}

// nextBase returns the next sample of the base (1, 2).
func (s *stay) nextBase() (item, bool) {
	for {
		pick, t := -1, s.seg.until
		for _, i := range s.seg.order {
			r := &s.replicas[i]
			if !s.seg.copies[i] || r.next == len(r.times) || r.times[r.next] >= s.seg.until {
				continue
			}
			if at := r.times[r.next]; at < t || pick >= 0 && at == t && s.greater(i, pick) {
				pick, t = i, at
			}
		}
		if pick >= 0 {
			n := s.item(pick, s.replicas[pick].next)
			for i := range s.replicas {
				if r := &s.replicas[i]; s.seg.copies[i] && r.next < len(r.times) && r.times[r.next] == t {
					r.next++
				}
			}
			return n, true
		}
		if !s.nextSegment() {
			return item{}, false
		}
	}
}

// greater tells whether of two copies' samples at one time the first is to be taken.
func (s *stay) greater(i, j int) bool {
	a, b := &s.replicas[i], &s.replicas[j]
	return compare(&a.buf[a.next].sample, &b.buf[b.next].sample) > 0
}

// nextSegment goes on to the first segment that has a sample; false when there is none.
func (s *stay) nextSegment() bool {
	t := int64(math.MaxInt64)
	found := false
	for i := range s.replicas {
		r := &s.replicas[i]
		r.next = r.at(s.seg.until, r.next)
		r.readTo(s.seg.until)
		r.next = r.at(s.seg.until, r.next)
		if r.ended && r.it.Err() != nil {
			return false
		}
		if r.next < len(r.times) {
			t, found = min(t, r.times[r.next]), true
		}
	}
	if !found {
		return false
	}
	if s.based {
		for i := range s.replicas {
			s.replicas[i].forget(s.baseT)
		}
	}
	s.segmentAt(t)
	return true
}

// item describes the i-th sample of a replica.
func (s *stay) item(replica, i int) item {
	r := &s.replicas[replica]
	it := item{held: r.buf[i], replica: replica}
	if i > 0 {
		it.own = r.buf[i-1].sample
	}
	return it
}

// hole tells whether a sample is missing between two neighbours; the ends of time stand for none.
func (s *stay) hole(p, n int64) bool {
	return p == math.MinInt64 || n == math.MaxInt64 || n-p > s.seg.late
}

// fill takes into the hole between p and n what the replicas have that lies at least half an interval from
// either end, the best replica first, the others into the holes that it leaves (4).
func (s *stay) fill(rank int, p, n int64) {
	if rank == len(s.seg.order) {
		return
	}
	from, to := p, n
	if p != math.MinInt64 {
		from = add(p, max(1, s.seg.half))
	}
	if n != math.MaxInt64 {
		to = add(n, -max(1, s.seg.half))
	}
	of := s.seg.order[rank]
	r := &s.replicas[of]
	for i := r.at(from, r.next); i < len(r.times) && r.times[i] <= to; i++ {
		t := r.times[i]
		if s.hole(p, t) {
			s.fill(rank+1, p, t)
		}
		s.push(s.item(of, i))
		p = t
	}
	if s.hole(p, n) {
		s.fill(rank+1, p, n)
	}
}

// push decides on the next sample in order: it is passed over if it shows a fall that its replica has not
// seen (5). What comes before it and after the last one taken may be marked as stale (6).
func (s *stay) push(n item) {
	if s.opts.Counter && !s.opts.Totals {
		invented := s.invented(&n)
		s.recent[s.recents%len(s.recent)] = n.sample
		s.recents++
		if invented {
			return
		}
	}
	if s.taken && n.t-s.takenT > s.seg.late {
		s.mark(n.t)
	}
	s.taken, s.takenT = true, n.t
	s.queue = append(s.queue, n)
}

// invented tells whether a sample lies below one that came less than one and a half intervals before it,
// though its own replica has not seen a fall since.
func (s *stay) invented(n *item) bool {
	if n.gauge {
		return false
	}
	for i := range s.recent {
		q := &s.recent[i]
		if q.kind == n.kind && n.f < q.f && n.t < add(q.t, s.seg.late) {
			if r := &s.replicas[n.replica]; !r.fell(r.at(n.t, r.next), q.t) {
				return true
			}
		}
	}
	return false
}

// mark hands out the first staleness marker between the last sample and n that no living replica contradicts:
// one without that very marker and with a sample within one and a half intervals. Copies of a series that is
// back at the next scrape agree that it was gone. A marker more than four intervals after the last sample
// says nothing that the absence of samples does not.
func (s *stay) mark(n int64) {
	first := int64(math.MaxInt64)
	for i := range s.replicas {
		for _, m := range s.replicas[i].marks {
			if m <= s.takenT || m >= min(first, n) {
				continue
			}
			if (s.seg.interval == 0 || m <= add(s.takenT, 4*s.seg.interval)) && !s.contradicted(m) {
				first = m
			}
		}
	}
	if first != math.MaxInt64 {
		m := sample{t: first, kind: chunkenc.ValFloat, f: math.Float64frombits(value.StaleNaN)}
		s.queue = append(s.queue, item{held: held{sample: m}, replica: -1})
	}
}

func (s *stay) contradicted(m int64) bool {
	for i := range s.replicas {
		r := &s.replicas[i]
		r.readTo(add(m, s.seg.late))
		if j := r.at(m, r.next); j < len(r.times) && r.times[j] <= add(m, s.seg.late) && !slices.Contains(r.marks, m) {
			return true
		}
	}
	return false
}

// Seek moves to the first merged sample at or after t.
//
//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (s *stay) Seek(t int64) chunkenc.ValueType {
	if s.begun && s.last.kind != chunkenc.ValNone && s.last.t >= t {
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
	if h == nil {
		h = &histogram.Histogram{}
	}
	s.last.h.CopyTo(h)
	h.CounterResetHint = s.hint(h.CounterResetHint)
	return s.last.t, h
}

// AtFloatHistogram returns the current histogram of either kind as a float histogram; fh may be reused.
func (s *stay) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	switch {
	case s.last.h != nil:
		fh = s.last.h.ToFloat(fh)
	case fh == nil:
		fh = s.last.fh.Copy()
	default:
		s.last.fh.CopyTo(fh)
	}
	fh.CounterResetHint = s.hint(fh.CounterResetHint)
	return s.last.t, fh
}

// hint takes back what a replica says about resets since its own previous sample where that is not the
// sample handed out before.
func (s *stay) hint(h histogram.CounterResetHint) histogram.CounterResetHint {
	if !s.joined && h != histogram.GaugeType {
		return histogram.UnknownCounterReset
	}
	return h
}

// AtT returns the time of the current sample.
func (s *stay) AtT() int64 { return s.last.t }

// Err returns what ended the stream early.
func (s *stay) Err() error { return s.err }
