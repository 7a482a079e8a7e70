package resilient

import (
	"context"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/latency"
)

const (
	// A second request goes out when the first takes longer than this quantile of those before, but not before the
	// least: what is that quick is not worth a request.
	hedgeQuantile = 0.95
	hedgeDelayMin = 5 * time.Millisecond
)

// hedged are the operations that are asked a second time. A listing is not: it hands out as it goes.
var hedged = []string{objstore.OpGet, objstore.OpGetRange, objstore.OpExists, objstore.OpAttributes}

// usual is how long an operation takes until its answer begins.
type usual struct{ half, most *latency.Estimator }

func newUsual() *usual { return &usual{latency.New(0.5), latency.New(hedgeQuantile)} }

func (u *usual) observe(d time.Duration) {
	u.half.Observe(d)
	u.most.Observe(d)
}

// answer is how an attempt ended.
type answer[R any] struct {
	value  R
	err    error
	second bool
}

// hedge does something, and does it a second time when the first is late. The answer that comes first counts; the other
// attempt is cancelled, and what it still brings is dropped. An error counts only if another attempt would end with it
// too, or if there is no other. The context of the answer that counts lives until release is called; after an error it
// is nil.
//
// It is not failsafe's hedging: that has no bound over all requests, and does not close the body that a loser brings.
func hedge[R any](ctx context.Context, b *Bucket, op string, drop func(R), do func(context.Context) (R, error)) (_ R, release context.CancelFunc, _ error) {
	b.hedges.earn()
	u := b.learned[op]
	start := time.Now()
	// Both have room, so that no attempt waits for somebody who has left.
	answers := make(chan answer[R], 2)
	var cancels [2]context.CancelFunc
	open := 0
	attempt := func(second bool) {
		actx, cancel := context.WithCancel(ctx)
		if second {
			cancels[1] = cancel
		} else {
			cancels[0] = cancel
		}
		open++
		b.running.Go(func() {
			value, err := do(actx)
			answers <- answer[R]{value, err, second}
		})
	}
	attempt(false)
	begun := 1
	timer := newTimer(u)
	defer timer.Stop()
	// leave cancels all attempts but one, and sees to what they still bring.
	leave := func(but int) {
		for i := range begun {
			if i != but {
				cancels[i]()
			}
		}
		if open > 0 {
			b.running.Go(func() {
				for range open {
					if a := <-answers; a.err == nil && drop != nil {
						drop(a.value)
					}
				}
			})
		}
	}

	var none R
	for {
		select {
		case <-timer.C:
			if !b.hedges.take() {
				b.metrics.hedgesWithheld.WithLabelValues(op).Inc()
				continue
			}
			b.metrics.hedges.WithLabelValues(op).Inc()
			attempt(true)
			begun++
		case a := <-answers:
			open--
			if a.err != nil {
				if open > 0 && !b.permanent(a.err) {
					continue
				}
				leave(-1)
				return none, nil, a.err
			}
			u.observe(time.Since(start)) // a first attempt that lost was at least this late
			i := 0
			if a.second {
				b.metrics.hedgesWon.WithLabelValues(op).Inc()
				i = 1
			}
			leave(i)
			return a.value, cancels[i], nil
		case <-ctx.Done():
			leave(-1)
			return none, nil, context.Cause(ctx)
		}
	}
}

// newTimer tells when the first attempt is late. As long as too little is known that is never.
func newTimer(u *usual) *time.Timer {
	delay, known := u.most.Value()
	if !known {
		t := time.NewTimer(time.Hour)
		t.Stop()
		return t
	}
	return time.NewTimer(max(delay, hedgeDelayMin))
}
