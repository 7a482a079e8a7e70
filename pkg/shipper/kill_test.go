package shipper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
)

// The environment variables that make this test binary a process that uploads and dies.
const (
	killStepEnv = "SHIPPER_TEST_KILL_STEP" // The upload to die at; 0 is none.
	killWhenEnv = "SHIPPER_TEST_KILL_WHEN" // "before", "in" or "after" it.
	killTSDBEnv = "SHIPPER_TEST_TSDB"
	killBktEnv  = "SHIPPER_TEST_BUCKET"
)

func TestMain(m *testing.M) {
	if os.Getenv(killTSDBEnv) != "" {
		os.Exit(uploadAndDie())
	}
	os.Exit(m.Run())
}

// uploadAndDie makes one round in a process of its own.
func uploadAndDie() int {
	step, err := strconv.Atoi(os.Getenv(killStepEnv))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	bkt, err := filesystem.NewBucket(os.Getenv(killBktEnv))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	t := &testing.T{} // newShipper fails only by a bug.
	s := newShipper(t, os.Getenv(killTSDBEnv), &deadly{Bucket: bkt, at: step, when: os.Getenv(killWhenEnv)})
	if _, err := s.Sync(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// deadly is a bucket that kills its own process at one upload.
type deadly struct {
	objstore.Bucket
	at, uploads int
	when        string
}

func (d *deadly) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	d.uploads++
	if d.uploads != d.at {
		return d.Bucket.Upload(ctx, name, r, opts...)
	}
	if d.when != "before" {
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if d.when == "in" {
			b = b[:len(b)/2]
		}
		if err := d.Bucket.Upload(ctx, name, bytes.NewReader(b), opts...); err != nil {
			return err
		}
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // Until the signal is delivered.
}

// A process that uploads three blocks to a folder is killed with SIGKILL before, in and after each upload
// of an object. Started again, it ends with each block once and whole.
func TestKilledAtEachStep(t *testing.T) {
	self, err := os.Executable()
	check(t, err)
	run := func(dir, bucket string, step int, when string) (killed bool) {
		t.Helper()
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), killTSDBEnv+"="+dir, killBktEnv+"="+bucket, killWhenEnv+"="+when, killStepEnv+"="+strconv.Itoa(step))
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL {
				return true
			}
		}
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return false
	}
	for _, when := range []string{"before", "in", "after"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			for step := 1; ; step++ {
				dir, bucket := t.TempDir(), t.TempDir()
				var ids []ulid.ULID
				for n := range 3 {
					ids = append(ids, writeBlock(t, dir, n))
				}
				if !run(dir, bucket, step, when) {
					if want := 3*4 + 1; step != want {
						t.Fatalf("the round had %d uploads, want %d", step-1, want-1)
					}
					return // All uploads have been tried.
				}
				if run(dir, bucket, 0, "") {
					t.Fatal("killed without a fault")
				}
				bkt, err := filesystem.NewBucket(bucket)
				check(t, err)
				checkWhole(t, dir, bkt, ids...)
			}
		})
	}
}
