package frontend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// QueueConfig says how many requests are asked of queriers at a time, and who waits.
type QueueConfig struct {
	// Concurrent is how many requests queriers have at a time; 0 is any number.
	Concurrent int
	// WaitingMax is how many requests of one tenant wait at a time, and of all tenants so many times tenantsMax; what
	// comes then is refused.
	WaitingMax int
	// Weights say how much of the time a tenant gets while others wait; 1 where there is none.
	Weights map[string]float64
}

// queueTenants is how many tenants can have full lines.
const queueTenants = 16

// overloadError refuses a request for which there is no room.
type overloadError struct {
	text string
	// everybody is true if it is not this tenant's doing.
	everybody bool
}

// Error implements error.
func (e *overloadError) Error() string { return e.text }

// queue lets requests through to the queriers, so many at a time. While there is no room they wait in lines by tenant,
// and each free place goes to the tenant that has had the least for its weight (stride scheduling). It may be used in
// parallel.
type queue struct {
	cfg     QueueConfig
	metrics *metrics

	mu      sync.Mutex
	free    int
	waiting int
	// passed is the pass of the tenant that was let in last: who comes to wait begins there.
	passed float64
	lines  map[string]*line
	// passes are those of tenants whose lines have emptied since there was nobody waiting: leaving the line earns nothing.
	passes map[string]float64
}

// line is the requests of a tenant that wait.
type line struct {
	// pass grows by 1/weight with each request let through.
	pass    float64
	waiters []*waiter
}

type waiter struct {
	admitted chan struct{}
	in       bool
}

func newQueue(cfg QueueConfig, m *metrics) *queue {
	return &queue{cfg: cfg, metrics: m, free: cfg.Concurrent, lines: map[string]*line{}, passes: map[string]float64{}}
}

// enter waits for a place and returns what gives it back. The errors are overloadErrors and those of the context.
func (q *queue) enter(ctx context.Context, tenant string) (leave func(), err error) {
	if q == nil || q.cfg.Concurrent <= 0 {
		return func() {}, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	if q.free > 0 {
		q.free--
		q.mu.Unlock()
		return q.leave, nil
	}
	w, err := q.waitLocked(tenant)
	q.mu.Unlock()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	defer func() { q.metrics.queueSeconds.Observe(time.Since(begin).Seconds()) }()
	select {
	case <-w.admitted:
		return q.leave, nil
	case <-ctx.Done():
		q.abandon(tenant, w)
		return nil, ctx.Err()
	}
}

func (q *queue) waitLocked(tenant string) (*waiter, error) {
	l := q.lines[tenant]
	switch {
	case l != nil && len(l.waiters) >= q.cfg.WaitingMax:
		q.metrics.refused.WithLabelValues("tenant").Inc()
		return nil, &overloadError{text: fmt.Sprintf("tenant %s has %d requests waiting: try again later", tenant, len(l.waiters))}
	case q.waiting >= q.cfg.WaitingMax*queueTenants:
		q.metrics.refused.WithLabelValues("all").Inc()
		return nil, &overloadError{text: fmt.Sprintf("%d requests are waiting: try again later", q.waiting), everybody: true}
	case l == nil:
		l = &line{pass: max(q.passed, q.passes[tenant])}
		q.lines[tenant] = l
	}
	w := &waiter{admitted: make(chan struct{})}
	l.waiters = append(l.waiters, w)
	q.waiting++
	q.metrics.queued.Set(float64(q.waiting))
	return w, nil
}

// leave gives a place to who is next.
func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free++
	q.admitLocked()
}

func (q *queue) admitLocked() {
	for q.free > 0 && q.waiting > 0 {
		var next *line
		var name string
		for tenant, l := range q.lines {
			if next == nil || l.pass < next.pass || l.pass == next.pass && tenant < name {
				next, name = l, tenant
			}
		}
		w := next.waiters[0]
		q.passed = next.pass
		next.pass += 1 / q.weight(name)
		q.removeLocked(name, 0)
		w.in = true
		q.free--
		close(w.admitted)
	}
}

func (q *queue) weight(tenant string) float64 {
	if w := q.cfg.Weights[tenant]; w > 0 {
		return w
	}
	return 1
}

func (q *queue) removeLocked(tenant string, i int) {
	l := q.lines[tenant]
	l.waiters = append(l.waiters[:i], l.waiters[i+1:]...)
	q.waiting--
	if len(l.waiters) == 0 {
		delete(q.lines, tenant)
		q.passes[tenant] = l.pass
	}
	if q.waiting == 0 {
		clear(q.passes)
	}
	q.metrics.queued.Set(float64(q.waiting))
}

// abandon takes out who does not wait any more; the place that it may have got goes to the next.
func (q *queue) abandon(tenant string, w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.in {
		q.free++
		q.admitLocked()
		return
	}
	if l := q.lines[tenant]; l != nil {
		for i, other := range l.waiters {
			if other == w {
				q.removeLocked(tenant, i)
				return
			}
		}
	}
}

// Validate tells what is wrong with the configuration.
func (c QueueConfig) Validate() error {
	if c.Concurrent < 0 || c.WaitingMax < 0 {
		return errors.New("a number of requests is negative")
	}
	for tenant, w := range c.Weights {
		if !(w > 0) || w > 1e6 {
			return fmt.Errorf("weight of tenant %s: %v is not above 0 and at most a million", tenant, w)
		}
	}
	return nil
}
