//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/koios-metrics/koios/test/fleet"
)

// tinyDisk makes a disk of a few kilobytes for a container.
func tinyDisk(t *testing.T, name, size string) (volume string) {
	t.Helper()
	name = "koios-e2e-" + name
	_, _ = docker("volume", "rm", "-f", name) // of a run that was ended
	mustDocker(t, "volume", "create", "--driver=local", "--opt=type=tmpfs", "--opt=device=tmpfs", "--opt=o=size="+size+",mode=1777", name)
	t.Cleanup(func() {
		fleet.Eventually(t, "the volume is removed", wait, func() error {
			if out, err := docker("volume", "rm", "-f", name); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	})
	return name
}

// A store and a compactor whose disks are full stay up and say why they can't go on, and what the others do goes on: a
// query is answered by the store that has room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	storeDisk, compactDisk := tinyDisk(t, "store", "16k"), tinyDisk(t, "compact", "16k")
	w := newWorld(t, "disk")
	_, bucket := w.s3()
	prom := pastPrometheus(t, w)
	side := w.sidecar("past", "--objstore.config-file="+bucket).ready()
	want := prom.ask(past()[0])
	fleet.Eventually(t, "all blocks are uploaded", wait, func() error {
		if n := side.metric("thanos_shipper_uploads_total"); n != 3 {
			return fmt.Errorf("%v are", n)
		}
		return nil
	})
	side.stop()
	prom.stop()

	storeArgs := []string{"store", "--objstore.config-file=" + bucket, "--sync-block-duration=1s", "--data-dir=/data"}
	full := w.container("full-store", koiosImage, options{ports: koiosPorts, volumes: []string{storeDisk + ":/data"}}, storeArgs...).start()
	w.koios("store", storeArgs...).ready()
	compactArgs := []string{"compact", "--wait", "--wait-interval=1s", "--consistency-delay=0s", "--objstore.config-file=" + bucket}
	compact := w.container("full-compact", koiosImage, options{ports: koiosPorts, volumes: []string{compactDisk + ":/data"}},
		append(compactArgs, "--data-dir=/data", "--compact.max-scratch=1GB")...).start()
	query := w.query("query", []string{"full-store", "store"}).ready()
	query.waitStores(2)
	for range 5 {
		if err := equal(want, query.ask(past()[0])); err != nil {
			t.Error(err)
		}
	}
	for name, words := range map[string][]string{
		"full-store":   {"level=warn", "block=", "index-header", "no space left on device"},
		"full-compact": {"level=warn", "step=merge", "block=", "no space left on device"},
	} {
		fleet.Eventually(t, name+" says that its disk is full", wait, func() error {
			line := w.log.line(append(words, name+":")...)
			if line == "" {
				return fmt.Errorf("no line; the last ones are\n%s", w.log.tail(10, name+":"))
			}
			t.Log(line)
			return nil
		})
	}
	for _, c := range []*container{full, compact} {
		if status, _ := fleet.Get(t.Context(), c.url()+"/-/healthy"); status != http.StatusOK {
			t.Errorf("%s: status %d", c.Name(), status)
		}
	}
	// A compactor with room does what the other could not, and no answer changes.
	compact.stop()
	roomy := w.koios("compact", append(compactArgs, "--data-dir=/tmp")...).ready()
	fleet.Eventually(t, "the blocks are merged", wait, func() error {
		if n := roomy.metric("thanos_compact_group_compactions_total"); n == 0 {
			return errors.New("no merge yet")
		}
		return nil
	})
	full.stop()
	fleet.Eventually(t, "the merged blocks are served", wait, func() error { return equal(want, query.ask(past()[0])) })
}
