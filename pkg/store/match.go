package store

import (
	"math"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// MatchExternal decides the matchers on external labels. ok is false when one of them does not match,
// so that the Store holds nothing for the request; rest are the matchers left for stored series. An
// external label with an empty value counts as absent. rest shares ms where nothing was taken out.
func MatchExternal(external labels.Labels, ms []*labels.Matcher) (rest []*labels.Matcher, ok bool) {
	decided := 0
	for _, m := range ms {
		v := external.Get(m.Name)
		if v == "" {
			continue
		}
		if !m.Matches(v) {
			return nil, false
		}
		decided++
	}
	if decided == 0 {
		return ms, true
	}
	rest = make([]*labels.Matcher, 0, len(ms)-decided)
	for _, m := range ms {
		if external.Get(m.Name) == "" {
			rest = append(rest, m)
		}
	}
	return rest, true
}

// Without returns ls without the named labels.
func Without(ls labels.Labels, names []string) labels.Labels {
	if !HasAny(ls, names) {
		return ls
	}
	b := labels.NewBuilder(ls)
	b.Del(names...)
	return b.Labels()
}

// HasAny tells whether ls has one of the named labels.
func HasAny(ls labels.Labels, names []string) bool {
	for _, n := range names {
		if ls.Has(n) {
			return true
		}
	}
	return false
}

// ExtendsBefore tells whether next has all labels of ls and right after them one whose name sorts before
// name: such a series moves in front of ls when a label of that name is merged into both.
func ExtendsBefore(ls, next labels.Labels, name string) bool {
	n := ls.Len()
	if next.Len() <= n {
		return false
	}
	i, same, before := 0, true, false
	next.Range(func(l labels.Label) {
		switch {
		case i < n:
			same = same && ls.Get(l.Name) == l.Value
		case i == n:
			before = l.Name < name
		}
		i++
	})
	return same && before
}

// Overlaps tells whether two closed time ranges in ms meet.
func Overlaps(aMin, aMax, bMin, bMax int64) bool { return aMin <= bMax && bMin <= aMax }

// Selects tells whether the series with these final labels belongs to the shard. A nil shard, or one
// of less than one part, selects all.
func (s *Shard) Selects(ls labels.Labels) bool {
	if s == nil || s.Total < 1 {
		return true
	}
	var d xxhash.Digest
	d.Reset()
	sep := []byte{0xff}
	ls.Range(func(l labels.Label) {
		if slices.Contains(s.Labels, l.Name) != s.By {
			return
		}
		_, _ = d.WriteString(l.Name)
		_, _ = d.Write(sep)
		_, _ = d.WriteString(l.Value)
		_, _ = d.Write(sep)
	})
	return d.Sum64()%uint64(s.Total) == uint64(s.Index)
}

// FormatTime writes a time in ms as RFC 3339 in UTC; the ends of the scale read as words.
func FormatTime(ms int64) string {
	switch ms {
	case math.MinInt64:
		return "the beginning"
	case math.MaxInt64:
		return "the end"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.999Z07:00")
}
