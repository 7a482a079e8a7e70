package serve

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

// SetMemoryLimit sets the soft memory limit of the Go runtime to a ratio (0 exclusive to 1 inclusive) of
// the memory that the cgroup, or else the machine, allows. An explicit GOMEMLIMIT wins. A missing limit
// is logged, never an error.
func SetMemoryLimit(logger log.Logger, ratio float64) error {
	if ratio <= 0 || ratio > 1 {
		return fmt.Errorf("auto-gomemlimit.ratio %v: want more than 0 and at most 1", ratio)
	}
	if v, ok := os.LookupEnv("GOMEMLIMIT"); ok {
		_ = level.Info(logger).Log("msg", "memory limit of the Go runtime stays as the environment gives it", "GOMEMLIMIT", v)
		return nil
	}
	limit, err := memlimit.SetGoMemLimitWithOpts(
		memlimit.WithRatio(ratio),
		memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)),
	)
	if err != nil && !errors.Is(err, memlimit.ErrNoLimit) {
		_ = level.Warn(logger).Log("msg", "memory limit of the Go runtime is not set", "err", err)
		return nil
	}
	_ = level.Info(logger).Log("msg", "memory limit of the Go runtime is set", "bytes", limit, "ratio", ratio)
	return nil
}

// ShareOfMemory returns how many bytes may be held for work on request. That is 60 % of the soft memory
// limit of the Go runtime, which collects garbage more often when it comes near; or, where there is
// none, 40 % of what the cgroup or else the machine allows, since the heap then grows to twice of what it
// holds before garbage is collected. It is 0 if nobody knows a limit.
func ShareOfMemory() int64 {
	if soft := debug.SetMemoryLimit(-1); soft != math.MaxInt64 {
		return soft / 10 * 6
	}
	hard, err := memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)()
	if err != nil || hard > math.MaxInt64 {
		return 0
	}
	return int64(hard) / 10 * 4
}
