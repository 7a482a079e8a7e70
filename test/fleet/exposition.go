package fleet

import (
	"slices"
	"strconv"
	"strings"
)

// sampleOf reads one line of a text exposition: its value, if it is a sample of the named metric whose
// labels contain every piece of text in with.
func sampleOf(line, name string, with []string) (float64, bool) {
	rest, found := strings.CutPrefix(line, name)
	if !found || rest == "" || (rest[0] != '{' && rest[0] != ' ') {
		return 0, false
	}
	at := strings.LastIndexByte(rest, ' ')
	if at < 0 {
		return 0, false
	}
	ls := rest[:at]
	if slices.ContainsFunc(with, func(piece string) bool { return !strings.Contains(ls, piece) }) {
		return 0, false
	}
	v, err := strconv.ParseFloat(rest[at+1:], 64)
	return v, err == nil
}
