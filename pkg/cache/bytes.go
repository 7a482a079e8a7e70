package cache

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size in bytes. In YAML it is a number, or a number with a unit; K, KB and KiB are all 1024 bytes, and so on.
type Bytes int64

// UnmarshalYAML implements yaml.Unmarshaler.
func (b *Bytes) UnmarshalYAML(unmarshal func(any) error) error {
	var s string
	if err := unmarshal(&s); err != nil {
		return err
	}
	n, err := ParseBytes(s)
	if err != nil {
		return err
	}
	*b = n
	return nil
}

// ParseBytes reads a size.
func ParseBytes(s string) (Bytes, error) {
	bad := func() (Bytes, error) {
		return 0, fmt.Errorf("%q is no size: want a number of bytes, or one with KB, MB, GB, TB, PB, EB or the same with i", s)
	}
	text := strings.TrimSpace(s)
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	digits, unit := text, ""
	if end >= 0 {
		digits, unit = text[:end], strings.TrimSpace(text[end:])
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return bad()
	}
	shift := 0
	if unit != "" && unit != "B" {
		prefix := strings.TrimSuffix(strings.TrimSuffix(unit, "B"), "i")
		i := strings.Index("KMGTPE", strings.ToUpper(prefix))
		if len(prefix) != 1 || i < 0 {
			return bad()
		}
		shift = 10 * (i + 1)
	}
	if n = math.Ldexp(n, shift); n >= math.MaxInt64 {
		return bad()
	}
	return Bytes(n), nil
}
