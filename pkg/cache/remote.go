package cache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koios-metrics/koios/pkg/gate"
)

// remoteConfig is what caches outside of this process have in common.
type remoteConfig struct {
	guardConfig
	// Prefix goes before every key.
	Prefix string
	// ItemBytesMax is the size past which a value is not kept, in bytes; 0 is no bound.
	ItemBytesMax int64
	// TTL is that of entries without one.
	TTL time.Duration
	// BatchMax is the number of keys asked for at a time; 0 is no bound.
	BatchMax int
	// QueueMax and Writers bound the entries that wait to be written and those who write; SetBatchMax is the number
	// written at a time.
	QueueMax, Writers, SetBatchMax int
}

// queueBytesMax bounds the values that wait to be written, in bytes: 10,000 entries of a megabyte would be 10 GB.
const queueBytesMax = 64 << 20

// remote is a cache in servers outside of this process.
type remote struct {
	cfg     remoteConfig
	servers serverSet
	gets    *gate.Gate
	sets    *gate.Gate // nil: no bound beside Writers
	metrics *remoteMetrics

	queue      chan Entry
	queueBytes atomic.Int64
	dropped    atomic.Int64 // entries, because the queue was full
	tooLarge   atomic.Int64 // entries
	ctx        context.Context
	cancel     context.CancelFunc
	running    sync.WaitGroup
}

// serverSet tells which server is asked for which key.
type serverSet interface {
	// all returns the servers. One that is closed since does nothing.
	all() []*guard
	// pick chooses among them.
	pick(servers []*guard, key string) int
	close()
}

func newRemote(cfg remoteConfig, servers serverSet, gets, sets *gate.Gate, m *remoteMetrics) *remote {
	r := &remote{cfg: cfg, servers: servers, gets: gets, sets: sets, metrics: m, queue: make(chan Entry, max(cfg.QueueMax, 1))}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for range max(cfg.Writers, 1) {
		r.running.Go(r.write)
	}
	return r
}

// Servers is the number of servers known now.
func (r *remote) Servers() int { return len(r.servers.all()) }

// Waiting is the number of entries that wait to be written.
func (r *remote) Waiting() int { return len(r.queue) }

// Dropped is how many entries were not kept because too many waited, TooLarge how many because of their size.
func (r *remote) Dropped() int64 { return r.dropped.Load() }

// TooLarge is told with Dropped.
func (r *remote) TooLarge() int64 { return r.tooLarge.Load() }

// batch is a part of a Fetch: some keys of one server.
type batch struct {
	guard  *guard
	keys   []string // as the server knows them
	places []int    // of the keys in the Fetch
	values [][]byte
	// state decides between the one who waits and the one who works.
	state atomic.Int32
}

const (
	batchRunning = iota
	batchDone
	batchGivenUp
)

// Fetch implements Cache.
func (r *remote) Fetch(ctx context.Context, keys []string) [][]byte {
	values := make([][]byte, len(keys))
	r.metrics.requests.Add(float64(len(keys)))
	batches, wait := r.batches(r.servers.all(), keys)
	if len(batches) == 0 {
		return values
	}
	// Those who still stand at the gate when the wait is over leave.
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	done := make(chan *batch, len(batches))
	for _, b := range batches {
		if !b.guard.background(func() { r.get(waiting, b); done <- b }) {
			done <- b
		}
	}

	hits := 0
	for open := len(batches); open > 0; {
		select {
		case b := <-done:
			open--
			hits += r.take(b, values)
		case <-waiting.Done():
			for _, b := range batches {
				if b.state.CompareAndSwap(batchRunning, batchGivenUp) && ctx.Err() == nil {
					b.guard.late()
					r.metrics.abandoned.Inc()
				}
			}
			// What was done before that is taken still.
			for len(done) > 0 {
				hits += r.take(<-done, values)
			}
			open = 0
		}
	}
	r.metrics.hits.Add(float64(hits))
	return values
}

// batches sorts keys by server and cuts them. Servers that are left alone are not asked.
func (r *remote) batches(servers []*guard, keys []string) (all []*batch, wait time.Duration) {
	if len(servers) == 0 {
		return nil, 0
	}
	current := make([]*batch, len(servers))
	asked := make([]int, len(servers))
	for i, k := range keys {
		wk := wireKey(r.cfg.Prefix, k)
		s := r.servers.pick(servers, wk)
		if !servers[s].available() {
			r.metrics.skip(opGet, reasonUnavailable)
			continue
		}
		b := current[s]
		if b == nil || r.cfg.BatchMax > 0 && len(b.keys) >= r.cfg.BatchMax {
			b = &batch{guard: servers[s]}
			current[s] = b
			all = append(all, b)
		}
		b.keys = append(b.keys, wk)
		b.places = append(b.places, i)
		asked[s]++
	}
	for s, n := range asked {
		if n > 0 {
			wait = max(wait, servers[s].wait(n))
		}
	}
	return all, wait
}

