// Package docs holds the pages to what there is: links lead somewhere, tests that are named exist, alerts have
// runbooks.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const root = "../.."

// pages are all Markdown files of the repository.
func pages(t *testing.T) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && (name == "node_modules" || name == "testdata" || name == "data" || strings.HasPrefix(name, ".") && p != root) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".md") {
			files = append(files, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %d pages were found", len(files))
	}
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	code    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchors are the names of a page's headings as those who show Markdown make them.
func anchors(text string) (names []string) {
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		names = append(names, strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, m[1]))
	}
	return names
}

// Every link inside the repository leads to a file that is there, and to a heading that is in it.
func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		text := code.ReplaceAllString(fence.ReplaceAllString(read(t, page), ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: a link leads nowhere: %s", page, m[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, file)), anchor) {
				t.Errorf("%s: %s has no heading #%s", page, file, anchor)
			}
		}
	}
}

var named = regexp.MustCompile("`([a-z][a-z0-9/_-]*)\\.(Test[A-Za-z0-9]+)`")

// Each row of the page on compatibility names tests that exist, or says that it is open and what it waits for.
func TestCompatibilityTable(t *testing.T) {
	rows := 0
	for line := range strings.Lines(read(t, filepath.Join(root, "docs/compatibility.md"))) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| point |") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 2 {
			t.Errorf("a row of %d cells: %s", len(cells), line)
			continue
		}
		shown := strings.TrimSpace(cells[1])
		tests := named.FindAllStringSubmatch(shown, -1)
		if strings.HasPrefix(shown, "open: waits for ") {
			if len(tests) > 0 {
				t.Errorf("an open row names tests: %s", line)
			}
			continue
		}
		if len(tests) == 0 {
			t.Errorf("no test shows: %s", cells[0])
		}
		for _, m := range tests {
			if !declares(t, filepath.Join(root, m[1]), m[2]) {
				t.Errorf("%s has no %s, which is to show: %s", m[1], m[2], cells[0])
			}
		}
	}
	if rows < 40 {
		t.Errorf("only %d rows", rows)
	}
}

// declares tells whether a test is in a directory.
func declares(t *testing.T, dir, test string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.Contains(read(t, f), "\nfunc "+test+"(t *testing.T)") {
			return true
		}
	}
	return false
}
