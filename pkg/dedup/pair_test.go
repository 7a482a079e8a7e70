package dedup

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
)

// pairs is how many generated pairs a test looks at: few, always the same, or KOIOS_DEDUP_PAIRS of them.
func pairs(few int) int {
	if n, err := strconv.Atoi(os.Getenv("KOIOS_DEDUP_PAIRS")); err == nil {
		return n
	}
	return few
}

// pair is a counter and two servers that scrape it, neither of which misses nothing, but never both at once,
// and what one of them would hold if it missed nothing.
type pair struct {
	rnd      *rand.Rand
	interval int64
	rate     float64   // growth a second
	restarts []int64   // times in ms
	total    []float64 // true growth up to the start of each quarter, without regard to restarts
	replicas [][]point
	never    []point
}

// newPair makes a pair that scrapes n times.
func newPair(seed uint64, n int) *pair {
	p := &pair{rnd: rand.New(rand.NewPCG(seed, 7))}
	p.interval = []int64{1_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000}[p.rnd.IntN(8)]
	p.rate = math.Exp(p.rnd.Float64() * 8)
	for range p.rnd.IntN(3) {
		p.restarts = append(p.restarts, p.rnd.Int64N(p.interval*int64(n)))
	}
	slices.Sort(p.restarts)
	p.total = append(p.total, 0)
	wobble := []float64{0, 0.05, 0.5}[p.rnd.IntN(3)]
	for range 4 * (n + 4) {
		q := 1 + wobble*(2*p.rnd.Float64()-1)
		p.total = append(p.total, p.total[len(p.total)-1]+q*p.rate*float64(p.interval)/4000)
	}
	// Outages, in turns of the two at random, with time in between when both work.
	down := [2]map[int]bool{{}, {}}
	mean := 10 + p.rnd.IntN(30)
	for i := p.rnd.IntN(10 * mean); i < n; {
		who, run := p.rnd.IntN(2), 1+p.rnd.IntN(2*mean-1)
		for j := range run {
			down[who][i+j] = true
		}
		// 6 % of each: a pause of 1/0.06/2 runs, and two scrapes at least.
		i += run + 2 + p.rnd.IntN(1+2*int(float64(mean)*7.3))
	}
	jitter := []int64{0, 2, p.interval / 100, p.interval / 50}[p.rnd.IntN(4)]
	phase := [2]int64{p.rnd.Int64N(p.interval), p.rnd.Int64N(p.interval)}
	if p.rnd.IntN(10) == 0 {
		phase[1] = phase[0] + p.rnd.Int64N(3) // near-equal scrapes
	}
	p.replicas = make([][]point, 2)
	luckier := int(seed % 2)
	for i := range n {
		for who := range p.replicas {
			t := phase[who] + int64(i)*p.interval
			if jitter > 0 {
				t += p.rnd.Int64N(jitter + 1)
			}
			s := point{t: t, v: p.at(t)}
			if who == luckier {
				p.never = append(p.never, s)
			}
			if !down[who][i] {
				p.replicas[who] = append(p.replicas[who], s)
			}
		}
	}
	return p
}

// grown is the true growth from the beginning to t.
func (p *pair) grown(t int64) float64 {
	if t <= 0 {
		return 0
	}
	q := p.interval / 4
	i := min(int(t/q), len(p.total)-2)
	part := float64(t-int64(i)*q) / float64(q)
	return p.total[i] + part*(p.total[i+1]-p.total[i])
}

// at is the value of the counter: what it has grown since it last restarted.
func (p *pair) at(t int64) float64 {
	v := p.grown(t) + 1000*p.rate
	for _, r := range p.restarts {
		if r <= t {
			v = p.grown(t) - p.grown(r)
		}
	}
	return v
}

// Shows that the generator keeps what it promises: each misses 5 % or more, over many, and never both at once.
func TestPairs(t *testing.T) {
	const n = 1000
	have, want := [2]int{}, 0
	for seed := range uint64(200) {
		p := newPair(seed, n)
		want += n
		for who, r := range p.replicas {
			have[who] += len(r)
		}
		for i := range n {
			found := false
			for _, r := range p.replicas {
				found = found || len(between(r, int64(i)*p.interval, int64(i+2)*p.interval)) > 0
			}
			if !found {
				t.Fatalf("seed %d: both miss scrape %d", seed, i)
			}
		}
	}
	for who := range have {
		if float64(have[who]) > 0.95*float64(want) {
			t.Errorf("replica %d has %d of %d samples", who, have[who], want)
		}
	}
	t.Logf("%d and %d of %d", have[0], have[1], want)
}
