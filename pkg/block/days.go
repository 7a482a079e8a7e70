package block

import (
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

const dayMillis = int64(24 * time.Hour / time.Millisecond)

// span is a half-open range of times in ms.
type span struct{ from, to int64 }

// days are the times that some blocks cover together: in order, and apart from each other.
type days []span

func wholeDays(metas map[ulid.ULID]*Meta) (d days) {
	all := make([]span, 0, len(metas))
	for _, m := range metas {
		all = append(all, span{m.MinTime, m.MaxTime})
	}
	slices.SortFunc(all, func(a, b span) int { return int(min(max(a.from-b.from, -1), 1)) })
	for _, s := range all {
		if n := len(d); n > 0 && s.from <= d[n-1].to {
			d[n-1].to = max(d[n-1].to, s.to)
		} else {
			d = append(d, s)
		}
	}
	return d
}

// cover tells whether each day in UTC that a block touches is covered as a whole.
func (d days) cover(m *Meta) bool {
	from := floorDay(m.MinTime)
	to := floorDay(max(m.MaxTime-1, m.MinTime)) + dayMillis
	// Days follow each other without a gap, so one span has them all or they are not covered.
	i, found := slices.BinarySearchFunc(d, from, func(s span, t int64) int { return int(min(max(s.from-t, -1), 1)) })
	if !found {
		i--
	}
	return i >= 0 && d[i].to >= to
}

func floorDay(t int64) int64 {
	day := t / dayMillis
	if t%dayMillis < 0 {
		day--
	}
	return day * dayMillis
}
