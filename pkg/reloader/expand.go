package reloader

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// variable is a reference to an environment variable: $(NAME).
var variable = regexp.MustCompile(`\$\(([a-zA-Z_][a-zA-Z0-9_]*)\)`)

// expand replaces every $(NAME) by its value. References to variables that are not set stay, and their
// names come back sorted and unique.
func expand(text []byte, lookup func(string) (string, bool)) (out []byte, undefined []string) {
	out = variable.ReplaceAllFunc(text, func(ref []byte) []byte {
		name := string(ref[2 : len(ref)-1])
		v, ok := lookup(name)
		if !ok {
			undefined = append(undefined, name)
			return ref
		}
		return []byte(v)
	})
	slices.Sort(undefined)
	return out, slices.Compact(undefined)
}

// undefinedError names variables that a configuration needs and the environment lacks.
type undefinedError struct {
	file  string
	names []string
}

func (e *undefinedError) Error() string {
	return fmt.Sprintf("%s refers to environment variables that are not set: %s", e.file, strings.Join(e.names, ", "))
}
