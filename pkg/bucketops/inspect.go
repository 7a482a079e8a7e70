package bucketops

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// InspectConfig configures Inspect.
type InspectConfig struct {
	Choice Choice
	// Labels are pairs that the external labels of a block must hold.
	Labels map[string]string
	// SortBy are columns; the first counts most.
	SortBy []string
	// Output is table, csv or tsv.
	Output string
}

// column is a column of Inspect: its text, and how blocks compare by it.
type column struct {
	name    string
	text    func(*block.Meta) string
	compare func(a, b *block.Meta) int
}

var columns = []column{
	{"ULID", func(m *block.Meta) string { return m.ULID.String() }, func(a, b *block.Meta) int { return a.ULID.Compare(b.ULID) }},
	number("FROM", func(m *block.Meta) int64 { return m.MinTime }, timeText),
	number("UNTIL", func(m *block.Meta) int64 { return m.MaxTime }, timeText),
	number("RANGE", func(m *block.Meta) int64 { return m.MaxTime - m.MinTime }, durationText),
	{"UNTIL-DOWN", func(m *block.Meta) string {
		if left := untilDownsampled(m); left >= 0 {
			return left.String()
		}
		return "-"
	}, func(a, b *block.Meta) int { return cmp.Compare(untilDownsampled(a), untilDownsampled(b)) }},
	number("#SERIES", func(m *block.Meta) int64 { return int64(m.Stats.NumSeries) }, thousands),
	number("#SAMPLES", func(m *block.Meta) int64 { return int64(m.Stats.NumSamples) }, thousands),
	number("#CHUNKS", func(m *block.Meta) int64 { return int64(m.Stats.NumChunks) }, thousands),
	number("COMP-LEVEL", func(m *block.Meta) int64 { return int64(m.Compaction.Level) }, func(n int64) string { return strconv.FormatInt(n, 10) }),
	text("COMP-FAILED", func(m *block.Meta) string { return strconv.FormatBool(m.Compaction.Failed) }),
	text("LABELS", func(m *block.Meta) string { return labelsText(m.Thanos.Labels) }),
	number("RESOLUTION", (*block.Meta).Resolution, durationText),
	text("SOURCE", func(m *block.Meta) string { return string(m.Thanos.Source) }),
}

// InspectColumns are the columns that Inspect can sort by.
func InspectColumns() (names []string) {
	for _, c := range columns {
		names = append(names, c.name)
	}
	return names
}

func number(name string, of func(*block.Meta) int64, show func(int64) string) column {
	return column{name, func(m *block.Meta) string { return show(of(m)) }, func(a, b *block.Meta) int { return cmp.Compare(of(a), of(b)) }}
}

func text(name string, of func(*block.Meta) string) column {
	return column{name, of, func(a, b *block.Meta) int { return strings.Compare(of(a), of(b)) }}
}

func durationText(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

// thousands writes a number with commas.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func labelsText(ls map[string]string) string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(ls)) {
		pairs = append(pairs, name+"="+ls[name])
	}
	return strings.Join(pairs, ",")
}

// The lengths at which a block is downsampled, however old it is.
const (
	lengthFor5m = 40 * time.Hour
	lengthFor1h = 10 * 24 * time.Hour
)

// untilDownsampled is the length that a block lacks to be downsampled; negative if it does not lack any.
func untilDownsampled(m *block.Meta) time.Duration {
	switch m.Resolution() {
	case block.ResolutionRaw:
		return lengthFor5m - lengthOf(m)
	case block.Resolution5m:
		return lengthFor1h - lengthOf(m)
	}
	return -1
}

// Inspect writes a table of the blocks of a bucket.
func Inspect(ctx context.Context, bkt objstore.BucketReader, cfg InspectConfig, out io.Writer, logger log.Logger, reg prometheus.Registerer) error {
	var by []column
	for _, name := range cfg.SortBy {
		i := slices.IndexFunc(columns, func(c column) bool { return c.name == name })
		if i < 0 {
			return fmt.Errorf("no column %q: the columns are %s", name, strings.Join(InspectColumns(), ", "))
		}
		by = append(by, columns[i])
	}
	v, err := cfg.Choice.look(ctx, bkt, logger, reg)
	if err != nil {
		return err
	}
	metas := slices.DeleteFunc(byTime(v.Metas), func(m *block.Meta) bool {
		for name, value := range cfg.Labels {
			if got, ok := m.Thanos.Labels[name]; !ok || got != value {
				return true
			}
		}
		return false
	})
	slices.SortStableFunc(metas, func(a, b *block.Meta) int {
		for _, c := range by {
			if d := c.compare(a, b); d != 0 {
				return d
			}
		}
		return 0
	})
	rows := [][]string{InspectColumns()}
	for _, m := range metas {
		var row []string
		for _, c := range columns {
			row = append(row, c.text(m))
		}
		rows = append(rows, row)
	}
	o := outcome{what: "blocks inspected", logger: logger}
	o.failView(v)
	return errors.Join(writeRows(out, cfg.Output, rows), o.err(ctx))
}

func writeRows(out io.Writer, format string, rows [][]string) error {
	switch format {
	case "csv":
		return csv.NewWriter(out).WriteAll(rows)
	case "tsv":
		var b strings.Builder
		for _, row := range rows {
			b.WriteString(strings.Join(row, "\t") + "\n")
		}
		_, err := io.WriteString(out, b.String())
		return err
	case "table":
		return writeTable(out, rows)
	}
	return fmt.Errorf("output %q: it is table, csv or tsv", format)
}

// writeTable draws a table: the head in the middle of its columns, everything else to the left.
func writeTable(out io.Writer, rows [][]string) error {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	w := bufio.NewWriter(out)
	for n, row := range rows {
		for i, cell := range row {
			free := widths[i] - len([]rune(cell))
			left := 0
			if n == 0 {
				left = free / 2
			}
			_, _ = w.WriteString("| " + strings.Repeat(" ", left) + cell + strings.Repeat(" ", free-left) + " ")
		}
		_, _ = w.WriteString("|\n")
		if n == 0 {
			for _, width := range widths {
				_, _ = w.WriteString("|" + strings.Repeat("-", width+2))
			}
			_, _ = w.WriteString("|\n")
		}
	}
	return w.Flush()
}
