package compact

import (
	"time"

	"github.com/oklog/ulid/v2"
)

// pace is how fast work goes, and since when which group has some. It is guarded by Compactor.mu.
type pace struct {
	// behind is since when each group has had merges or downsampling to do.
	behind map[string]time.Time
	// rate is how many bytes of inputs a step works off in a second, of late; 0 is not known yet.
	rate float64
}

// rateWeight is what the last step counts for in pace.rate.
const rateWeight = 0.3

// plan notes which groups have something to do.
func (p *pace) plan(working map[string]bool, now time.Time) {
	behind := make(map[string]time.Time, len(working))
	for key := range working {
		since, ok := p.behind[key]
		if !ok {
			since = now
		}
		behind[key] = since
	}
	p.behind = behind
}

// longest is the time that the group that is behind longest has been so.
func (p *pace) longest(now time.Time) (longest time.Duration) {
	for _, since := range p.behind {
		longest = max(longest, now.Sub(since))
	}
	return longest
}

// ended notes that a step took so long.
func (p *pace) ended(bytes int64, took time.Duration) {
	if bytes <= 0 || took <= 0 {
		return
	}
	rate := float64(bytes) / took.Seconds()
	if p.rate > 0 {
		rate = rateWeight*rate + (1-rateWeight)*p.rate
	}
	p.rate = rate
}

// etas are when the planned steps of each group may be done, if they go on as of late, so many at a time. A group comes
// after all that is planned before its last step. Nothing is known before the first step ended.
func (p *pace) etas(steps []Step, bytes func(Step) int64, atOnce int, now time.Time) map[string]time.Time {
	etas := map[string]time.Time{}
	if p.rate == 0 {
		return etas
	}
	var ahead int64
	for _, st := range steps {
		if st.Kind != KindMerge && st.Kind != KindDownsample {
			continue
		}
		own := bytes(st)
		ahead += own
		// No step is faster than one.
		seconds := max(float64(ahead)/float64(atOnce), float64(own)) / p.rate
		etas[st.Group] = now.Add(time.Duration(seconds * float64(time.Second)))
	}
	return etas
}

// stepBytes is the size of the inputs of a step.
func stepBytes(known map[ulid.ULID]*Block, st Step) (n int64) {
	for _, id := range st.Inputs {
		if b := known[id]; b != nil {
			n += metaBytes(b)
		}
	}
	return n
}

// metaBytes is the size of a block as its metadata tells; 0 is not known.
func metaBytes(b *Block) (n int64) {
	for _, f := range b.Meta.Thanos.Files {
		n += f.SizeBytes
	}
	return n
}
