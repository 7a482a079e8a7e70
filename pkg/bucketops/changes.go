package bucketops

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// Deletion asks for samples to be deleted. The JSON is what meta.json tells of it.
type Deletion struct {
	// Matchers must all match the labels of a series, as the block has them, without the external ones.
	Matchers []*labels.Matcher `json:"matchers"`
	// Intervals are times in ms, both ends included; none is all of the series.
	Intervals tombstones.Intervals `json:"intervals,omitempty"`
	RequestID string               `json:"request_id,omitempty"`
}

// ParseDeletions reads a YAML list of deletions: {matchers: '<selector>', intervals: [{mint, maxt}], request_id}.
func ParseDeletions(content []byte) ([]Deletion, error) {
	var in []struct {
		Matchers  string `yaml:"matchers"`
		Intervals []struct {
			Mint int64 `yaml:"mint"`
			Maxt int64 `yaml:"maxt"`
		} `yaml:"intervals"`
		RequestID string `yaml:"request_id"`
	}
	if err := yaml.UnmarshalStrict(content, &in); err != nil {
		return nil, fmt.Errorf("parse deletions: %w", err)
	}
	ds := make([]Deletion, len(in))
	for i, d := range in {
		ms, err := parser.ParseMetricSelector(d.Matchers)
		if err != nil {
			return nil, fmt.Errorf("deletion %d: matchers %q: %w", i+1, d.Matchers, err)
		}
		ds[i] = Deletion{Matchers: ms, RequestID: d.RequestID}
		for _, iv := range d.Intervals {
			if iv.Mint > iv.Maxt {
				return nil, fmt.Errorf("deletion %d: mint %d is after maxt %d", i+1, iv.Mint, iv.Maxt)
			}
			ds[i].Intervals = ds[i].Intervals.Add(tombstones.Interval{Mint: iv.Mint, Maxt: iv.Maxt})
		}
	}
	return ds, nil
}

// ParseRelabel reads relabel rules with any action.
func ParseRelabel(content []byte) ([]*relabel.Config, error) {
	var cfgs []*relabel.Config
	if err := yaml.UnmarshalStrict(content, &cfgs); err != nil {
		return nil, fmt.Errorf("parse relabel rules: %w", err)
	}
	for i, c := range cfgs {
		if c == nil {
			return nil, fmt.Errorf("relabel rule %d is empty", i+1)
		}
		if err := c.Validate(model.UTF8Validation); err != nil {
			return nil, fmt.Errorf("relabel rule %d: %w", i+1, err)
		}
	}
	return cfgs, nil
}

// changes are what a rewrite does to series.
type changes struct {
	deletions []Deletion
	relabel   []*relabel.Config
}

// rewritten is a series of the new block: where it is in the old one, its labels, and what of it is deleted.
type rewritten struct {
	ref     uint64
	labels  labels.Labels
	deleted tombstones.Intervals
}

// always is all of time.
var always = tombstones.Interval{Mint: math.MinInt64, Maxt: math.MaxInt64}

// plan says what becomes of each series of a block, in the order of the new labels, and writes what it changes. It holds the
// labels of all series. Not changed is a block that would be written as it is.
func (c *changes) plan(files stream.Files, window int, changelog io.Writer) (all []rewritten, changed bool, err error) {
	r, err := stream.OpenReader(files, stream.Config{WindowBytes: window, NoChunks: true})
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var s stream.Series
	var b labels.ScratchBuilder
	for {
		err := r.Read(&s)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, false, err
		}
		ls, err := r.Labels(&b, &s)
		if err != nil {
			return nil, false, err
		}
		to, kept := c.apply(ls, &s)
		if line := to.line(ls, kept, &s); line != "" {
			changed = true
			if _, err := io.WriteString(changelog, line); err != nil {
				return nil, false, fmt.Errorf("write change log: %w", err)
			}
		}
		if kept {
			all = append(all, to)
		}
	}
	slices.SortStableFunc(all, func(a, b rewritten) int { return labels.Compare(a.labels, b.labels) })
	return all, changed, nil
}

// apply says what becomes of a series; not kept is nothing.
func (c *changes) apply(ls labels.Labels, s *stream.Series) (to rewritten, kept bool) {
	to = rewritten{ref: s.Ref, labels: ls}
	mint, maxt := span(s)
	for _, d := range c.deletions {
		if slices.ContainsFunc(d.Matchers, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) }) {
			continue
		}
		if len(d.Intervals) == 0 {
			to.deleted = to.deleted.Add(always)
		}
		for _, iv := range d.Intervals {
			if iv.Mint <= maxt && mint <= iv.Maxt {
				to.deleted = to.deleted.Add(iv)
			}
		}
	}
	for _, iv := range to.deleted {
		if iv.Mint <= mint && maxt <= iv.Maxt {
			return to, false
		}
	}
	if len(c.relabel) > 0 {
		to.labels, kept = relabel.Process(ls, c.relabel...)
		if !kept || to.labels.IsEmpty() {
			to.deleted = tombstones.Intervals{always}
			return to, false
		}
	}
	return to, true
}

// line tells what is changed, "" if nothing is.
func (to *rewritten) line(from labels.Labels, kept bool, s *stream.Series) (line string) {
	if len(to.deleted) > 0 {
		line = fmt.Sprintf("Deleted %s [", from)
		mint, maxt := span(s)
		for i, iv := range to.deleted {
			if i > 0 {
				line += " "
			}
			line += fmt.Sprintf("{%d %d}", max(iv.Mint, mint), min(iv.Maxt, maxt))
		}
		line += "]\n"
	}
	if kept && !labels.Equal(from, to.labels) {
		line += fmt.Sprintf("Relabelled %s %s\n", from, to.labels)
	}
	return line
}

// span is the time of a series by its index entry.
func span(s *stream.Series) (mint, maxt int64) {
	mint, maxt = math.MaxInt64, math.MinInt64
	for i := range s.Chunks {
		mint, maxt = min(mint, s.Chunks[i].MinTime), max(maxt, s.Chunks[i].MaxTime)
	}
	return mint, maxt
}

// record is what the metadata of the new block tells of the rewrite.
func (c *changes) record(from *block.Meta) (rw block.Rewrite, err error) {
	rw.Sources = append(rw.Sources, from.ULID)
	if len(c.deletions) > 0 {
		if rw.DeletionsApplied, err = json.Marshal(c.deletions); err != nil {
			return rw, fmt.Errorf("encode deletions: %w", err)
		}
	}
	if len(c.relabel) == 0 {
		return rw, nil
	}
	// The keys are those of the YAML.
	text, err := yaml.Marshal(c.relabel)
	var rules []map[string]any
	if err == nil {
		err = yaml.Unmarshal(text, &rules)
	}
	if err == nil {
		rw.RelabelsApplied, err = json.Marshal(rules)
	}
	if err != nil {
		return rw, fmt.Errorf("encode relabel rules: %w", err)
	}
	return rw, nil
}
