package components

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// timeOrDuration is a moment: fixed, or so far from now.
type timeOrDuration struct {
	at  time.Time
	rel time.Duration
	// relative tells which of the two counts.
	relative bool
}

// from is the moment, seen from now.
func (t timeOrDuration) from(now time.Time) time.Time {
	if t.relative {
		return now.Add(t.rel)
	}
	return t.at
}

// now is the moment, seen from the time of the call.
func (t timeOrDuration) now() time.Time { return t.from(time.Now()) }

// nowMillis is the moment in ms, seen from the time of the call.
func (t timeOrDuration) nowMillis() int64 { return t.now().UnixMilli() }

// parseTimeOrDuration reads RFC 3339, or a duration from now such as -6w or 2h.
func parseTimeOrDuration(s string) (timeOrDuration, error) {
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return timeOrDuration{at: at}, nil
	}
	d, err := parsePromDuration(strings.TrimPrefix(s, "-"))
	if err != nil {
		return timeOrDuration{}, fmt.Errorf("%q is neither a time like 2026-01-31T00:00:00Z nor a duration from now like -6w", s)
	}
	if strings.HasPrefix(s, "-") {
		d = -d
	}
	return timeOrDuration{rel: d, relative: true}, nil
}

// parseBytes reads a size. K, KB and KiB are all 1024 bytes, and so on up to E.
func parseBytes(s string) (uint64, error) {
	digits := strings.TrimRight(s, "KMGTPEiB ")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.ContainsAny(digits, "xXpPnNiI_eE+-") {
		return 0, fmt.Errorf("%q is no size like 512KB, 250MB or 2GiB", s)
	}
	unit := strings.TrimSpace(s[len(digits):])
	prefix := strings.TrimSuffix(strings.TrimSuffix(unit, "B"), "i")
	shift := 0
	if prefix != "" {
		i := strings.Index("KMGTPE", prefix)
		if len(prefix) != 1 || i < 0 {
			return 0, fmt.Errorf("%q has an unknown unit: want KB, MB, GB, TB, PB or EB, or the same with i", s)
		}
		shift = 10 * (i + 1)
	} else if unit != "" && unit != "B" {
		return 0, fmt.Errorf("%q has an unknown unit: want KB, MB, GB, TB, PB or EB, or the same with i", s)
	}
	n *= math.Pow(2, float64(shift))
	if n >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return uint64(n), nil
}
