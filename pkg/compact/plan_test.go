package compact

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"

	"github.com/koios-metrics/koios/pkg/block"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// script is a scene for the planner: blocks, settings and a time, one a line.
//
//	now 3d
//	set vertical retention-raw=30d level=4 ...
//	block NAME FROM-TO [resolution] [key=value ...] [no-compact ...]
//	wait GROUP
//
// Times are durations since the epoch. Names of blocks stand for ids, in the order of their first use.
type script struct {
	names   []string
	ids     map[string]ulid.ULID
	blocks  []*Block
	set     Settings
	now     time.Time
	waiting map[string]bool
}

func newScript() *script {
	return &script{ids: map[string]ulid.ULID{}, set: Settings{Level: 4, Downsample: true, Retention: map[int64]time.Duration{}}, waiting: map[string]bool{}}
}

// id is the id of a name.
func (s *script) id(name string) ulid.ULID {
	if id, ok := s.ids[name]; ok {
		return id
	}
	id := testID(len(s.names) + 1)
	s.names = append(s.names, name)
	s.ids[name] = id
	return id
}

func testID(n int) (id ulid.ULID) {
	_ = id.SetTime(uint64(n))
	return id
}

func (s *script) name(id ulid.ULID) string {
	for _, n := range s.names {
		if s.ids[n] == id {
			return n
		}
	}
	return id.String()
}

func span(text string) (time.Duration, error) {
	d, err := model.ParseDuration(text)
	return time.Duration(d), err
}

// line reads one line of a scene.
func (s *script) line(text string) error {
	f := strings.Fields(text)
	switch f[0] {
	case "now":
		d, err := span(f[1])
		s.now = time.UnixMilli(0).Add(d)
		return err
	case "wait":
		s.waiting[f[1]] = true
	case "set":
		for _, kv := range f[1:] {
			if err := s.setting(kv); err != nil {
				return err
			}
		}
	case "block":
		return s.block(f[1:])
	default:
		return fmt.Errorf("unknown word %q", f[0])
	}
	return nil
}

func (s *script) setting(kv string) (err error) {
	key, value, _ := strings.Cut(kv, "=")
	var d time.Duration
	switch key {
	case "vertical":
		s.set.Vertical = true
	case "no-downsampling":
		s.set.Downsample = false
	case "level":
		s.set.Level, err = strconv.Atoi(value)
	case "inputs":
		s.set.InputsMax, err = strconv.Atoi(value)
	case "index-bytes":
		s.set.IndexBytesMax, err = strconv.ParseInt(value, 10, 64)
	case "retention-raw":
		d, err = span(value)
		s.set.Retention[block.ResolutionRaw] = d
	case "retention-5m":
		d, err = span(value)
		s.set.Retention[block.Resolution5m] = d
	case "retention-1h":
		d, err = span(value)
		s.set.Retention[block.Resolution1h] = d
	default:
		err = fmt.Errorf("unknown setting %q", key)
	}
	return err
}

func (s *script) block(f []string) error {
	m := &block.Meta{}
	b := &Block{Meta: m}
	m.ULID, m.Version = s.id(f[0]), 1
	m.Thanos.Labels = map[string]string{}
	from, to, _ := strings.Cut(f[1], "-")
	for text, dst := range map[string]*int64{from: &m.MinTime, to: &m.MaxTime} {
		d, err := span(text)
		if err != nil {
			return err
		}
		*dst = d.Milliseconds()
	}
	m.Compaction.Level = 1
	for _, word := range f[2:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "5m":
			m.Thanos.Downsample.Resolution = block.Resolution5m
		case "1h":
			m.Thanos.Downsample.Resolution = block.Resolution1h
		case "no-compact":
			b.NoCompact = true
		case "no-downsample":
			b.NoDownsample = true
		case "set-aside":
			b.SetAside = true
		case "deleting":
			b.Deleting = true
		case "failed":
			m.Compaction.Failed = true
		case "sources":
			for n := range strings.SplitSeq(value, ",") {
				m.Compaction.Sources = append(m.Compaction.Sources, s.id(n))
			}
		case "index":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return err
			}
			b.IndexBytes = n
		case "series", "tombstones":
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return err
			}
			if key == "series" {
				m.Stats.NumSeries = n
			} else {
				m.Stats.NumTombstones = n
			}
		case "hash":
			m.Thanos.Files = []block.File{{RelPath: "chunks/000001", Hash: &block.Hash{Func: block.HashSHA256, Value: value}}, {RelPath: "index", Hash: &block.Hash{Func: block.HashSHA256, Value: value}}}
		default:
			m.Thanos.Labels[key] = value
		}
	}
	if len(m.Compaction.Sources) == 0 {
		m.Compaction.Sources = []ulid.ULID{m.ULID}
	}
	s.blocks = append(s.blocks, b)
	return nil
}

