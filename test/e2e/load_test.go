//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/fleet"
)

const (
	// loadEvery is the time between two questions of a load.
	loadEvery = 50 * time.Millisecond
	// failuresShown bounds what is told of a load that failed.
	failuresShown = 10
)

// question is what a load asks and what is a right answer.
type question struct {
	query func() answer.Query
	check func(*answer.Answer) error
}

// load asks questions by turns, one after the other, until it is ended. It does what a balancer does: when a server can't
// be reached, the next one is asked.
type load struct {
	servers   []*container
	questions []question
	stop      chan struct{}
	done      chan struct{}

	mtx      sync.Mutex
	urls     []string // of the servers that take requests
	phase    string   // what is being done to the fleet
	asked    int
	failures []string
}

// startLoad starts a load on servers of which any can answer.
func startLoad(t *testing.T, servers []*container, questions ...question) *load {
	t.Helper()
	l := &load{servers: servers, questions: questions, stop: make(chan struct{}), done: make(chan struct{})}
	l.look("before")
	go l.run(t)
	t.Cleanup(l.end)
	return l
}

// look notes what is about to be done, and where the servers are now; without are those that get no new requests.
func (l *load) look(phase string, without ...*container) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	l.phase, l.urls = phase, nil
servers:
	for _, s := range l.servers {
		for _, w := range without {
			if w == s {
				continue servers
			}
		}
		l.urls = append(l.urls, s.url())
	}
}

func (l *load) run(t *testing.T) {
	defer close(l.done)
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		q := l.questions[i%len(l.questions)]
		l.mtx.Lock()
		urls, phase := l.urls, l.phase
		l.mtx.Unlock()
		query := q.query()
		began := time.Now()
		// All servers take part, and each is asked every question.
		first := i / len(l.questions) % max(1, len(urls))
		err := l.ask(t, append(urls[first:len(urls):len(urls)], urls[:first]...), query, q)
		l.mtx.Lock()
		l.asked++
		if err != nil {
			l.failures = append(l.failures, fmt.Sprintf("%s: %s after %v: %v", phase, query.Expr, time.Since(began), err))
		}
		l.mtx.Unlock()
	}
}

// ask asks the servers in turn until one can be reached.
func (l *load) ask(t *testing.T, urls []string, query answer.Query, q question) error {
	err := errors.New("no server takes requests")
	for _, u := range urls {
		var a *answer.Answer
		a, err = answer.Ask(t.Context(), u, query)
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			continue
		}
		if err == nil {
			err = q.check(a)
		}
		break
	}
	return err
}

// more waits until n more questions were asked.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		l.mtx.Lock()
		defer l.mtx.Unlock()
		return l.asked
	}
	began := count()
	fleet.Eventually(t, "the load goes on", wait, func() error {
		if asked := count() - began; asked < n {
			return fmt.Errorf("%d of %d questions", asked, n)
		}
		return nil
	})
}

func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	<-l.done
}

// endWithoutFailure ends the load and fails the test for each question that had no right answer.
func (l *load) endWithoutFailure(t *testing.T) {
	t.Helper()
	l.end()
	t.Logf("%d questions, %d failed", l.asked, len(l.failures))
	if l.asked == 0 {
		t.Error("the load has asked nothing")
	}
	if n := len(l.failures); n > 0 {
		t.Errorf("%d of %d questions failed:\n%s", n, l.asked, strings.Join(l.failures[:min(n, failuresShown)], "\n"))
	}
}
