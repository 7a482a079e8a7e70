// Package size reads sizes in bytes as people write them.
package size

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The meanings of K where it is written without an i, as factors. KiB is 1024 bytes in any case.
const (
	Binary  = 1024
	Decimal = 1000
)

// Parse reads a number of bytes, or a number with a unit: K, KB or KiB, and so on up to E, in any case. The kilo says what
// K and KB are, M is its square, and so on. A part of a byte is cut off.
func Parse(s string, kilo float64) (int64, error) {
	malformed := func() (int64, error) {
		return 0, fmt.Errorf("%q is no size like 512KB, 250MB or 2GiB", s)
	}
	text := strings.ToUpper(strings.TrimSpace(s))
	digits, unit := text, ""
	if end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' }); end >= 0 {
		digits, unit = text[:end], strings.TrimSpace(text[end:])
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return malformed()
	}
	if unit != "" && unit != "B" {
		prefix, isBinary := strings.CutSuffix(strings.TrimSuffix(unit, "B"), "I")
		if isBinary {
			kilo = Binary
		}
		i := strings.Index("KMGTPE", prefix)
		if len(prefix) != 1 || i < 0 {
			return malformed()
		}
		n *= math.Pow(kilo, float64(i+1))
	}
	if n >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return int64(n), nil
}