// text is the plan as the scripts expect it.
func (s *script) text(p Planned) string {
	var out strings.Builder
	for _, st := range p.Steps {
		names := make([]string, len(st.Inputs))
		for i, id := range st.Inputs {
			names[i] = s.name(id)
		}
		fmt.Fprintf(&out, "%s %s %s", st.Kind, st.Group, strings.Join(names, " "))
		if st.Kind == KindCollect {
			fmt.Fprintf(&out, " (in %s)", s.name(st.Cover))
		}
		if st.Kind == KindDownsample {
			fmt.Fprintf(&out, " to %s", resolutionName(st.Target()))
		}
		if st.Vertical {
			out.WriteString(", overlapping")
		}
		fmt.Fprintf(&out, ": %s\n", st.Reason)
	}
	for _, g := range p.Groups {
		for _, b := range g.Blocks {
			if r := g.LeftOut[b.Meta.ULID]; r != "" {
				fmt.Fprintf(&out, "left out %s: %s\n", s.name(b.Meta.ULID), r)
			}
		}
		if g.Stuck != "" {
			stuck := g.Stuck
			for _, n := range s.names {
				stuck = strings.ReplaceAll(stuck, s.ids[n].String(), n)
			}
			fmt.Fprintf(&out, "stuck %s: %s\n", g.Key, stuck)
		}
	}
	if out.Len() == 0 {
		return "nothing\n"
	}
	return out.String()
}

// Shows what the planner decides, scene by scene: each file of testdata/plan holds scenes, a comment and lines above
// the dashes, the plan below. Rewrite the plans with -update.
func TestPlanScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/plan/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(b))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if d := cmp.Diff(string(b), got); d != "" {
				t.Errorf("(-want +got), rewrite with -update:\n%s", d)
			}
		})
	}
}

// runScript returns a script with the plans that it gets now.
func runScript(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	s := newScript()
	above := true
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		line := sc.Text()
		switch {
		case line == "----":
			if !above {
				t.Fatal("two plans without a blank line between")
			}
			above = false
			p := Plan(s.blocks, s.set, s.now, func(g string) bool { return s.waiting[g] })
			if again := Plan(s.blocks, s.set, s.now, func(g string) bool { return s.waiting[g] }); !cmp.Equal(p.Steps, again.Steps) {
				t.Errorf("planned twice, differs: %s", cmp.Diff(p.Steps, again.Steps))
			}
			checkDisjoint(t, p)
			out.WriteString("----\n" + s.text(p) + "\n")
		case !above && line == "":
			above, s = true, newScript()
		case above:
			out.WriteString(line + "\n")
			if line == "" || line[0] == '#' {
				continue
			}
			if err := s.line(line); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
	}
	return out.String()
}

// checkDisjoint checks the promise of Planned.
func checkDisjoint(t *testing.T, p Planned) {
	t.Helper()
	var seen []ulid.ULID
	for _, s := range p.Steps {
		if s.Kind == KindNoCompact {
			continue
		}
		for _, id := range s.Inputs {
			if slices.Contains(seen, id) {
				t.Errorf("block %s is in two steps", id)
			}
			seen = append(seen, id)
		}
	}
}
