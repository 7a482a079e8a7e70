package mutants

import (
	"fmt"
	"strings"
)

// Mutant is one fault and the test that must see it.
type Mutant struct {
	// What says what is wrong with the code once the mutant is in.
	What string
	// Package and Test name the test: a path like ./pkg/store and a function (or Function/case).
	Package, Test string
	// File is the file that is changed; Old, which occurs in it once, becomes New.
	File, Old, New string
}

// Parse reads a table: mutants separated by empty lines, in each line a word and what it says:
//
//	mutant: never fills a hole
//	test: ./pkg/dedup TestCoverage
//	file: pkg/dedup/merger.go
//	-	if h.open {
//	+	if false {
//
// Lines that begin with - are the old text, with + the new; either may be several. Lines that begin with # are comments.
func Parse(table string) ([]Mutant, error) {
	var all []Mutant
	var m *Mutant
	for i, line := range strings.Split(table, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			m = nil
			continue
		}
		if line[0] == '#' {
			continue
		}
		if m == nil {
			all = append(all, Mutant{})
			m = &all[len(all)-1]
		}
		switch word, rest, _ := strings.Cut(line, ": "); {
		case line[0] == '-':
			m.Old += line[1:] + "\n"
		case line[0] == '+':
			m.New += line[1:] + "\n"
		case word == "mutant":
			m.What = rest
		case word == "test":
			m.Package, m.Test, _ = strings.Cut(rest, " ")
		case word == "file":
			m.File = rest
		default:
			return nil, fmt.Errorf("line %d: %q is neither mutant, test, file, - nor +", i+1, line)
		}
	}
	for i := range all {
		if m := &all[i]; m.What == "" || m.Package == "" || m.Test == "" || m.File == "" || m.Old == "" || m.Old == m.New {
			return nil, fmt.Errorf("mutant %d (%s) is not whole: it needs mutant, test, file, - and +", i+1, m.What)
		}
	}
	return all, nil
}

// Apply returns the text of a file with the mutant in.
func (m *Mutant) Apply(text string) (string, error) {
	switch n := strings.Count(text, m.Old); n {
	case 1:
		return strings.Replace(text, m.Old, m.New, 1), nil
	default:
		return "", fmt.Errorf("mutant %q: the old text occurs %d times in %s, want once", m.What, n, m.File)
	}
}
