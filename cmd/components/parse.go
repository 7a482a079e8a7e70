package components

import (
	"fmt"
	"strings"
	"time"

	"github.com/koios-metrics/koios/pkg/size"
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
	n, err := size.Parse(s, size.Binary)
	return uint64(n), err
}
