package compact

import (
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// State is what the Compactor is doing and why, for people and programs.
type State struct {
	// LookedAt is when the bucket was looked at; the zero time is never.
	LookedAt time.Time `json:"lookedAt"`
	// LastProgress is when a step last ended well, or there was nothing to do.
	LastProgress time.Time `json:"lastProgress"`
	// SecondsSinceProgress is how long ago that was.
	SecondsSinceProgress float64      `json:"secondsSinceProgress"`
	Halted               bool         `json:"halted"`
	Stopped              bool         `json:"stopped"`
	Running              []running    `json:"running"`
	Planned              []Step       `json:"planned"`
	Waiting              []Failure    `json:"waiting"`
	Groups               []GroupState `json:"groups"`
	ScratchBytes         Usage        `json:"scratchBytes"`
}

// Usage is a budget; a Max of 0 is no bound.
type Usage struct {
	Used int64 `json:"used"`
	Max  int64 `json:"max"`
}

// GroupState is what there is to know of a group.
type GroupState struct {
	Key        string            `json:"key"`
	Labels     map[string]string `json:"labels"`
	Resolution int64             `json:"resolution"`
	Blocks     int               `json:"blocks"`
	// LeftOut are blocks that are left as they are, with the reason.
	LeftOut map[ulid.ULID]string `json:"leftOut,omitempty"`
	// Stuck is why a person should look at the group.
	Stuck string `json:"stuck,omitempty"`
	// BehindSince is since when there has been something to merge or downsample; the zero time is that there is nothing.
	BehindSince time.Time `json:"behindSince,omitzero"`
	// DoneBy is when what is planned now may be done, at the pace of late; the zero time is that nobody knows.
	DoneBy time.Time `json:"doneBy,omitzero"`
}

// State returns a copy of what is known now.
func (c *Compactor) State() State {
	_, _, looked := c.eyes.seen()
	s := State{LookedAt: looked, Stopped: c.stopped.Load(), Waiting: c.failures.list(), ScratchBytes: Usage{c.scratch.inUse(), c.cfg.ScratchBytesMax}}
	known, now := c.known(), c.cfg.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.LastProgress, s.Planned = c.progress, slices.Clone(c.planned)
	s.SecondsSinceProgress = now.Sub(c.progress).Seconds()
	etas := c.pace.etas(c.planned, func(st Step) int64 { return stepBytes(known, st) }, c.cfg.Concurrency+c.cfg.DownsampleConcurrency, now)
	for _, r := range c.running {
		s.Running = append(s.Running, r)
	}
	for _, g := range c.groups {
		s.Groups = append(s.Groups, GroupState{Key: g.Key, Labels: g.Labels, Resolution: g.Resolution, Blocks: len(g.Blocks), LeftOut: g.LeftOut, Stuck: g.Stuck, BehindSince: c.pace.behind[g.Key], DoneBy: etas[g.Key]})
		s.Halted = s.Halted || g.Stuck != "" && c.cfg.ParkOnError
	}
	for _, f := range s.Waiting {
		s.Halted = s.Halted || f.Parked
	}
	s.Halted = s.Halted || s.Stopped
	slices.SortFunc(s.Running, func(a, b running) int { return a.Since.Compare(b.Since) })
	slices.SortFunc(s.Waiting, func(a, b Failure) int { return strings.Compare(a.Key, b.Key) })
	return s
}

// Looked returns when the bucket was last looked at, and the error of the last try, if that failed.
func (c *Compactor) Looked() (time.Time, error) {
	_, _, looked := c.eyes.seen()
	return looked, c.eyes.lastError()
}
