package xor

import "sync"

// samplesPooledMax bounds the arrays that a Pool keeps: a MiB, what the longest chunk there can be (65535
// samples of 16 bytes) decodes to. A day of a series at 15 s is a tenth of that.
const samplesPooledMax = 1 << 16

// Pool keeps Samples between uses, so that their arrays are not made anew. The zero Pool is ready. It is
// safe for concurrent use; the collector empties it when memory is short.
type Pool struct{ pool sync.Pool }

// Get returns empty Samples. They belong to the caller until Put.
func (p *Pool) Get() *Samples {
	if s, ok := p.pool.Get().(*Samples); ok {
		return s
	}
	return &Samples{}
}

// Put takes Samples back; neither they nor anything that shares their arrays may be used any more.
func (p *Pool) Put(s *Samples) {
	if cap(s.Times) > samplesPooledMax || cap(s.Values) > samplesPooledMax {
		return
	}
	s.Reset()
	p.pool.Put(s)
}
