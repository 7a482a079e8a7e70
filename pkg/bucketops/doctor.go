package bucketops

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// DoctorConfig configures Doctor.
type DoctorConfig struct {
	Choice Choice
	// IDs, if there are any, are the blocks to look at.
	IDs []ulid.ULID
	// Depth is how much of each block is read.
	Depth Depth
	// Concurrency is the number of blocks that are read at a time.
	Concurrency int
	Progress    Progress
}

// Diagnosis is what Doctor found.
type Diagnosis struct {
	// Blocks is the number of blocks that were looked at.
	Blocks int `json:"blocks"`
	// Faults are sorted by block and kind.
	Faults []Fault `json:"faults"`
}

// Worst is the number of faults of a severity.
func (d *Diagnosis) Worst(s Severity) (n int) {
	for _, f := range d.Faults {
		if f.Kind.Explain().Severity == s {
			n++
		}
	}
	return n
}

// Diagnose looks for faults of a bucket and its blocks. It changes nothing. What can't be read from the storage is a fault of
// its block too; only a bucket that can't be listed is an error.
func Diagnose(ctx context.Context, bkt objstore.BucketReader, cfg DoctorConfig, logger log.Logger, reg prometheus.Registerer) (*Diagnosis, error) {
	v, err := cfg.Choice.look(ctx, bkt, logger, reg)
	if err != nil {
		return nil, err
	}
	d := &Diagnosis{}
	var mu sync.Mutex
	add := func(fs ...Fault) {
		mu.Lock()
		defer mu.Unlock()
		d.Faults = append(d.Faults, fs...)
	}
	unreadable := func(id ulid.ULID, err error) {
		add(Fault{Block: id, Kind: KindUnreadable, Detail: err.Error(), Count: 1})
	}
	asked := func(id ulid.ULID) bool { return len(cfg.IDs) == 0 || slices.Contains(cfg.IDs, id) }
	for id, err := range v.Failed {
		if asked(id) {
			unreadable(id, err)
		}
	}
	for id, cause := range v.Partial {
		if !asked(id) {
			continue
		}
		d.Blocks++
		if f, err := checkPartial(ctx, bkt, id, cause); err != nil {
			unreadable(id, err)
		} else {
			add(f)
		}
	}
	for _, id := range cfg.IDs {
		if v.Metas[id] == nil && v.Partial[id] == nil && v.Failed[id] == nil {
			unreadable(id, errors.New("there is no such block"))
		}
	}
	staying := slices.DeleteFunc(byTime(v.Metas), func(m *block.Meta) bool { return !asked(m.ULID) })
	d.Blocks += len(staying)
	deleted := map[ulid.ULID]bool{}
	o := outcome{what: "blocks examined", logger: logger, progress: cfg.Progress}
	o.each(ctx, cfg.Concurrency, idsOf(staying), func(ctx context.Context, id ulid.ULID) error {
		marks, deleting, err := checkMarks(ctx, bkt, id, cfg.Choice.now())
		if err != nil {
			unreadable(id, err)
			return nil
		}
		add(marks...)
		if deleting {
			mu.Lock()
			deleted[id] = true
			mu.Unlock()
			return nil // what is wrong with it goes with it
		}
		found, err := checkBlock(ctx, bkt, v.Metas[id], cfg.Depth, cfg.Choice.now())
		if err != nil {
			unreadable(id, err)
			return nil
		}
		add(found...)
		return nil
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	staying = slices.DeleteFunc(staying, func(m *block.Meta) bool { return deleted[m.ULID] })
	pairs, err := overlaps(ctx, bkt, staying)
	if err != nil {
		return nil, fmt.Errorf("compare blocks: %w", err)
	}
	add(pairs...)
	sortFaults(d.Faults)
	return d, nil
}

// Write writes the diagnosis for people: by kind, the worst first, with what it means and what mends it.
func (d *Diagnosis) Write(out io.Writer) error {
	w := bufio.NewWriter(out)
	for _, sev := range []Severity{SeverityError, SeverityWarning, SeverityNote} {
		var kinds []Kind
		for _, f := range d.Faults {
			if f.Kind.Explain().Severity == sev && !slices.Contains(kinds, f.Kind) {
				kinds = append(kinds, f.Kind)
			}
		}
		slices.Sort(kinds)
		for _, k := range kinds {
			d.writeKind(w, k)
		}
	}
	_, _ = fmt.Fprintf(w, "%d blocks examined: %d errors, %d warnings, %d notes\n", d.Blocks, d.Worst(SeverityError), d.Worst(SeverityWarning), d.Worst(SeverityNote))
	return w.Flush()
}

func (d *Diagnosis) writeKind(w io.Writer, k Kind) {
	e := k.Explain()
	_, _ = fmt.Fprintf(w, "%s: %s\n  means: %s\n  mend:  %s\n", strings.ToUpper(string(e.Severity)), k, e.Meaning, e.Mend)
	for _, f := range d.Faults {
		if f.Kind == k {
			_, _ = fmt.Fprintf(w, "    %s\n", f)
		}
	}
	_, _ = fmt.Fprintln(w)
}

// WriteJSON writes the diagnosis for programs.
func (d *Diagnosis) WriteJSON(out io.Writer) error {
	type explained struct {
		Fault
		Explanation
	}
	faults := []explained{}
	for _, f := range d.Faults {
		faults = append(faults, explained{f, f.Kind.Explain()})
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	return enc.Encode(struct {
		Blocks int         `json:"blocks"`
		Faults []explained `json:"faults"`
	}{d.Blocks, faults})
}
