package frontend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Shows that while all wait, tenants are let in by their weights, however many of one wait: of 90 places of a second each, a
// tenant of weight 2 gets 60 and one of weight 1 gets 30, though the second has ten times as many requests. A mutant that
// serves in order of arrival dies here.
func TestQueueIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(QueueConfig{Concurrent: 1, WaitingMax: 1000, Weights: map[string]float64{"small": 2}}, newMetrics(prometheus.NewRegistry()))
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		served := map[string]int{}
		var wg sync.WaitGroup
		add := func(tenant string, n int) {
			for range n {
				wg.Go(func() {
					leave, err := q.enter(ctx, tenant)
					if err != nil {
						return
					}
					defer leave()
					time.Sleep(time.Second)
					if ctx.Err() == nil {
						mu.Lock()
						served[tenant]++
						mu.Unlock()
					}
				})
			}
		}
		add("big", 900)
		synctest.Wait()
		add("small", 90)
		time.Sleep(90*time.Second + 500*time.Millisecond)
		mu.Lock()
		if served["small"] < 59 || served["small"] > 61 || served["big"]+served["small"] != 90 {
			t.Errorf("served %v", served)
		}
		mu.Unlock()
		cancel()
		wg.Wait()
		if q.waiting != 0 || len(q.lines) != 0 || q.free != 1 {
			t.Errorf("%d wait in %d lines, %d places are free", q.waiting, len(q.lines), q.free)
		}
	})
}

// Shows that a tenant whose line empties each time gets no more than its share.
func TestQueueEmptyingLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(QueueConfig{Concurrent: 2, WaitingMax: 1000}, newMetrics(prometheus.NewRegistry()))
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		served := map[string]int{}
		var wg sync.WaitGroup
		for tenant, clients := range map[string]int{"few": 4, "many": 40} {
			for range clients {
				wg.Go(func() {
					for ctx.Err() == nil {
						leave, err := q.enter(ctx, tenant)
						if err != nil {
							return
						}
						time.Sleep(time.Second)
						leave()
						mu.Lock()
						served[tenant]++
						mu.Unlock()
					}
				})
			}
		}
		time.Sleep(200*time.Second + time.Millisecond)
		mu.Lock()
		if n := served["few"]; n < 180 || n > 220 {
			t.Errorf("served %v: want half of 400 each", served)
		}
		mu.Unlock()
		cancel()
		wg.Wait()
	})
}

// Shows that a queue that is full refuses, that who leaves gives up the place in line, and that a place that is given at
// the moment somebody leaves is not lost.
func TestQueueBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(prometheus.NewRegistry())
		q := newQueue(QueueConfig{Concurrent: 1, WaitingMax: 2}, m)
		leave, err := q.enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wait := func(tenant string) {
			wg.Go(func() {
				leave, err := q.enter(ctx, tenant)
				if err == nil {
					leave()
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		for i := range queueTenants {
			wait(fmt.Sprint("t", i))
			wait(fmt.Sprint("t", i))
		}
		synctest.Wait()
		var over *overloadError
		if _, err := q.enter(t.Context(), "t3"); !errors.As(err, &over) || over.everybody {
			t.Errorf("a tenant with a full line: %v", err)
		}
		if _, err := q.enter(t.Context(), "other"); !errors.As(err, &over) || !over.everybody {
			t.Errorf("a full queue: %v", err)
		}
		if got := testutil.ToFloat64(m.queued); got != 2*queueTenants {
			t.Errorf("%v wait", got)
		}
		go leave()
		go cancel()
		wg.Wait()
		synctest.Wait()
		if q.free != 1 || q.waiting != 0 {
			t.Errorf("%d places are free, %d wait", q.free, q.waiting)
		}
	})
}

// Shows how overload is answered: 429 for a tenant's own, with Retry-After, in the usual form, and without asking again.
func TestOverloadIsAnswered(t *testing.T) {
	hold := make(chan struct{})
	entered := make(chan struct{}, 10)
	f := newFake(t, Config{Queue: QueueConfig{Concurrent: 1}, Range: RangeConfig{Attempts: 5}, InstantAttempts: 5}, func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-hold
		steps(w, r)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.do(t, "POST", rangePath, "query=up&start=60&end=120&step=30")
	}()
	<-entered
	for _, path := range []string{rangePath, "/api/v1/query", "/api/v1/labels"} {
		code, header, body := f.do(t, "POST", path, "query=up&start=60&end=120&step=30")
		if code != 503 && code != 429 || header.Get("Retry-After") == "" || header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v %s", path, code, header, body)
		}
	}
	close(hold)
	<-done
	f.front.Close()
	http.DefaultClient.CloseIdleConnections()
}

// Shows how often is asked: attempts in all, with times between that double, not after errors of the client's, not past
// the context, and never again after a success.
func TestAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := func(name string, n int, errs []error, wantCalls int, wantErr error) {
			t.Helper()
			calls, again := 0, -1
			begin := time.Now()
			_, err := attempt(t.Context(), n, func(n int) { again = n }, func(context.Context) (int, error) {
				calls++
				return 0, errs[min(calls, len(errs))-1]
			})
			if calls != wantCalls || !errors.Is(err, wantErr) && err != wantErr || n > 1 && again != calls-1 {
				t.Errorf("%s: called %d times, told %d again, %v", name, calls, again, err)
			}
			least := time.Duration(0)
			for i := range calls - 1 {
				least += min(retryWaitMin<<i, retryWaitMax) * 7 / 10
			}
			if took := time.Since(begin); took < least {
				t.Errorf("%s: took %s, at least %s was to be waited", name, took, least)
			}
		}
		lost := errors.New("connection reset")
		e500, e400 := error(&statusError{code: 500}), error(&statusError{code: 400})
		f("never again", 0, []error{lost}, 1, lost)
		f("once", 1, []error{lost}, 1, lost)
		f("five", 5, []error{lost}, 5, lost)
		f("heals", 5, []error{lost, e500, nil}, 3, nil)
		f("the client's", 5, []error{e400}, 1, e400)
		f("then the client's", 5, []error{e500, e400}, 2, e400)
		f("gone", 5, []error{context.Canceled}, 1, context.Canceled)
		f("too long", 5, []error{errTooLong}, 1, errTooLong)
		over := error(&overloadError{})
		f("overload", 5, []error{over}, 1, over)
	})
}
