package compact

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-kit/log/level"
	thanosobjstore "github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/objstore"
)

const (
	// leasesDir holds the leases. Its name is no block, so nobody else looks into it.
	leasesDir = "koios-leases"
	// The default of Config.LeaseLength.
	defaultLeaseLength = 3 * time.Minute
	// A lease that is this old was left by a process that died.
	leaseAgeMax = time.Hour
	// How long a step is left to the compactor that works on it, before it is looked at again.
	leasedPause = time.Minute
)

// lease is the content of a lease object: a compactor works on a step. It keeps others from doing the same work, and
// protects nothing: who was stopped for longer than a lease goes on as if nothing had been, and that is sound.
type lease struct {
	Holder string `json:"holder"`
	// Until is in ms since the epoch.
	Until int64  `json:"until"`
	What  string `json:"what"`
	// Token makes each content unlike every other.
	Token string `json:"token"`
}

// leases are those of one bucket. Without conditional writes everything is free.
type leases struct {
	bkt    thanosobjstore.Bucket
	cond   objstore.Conditional
	holder string
	length time.Duration
	now    func() time.Time
}

// errLeased says that another compactor works on it.
var errLeased = errors.New("another compactor works on it")

// newLeases finds out whether the bucket has conditional writes, and says so.
func (c *Compactor) newLeases(ctx context.Context) *leases {
	l := &leases{bkt: c.bkt, holder: rand.Text(), length: c.cfg.LeaseLength, now: c.cfg.Now}
	err := objstore.CheckConditional(ctx, c.bkt, leasesDir)
	if err == nil {
		l.cond, err = objstore.ConditionalOf(c.bkt)
	}
	if err != nil {
		_ = level.Warn(c.logger).Log("msg", "no leases in this bucket: several compactors are safe, and save work only when each has its own share of the groups: give them --selector.relabel-config with hashmod", "reason", err)
		return l
	}
	_ = level.Info(c.logger).Log("msg", "several compactors may share this bucket: leases keep them from doing the same work", "holder", l.holder)
	return l
}

// leaseName is the object of a step's lease. Steps of other compactors with the same first input are the same step, or
// one that saw a block more.
func leaseName(st Step) string {
	return leasesDir + "/" + string(st.Kind) + "-" + st.Inputs[0].String() + ".json"
}

// take takes the lease of a step, or returns errLeased. Its trouble keeps nobody from working: then there is no lease.
// Release gives it back and stops renewing it.
func (l *leases) take(ctx context.Context, st Step) (release func(), err error) {
	free := func() {}
	if l == nil || l.cond == nil || st.Kind != KindMerge && st.Kind != KindDownsample {
		return free, nil
	}
	name := leaseName(st)
	var version objstore.Version
	content, v, err := l.cond.Read(ctx, name)
	switch {
	case err == nil:
		var held lease
		// What can't be decoded is nobody's.
		if json.Unmarshal(content, &held) == nil && held.Holder != l.holder && l.now().UnixMilli() < held.Until {
			return nil, errLeased
		}
		version, err = l.cond.Replace(ctx, name, v, l.content(st, l.until()))
	case l.bkt.IsObjNotFoundErr(err):
		version, err = l.cond.Create(ctx, name, l.content(st, l.until()))
	}
	switch {
	case errors.Is(err, objstore.ErrExists), errors.Is(err, objstore.ErrChanged):
		return nil, errLeased
	case err != nil:
		return free, nil //nolint:nilerr // without a lease the work is done all the same
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.renew(ctx, st, name, version)
	}()
	return func() { cancel(); <-done }, nil
}

// renew renews a lease until the context ends, and gives it back then.
func (l *leases) renew(ctx context.Context, st Step, name string, version objstore.Version) {
	tick := time.NewTicker(l.length / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			v, err := l.cond.Replace(ctx, name, version, l.content(st, l.until()))
			if errors.Is(err, objstore.ErrChanged) {
				return // it was given to another one while this process slept
			}
			if err == nil {
				version = v
			}
		case <-ctx.Done():
			back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			// It may be another one's by now. Then that one does some work twice.
			_ = l.bkt.Delete(back, name)
			return
		}
	}
}

func (l *leases) until() int64 { return l.now().Add(l.length).UnixMilli() }

func (l *leases) content(st Step, until int64) []byte {
	b, err := json.Marshal(lease{Holder: l.holder, Until: until, What: string(st.Kind) + " " + st.Key(), Token: rand.Text()})
	if err != nil {
		panic("BUG: a lease can always be encoded: " + err.Error())
	}
	return b
}

// sweep deletes the leases that dead compactors left.
func (l *leases) sweep(ctx context.Context) error {
	if l == nil || l.cond == nil {
		return nil
	}
	var errs []error
	err := l.bkt.Iter(ctx, leasesDir+thanosobjstore.DirDelim, func(name string) error {
		a, err := l.bkt.Attributes(ctx, name)
		if err == nil && l.now().Sub(a.LastModified) > leaseAgeMax {
			err = l.bkt.Delete(ctx, name)
		}
		if err != nil && !l.bkt.IsObjNotFoundErr(err) {
			errs = append(errs, fmt.Errorf("sweep lease %s: %w", name, err))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}