// get asks the server for a batch. It goes on after the wait is over, up to the timeout: that teaches what to expect.
func (r *remote) get(waiting context.Context, b *batch) {
	if err := r.gets.Start(waiting); err != nil {
		return
	}
	defer r.gets.Done()
	ctx, cancel := context.WithTimeout(b.guard.ctx, r.cfg.Timeout)
	defer cancel()
	start := time.Now()
	b.values = make([][]byte, len(b.keys))
	bytes := 0
	err := b.guard.get(ctx, b.keys, func(i int, value []byte) {
		b.values[i] = value
		bytes += len(value)
	})
	took := time.Since(start)
	givenUp := !b.state.CompareAndSwap(batchRunning, batchDone)
	if b.guard.ctx.Err() == nil {
		b.guard.done(took, givenUp, err)
	}
	r.metrics.observe(opGet, took, bytes, err)
}

// take checks and hands over what came.
func (r *remote) take(b *batch, values [][]byte) (hits int) {
	if b.state.Load() != batchDone {
		return 0
	}
	for i, raw := range b.values {
		if raw == nil {
			continue
		}
		value, err := decodeEntry(b.keys[i], raw)
		if err != nil {
			r.metrics.foreign.Inc()
			continue
		}
		values[b.places[i]] = value
		hits++
	}
	return hits
}

// Store implements Cache.
func (r *remote) Store(entries ...Entry) {
	for _, e := range entries {
		n := int64(len(e.Value))
		if r.cfg.ItemBytesMax > 0 && n+int64(entryHeader) > r.cfg.ItemBytesMax {
			r.tooLarge.Add(1)
			r.metrics.skip(opSet, reasonTooLarge)
			continue
		}
		if r.queueBytes.Add(n) > queueBytesMax {
			r.queueBytes.Add(-n)
			r.dropped.Add(1)
			r.metrics.skip(opSet, reasonQueueFull)
			continue
		}
		select {
		case r.queue <- e:
		default:
			r.queueBytes.Add(-n)
			r.dropped.Add(1)
			r.metrics.skip(opSet, reasonQueueFull)
		}
	}
}

// write writes entries of the queue until the cache is closed.
func (r *remote) write() {
	batchMax := max(r.cfg.SetBatchMax, 1)
	for {
		var es []Entry
		select {
		case <-r.ctx.Done():
			return
		case e := <-r.queue:
			es = append(es, e)
		}
	more:
		for len(es) < batchMax {
			select {
			case e := <-r.queue:
				es = append(es, e)
			default:
				break more
			}
		}
		r.set(es)
		for _, e := range es {
			r.queueBytes.Add(-int64(len(e.Value)))
		}
	}
}

func (r *remote) set(es []Entry) {
	servers := r.servers.all()
	if len(servers) == 0 {
		return
	}
	byServer := make([][]wireEntry, len(servers))
	for _, e := range es {
		key := wireKey(r.cfg.Prefix, e.Key)
		s := r.servers.pick(servers, key)
		if !servers[s].available() {
			r.metrics.skip(opSet, reasonUnavailable)
			continue
		}
		ttl := e.TTL
		if ttl <= 0 {
			ttl = r.cfg.TTL
		}
		byServer[s] = append(byServer[s], wireEntry{key, encodeEntry(key, e.Value), ttl})
	}
	for s, ws := range byServer {
		if len(ws) > 0 {
			servers[s].during(func() { r.setAt(servers[s], ws) })
		}
	}
}

func (r *remote) setAt(g *guard, ws []wireEntry) {
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.Timeout)
	defer cancel()
	if r.sets != nil {
		if r.sets.Start(ctx) != nil {
			return
		}
		defer r.sets.Done()
	}
	bytes := 0
	for _, w := range ws {
		bytes += len(w.value)
	}
	start := time.Now()
	err := g.set(ctx, ws)
	if r.ctx.Err() != nil {
		return
	}
	if err != nil && !errors.Is(err, errRefused) {
		g.late()
	}
	r.metrics.observe(opSet, time.Since(start), bytes, err)
}

// Close implements Cache.
func (r *remote) Close() error {
	r.cancel()
	r.running.Wait()
	r.servers.close()
	return nil
}
