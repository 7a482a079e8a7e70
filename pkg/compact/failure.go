package compact

import (
	"errors"
	"sync"
	"time"
)

const (
	// The time to the next try doubles from the first to the last.
	backoffMin = time.Minute
	backoffMax = time.Hour
	// A group that failed so often is planned around: its blocks are downsampled as they are.
	triesUntilPlannedAround = 3
)

// bucketError is an error of the bucket or the network: trying again may help.
type bucketError struct{ err error }

func (e *bucketError) Error() string { return e.err.Error() }
func (e *bucketError) Unwrap() error { return e.err }

// ofBucket marks an error as the bucket's; nil stays nil.
func ofBucket(err error) error {
	if err == nil {
		return nil
	}
	return &bucketError{err}
}

// errAbandoned says that a step has lost its purpose: its inputs are gone or on their way out.
var errAbandoned = errors.New("its inputs are gone or marked for deletion")

// Failure is what a step failed with and waits for.
type Failure struct {
	Key    string    `json:"key"`
	Step   Step      `json:"step"`
	Cause  string    `json:"cause"`
	Since  time.Time `json:"since"`
	Next   time.Time `json:"nextTry"`
	Tries  int       `json:"tries"`
	Parked bool      `json:"parked"`
}

// failures are those of all steps. It may be used in parallel.
type failures struct {
	mu    sync.Mutex
	byKey map[string]*Failure
}

// add notes that a step failed.
func (f *failures) add(st Step, cause error, parked bool, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byKey == nil {
		f.byKey = map[string]*Failure{}
	}
	key := st.Key()
	e := f.byKey[key]
	if e == nil {
		e = &Failure{Key: key, Since: now}
		f.byKey[key] = e
	}
	e.Step, e.Cause, e.Parked = st, cause.Error(), parked
	e.Next = now.Add(min(backoffMin<<min(e.Tries, 10), backoffMax))
	e.Tries++
}

// done forgets the failures of a step.
func (f *failures) done(st Step) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byKey, st.Key())
}

// waits tells whether a step must wait. One that has other inputs than the one that failed need not.
func (f *failures) waits(st Step, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.byKey[st.Key()]
	return e != nil && now.Before(e.Next) && sameInputs(e.Step, st)
}

// plannedAround tells whether a group failed too often to be waited for.
func (f *failures) plannedAround(group string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.byKey[group]
	return e != nil && (e.Parked || e.Tries >= triesUntilPlannedAround)
}

// keep forgets what is not planned any more and is due: somebody mended it, or somebody else did it.
func (f *failures) keep(planned map[string]bool, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, e := range f.byKey {
		if !planned[key] && !now.Before(e.Next) {
			delete(f.byKey, key)
		}
	}
}

// list returns copies.
func (f *failures) list() (fs []Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.byKey {
		fs = append(fs, *e)
	}
	return fs
}

func sameInputs(a, b Step) bool {
	if len(a.Inputs) != len(b.Inputs) || a.Kind != b.Kind {
		return false
	}
	in := map[[16]byte]bool{}
	for _, id := range a.Inputs {
		in[id] = true
	}
	for _, id := range b.Inputs {
		if !in[id] {
			return false
		}
	}
	return true
}
