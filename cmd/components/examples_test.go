package components

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-kit/log"

	"github.com/koios-metrics/koios/test/certs"
)

var (
	fencedBlock = regexp.MustCompile("(?ms)^```(\\w+) ?([\\w-]*)\n(.*?)^```$")
	// certificates are the paths in examples that the test puts files at.
	certificates = regexp.MustCompile(`((?:client_)?ca_file|cert_file|key_file): [^\s,}]+`)
)

// Examples in the pages are ones that work: each command line of koios, fenced or indented, parses, and each YAML block
// that names a kind of file (a word after yaml) is one that koios config check calls sound.
func TestExamples(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../../README.md")
	ca := certs.New(t, "authority")
	pair := ca.Issue(t, certs.Options{})
	commands, files := 0, 0
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		for _, command := range koiosCommands(text) {
			commands++
			if _, err := newCommandLine("koios", io.Discard, All()).app.Parse(command); err != nil {
				t.Errorf("%s: koios %s: %v", page, strings.Join(command, " "), err)
			}
		}
		for _, m := range fencedBlock.FindAllStringSubmatch(text, -1) {
			if m[1] != "yaml" || m[2] == "" {
				continue
			}
			files++
			content := certificates.ReplaceAllStringFunc(m[3], func(s string) string {
				key, _, _ := strings.Cut(s, ":")
				return key + ": " + map[string]string{"ca_file": ca.File, "client_ca_file": ca.File, "cert_file": pair.Cert, "key_file": pair.Key}[key]
			})
			if err := checkExample(t, m[2], content); err != nil {
				t.Errorf("%s: %s: %v", page, m[2], err)
			}
		}
	}
	if commands < 12 || files < 5 {
		t.Errorf("only %d commands and %d files", commands, files)
	}
}

// koiosCommands are the command lines in a page, without those that leave something out.
func koiosCommands(text string) (commands [][]string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "koios ")
		if indented := strings.HasPrefix(line, "    "); !ok || !fenced && !indented || strings.ContainsAny(command, "…<#'\"") {
			continue
		}
		if _, first, _ := strings.Cut(strings.TrimSpace(command), " "); first == "" && !strings.HasPrefix(command, "standalone") {
			continue
		}
		commands = append(commands, strings.Fields(command))
	}
	return commands
}

func checkExample(t *testing.T, kind, content string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "example.yml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, k := range fileKinds() {
		if k.flag == kind {
			c := &checker{logger: log.NewNopLogger()}
			return c.one(t.Context(), k, file)
		}
	}
	t.Errorf("there is no kind of file called %s", kind)
	return nil
}
