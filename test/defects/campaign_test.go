//go:build campaign

package defects

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/fleet"
)

const (
	groupsPerBucket = 100
	badPerBucket    = 20
)

// Shows TestOnePass on buckets of 100 groups of which 20 carry one defect each, and how far one pass of Thanos, if KOIOS_THANOS
// names it, comes on each of the same buckets before it halts or ends.
func TestCampaign(t *testing.T) {
	program := os.Getenv("KOIOS_THANOS")
	for from := 0; from < len(defects); from += badPerBucket {
		ds := defects[from:min(from+badPerBucket, len(defects))]
		t.Run(fmt.Sprintf("defects %d to %d", from+1, from+len(ds)), func(t *testing.T) {
			w := newWorld(t, groupsPerBucket-len(ds), ds)
			beside := &bucket{t: t, dir: tempDir(t), base: w.b.base, now: w.b.now}
			if err := os.CopyFS(beside.dir, os.DirFS(w.b.dir)); err != nil {
				t.Fatal(err)
			}
			exit, log := w.b.pass(fleet.KoiosProgram(t))
			t.Logf("Koios:\n%s", w.check(t, exit, log))
			if t.Failed() {
				t.Logf("log:\n%s", log)
			}
			w.halted(t)
			if program != "" {
				t.Logf("Thanos: %s", w.thanos(t, beside, program))
			}
		})
	}
}

// thanos makes a pass over a copy of the bucket, and tells what came of it.
func (w *world) thanos(t *testing.T, b *bucket, program string) string {
	t.Helper()
	p := b.start(program)
	end := "ended by itself"
	fleet.Eventually(t, "Thanos halts or ends", passMax, func() error {
		switch {
		case strings.Contains(p.Log(), "halting"):
			end = "halted"
			p.Kill()
			return nil
		case !p.Running():
			end += fmt.Sprintf(" with code %d", p.WaitExit(t, time.Second))
			return nil
		}
		return errors.New("it goes on")
	})
	all := b.look()
	sound, bad, coarser, marked := 0, 0, 0, 0
	count := func(g *group, n *int) {
		if f := all[g.labels["group"]]; f != nil {
			if f.compacted(b.base) {
				*n++
			}
			coarser += f.coarser
		}
	}
	for _, g := range w.sound {
		count(g, &sound)
	}
	for i, g := range w.broken {
		count(g, &bad)
		for _, mark := range []string{"no-compact-mark.json", "no-downsample-mark.json"} {
			if _, err := os.Stat(b.path(w.suspect(i), mark)); err == nil && w.defects[i].name != "a malformed mark" {
				marked++
				break
			}
		}
	}
	cause := ""
	for line := range strings.Lines(p.Log()) {
		if strings.Contains(line, "level=error") || strings.Contains(line, "err=") {
			cause = strings.TrimSpace(line)
			if strings.Contains(line, "halting") {
				break
			}
		}
	}
	return fmt.Sprintf("%s; %d of %d sound groups and %d of %d bad ones compacted, %d blocks downsampled, %d bad blocks marked\n%.600s",
		end, sound, len(w.sound), bad, len(w.broken), coarser, marked, cause)
}
