package components

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/google/go-cmp/cmp"
)

// deliberate are the flags that differ from the reference table on purpose, each with the reason.
var deliberate = map[string]map[string]string{
	"query-frontend": {
		"alert.query-url": "removed there, accepted here with a warning",
	},
	"store": {
		"experimental.enable-index-cache-postings-compression": "removed there, accepted here with a warning",
		"debug.advertise-compatibility-label":                  "removed there, accepted here with a warning",
	},
	"query": {
		"store":                "removed there, accepted here as --endpoint with a warning",
		"rule":                 "removed there, accepted here as --endpoint with a warning",
		"metadata":             "removed there, accepted here as --endpoint with a warning",
		"exemplar":             "removed there, accepted here as --endpoint with a warning",
		"target":               "removed there, accepted here as --endpoint with a warning",
		"store-strict":         "removed there, accepted here as --endpoint-strict with a warning",
		"log.request.decision": "removed there, accepted here with a warning",
	},
}

// defaults are those that differ from the reference table on purpose.
var defaults = map[string]map[string]string{
	"query": {
		"query.promql-engine": "thanos", // The fast engine: what it is wrong about goes to the other.
	},
}

// ours are the flags that the reference does not have, each with the reason.
var ours = map[string]map[string]string{
	"query-frontend": {
		"query-frontend.max-concurrent":         "queriers are not piled up on",
		"query-frontend.max-waiting-per-tenant": "overload is answered, not kept",
		"query-frontend.tenant-weight":          "no tenant takes the time of all",
	},
	"compact": {
		"compact.max-memory":       "buffers fit into a budget, whatever the blocks",
		"compact.max-scratch":      "the disk is not filled",
		"compact.stall-timeout":    "a compactor without progress is not ready",
		"compact.stop-on-error":    "restores the full stop that --debug.halt-on-error was",
		"debug.partial-upload-age": "tests do not wait for two days",
	},
	"tools bucket verify":  {"dry-run": "what would be deleted is seen before"},
	"tools bucket cleanup": {"dry-run": "what would be deleted is seen before"},
	"tools bucket retention": {
		"dry-run":              "what would be deleted is seen before",
		"downsampling.disable": "data goes before it is downsampled only if that is said",
	},
	"tools bucket doctor": {
		"id": "Thanos has no doctor", "depth": "Thanos has no doctor", "output": "Thanos has no doctor", "concurrency": "Thanos has no doctor",
		"min-time": "Thanos has no doctor", "max-time": "Thanos has no doctor",
		"selector.relabel-config": "Thanos has no doctor", "selector.relabel-config-file": "Thanos has no doctor",
	},
	"probe": {"timeout": "Thanos has no probe", "insecure-skip-verify": "Thanos has no probe"},
	"store": {
		"store.max-memory":     "Thanos bounds no more than the pool of chunks",
		"store.coarser-blocks": "data that is there at any resolution is found",
	},
	"query": {
		"query.max-memory":           "queries are refused before they take more memory than there is",
		"query.max-memory-per-query": "one query can't take the memory of all",
		"query.shadow-sample":        "the engines are compared over real queries",
	},
}

type row struct {
	name, short, kind, def string
	repeatable, hidden     bool
}

// referenceRows reads testdata/flags.tsv: the flags of each component as their users know them.
func referenceRows(t *testing.T) map[string][]row {
	t.Helper()
	b, err := os.ReadFile("testdata/flags.tsv")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]row{}
	for i, line := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
		f := strings.Split(line, "\t")
		if i == 0 {
			continue
		}
		r := row{name: f[1], short: f[2], kind: f[3], def: f[4], repeatable: f[5] == "y", hidden: f[6] == "y"}
		if r.def == "(one of the pair required)" || r.def == "(required)" {
			r.def = ""
		}
		rows[f[0]] = append(rows[f[0]], r)
	}
	return rows
}

// declaredRows are the flags as the program declares them.
func declaredRows(fs *flags, group *kingpin.FlagGroupModel) (rows []row) {
	for _, m := range group.Flags {
		r := row{name: m.Name, kind: "bool", hidden: m.Hidden, def: strings.Join(m.Default, " ")}
		if m.Short != 0 {
			r.short = string(m.Short)
		}
		if f := fs.get(m.Name); f != nil {
			r.kind = f.kind
		}
		if len(m.Default) == 1 && m.Default[0] == "" {
			r.def = `""`
		}
		if c, ok := m.Value.(interface{ IsCumulative() bool }); ok {
			r.repeatable = c.IsCumulative()
		}
		rows = append(rows, r)
	}
	return rows
}

// Every flag of the reference table exists with its type, default, short form, repeatability and
// hiddenness, and no other exists but those that differ on purpose.
func TestFlagsMatchReference(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp") // a default is below it
	cl := newCommandLine("koios", io.Discard, All())
	model := cl.app.Model()
	reference := referenceRows(t)

	check := func(component string, fs *flags, group *kingpin.FlagGroupModel, ignore ...string) {
		t.Helper()
		want := map[string]row{}
		for _, r := range reference[component] {
			if r.kind == "bool" && r.def == "" {
				r.def = "false"
			}
			if def, ok := defaults[component][r.name]; ok {
				if def == r.def {
					t.Errorf("%s --%s: the reference has the default %s too", component, r.name, def)
				}
				r.def = def
			}
			want[r.name] = r
		}
		got := map[string]row{}
		for _, r := range declaredRows(fs, group) {
			if _, ok := deliberate[component][r.name]; ok || ours[component][r.name] != "" || slices.Contains(ignore, r.name) {
				continue
			}
			if r.kind == "bool" && r.def == "" {
				r.def = "false"
			}
			got[r.name] = r
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(row{})); d != "" {
			t.Errorf("%s (-reference +declared):\n%s", component, d)
		}
	}
	// kingpin's own.
	check("global", cl.common, model.FlagGroupModel, "help-long", "help-man", "completion-bash", "completion-script-bash", "completion-script-zsh")
	for _, c := range cl.commands {
		if c.name != "standalone" && c.name != "config check" { // ours alone
			check(c.name, c.flags, commandModel(model, c.name).FlagGroupModel)
		}
	}
	check("tools bucket (all subcommands)", cl.chosen("tools bucket ls").flags, commandModel(model, "tools bucket").FlagGroupModel)
	for component, fs := range deliberate {
		for name, reason := range fs {
			if cl.chosen(component).flags.get(name) == nil {
				t.Errorf("deliberate difference %s --%s (%s) does not exist", component, name, reason)
			}
			if removed[component][name] == "" {
				t.Errorf("removed flag %s --%s has no warning", component, name)
			}
		}
	}
}

// commandModel finds a command by its words.
func commandModel(m *kingpin.ApplicationModel, name string) (found *kingpin.CmdModel) {
	in := m.Commands
	for word := range strings.FieldsSeq(name) {
		found = in[slices.IndexFunc(in, func(c *kingpin.CmdModel) bool { return c.Name == word })]
		in = found.Commands
	}
	return found
}

// The tables of warnings name flags that exist.
func TestWarningsNameFlags(t *testing.T) {
	cl := newCommandLine("koios", io.Discard, All())
	for _, table := range []map[string]map[string]string{later, removed} {
		for component, fs := range table {
			for name := range fs {
				if cl.chosen(component).flags.get(name) == nil {
					t.Errorf("%s has no flag --%s", component, name)
				}
			}
		}
	}
}

// parse reads a command line and returns the command, or the line that tells its fault.
func parse(t *testing.T, args ...string) (*command, string) {
	t.Helper()
	cl := newCommandLine("koios", io.Discard, All())
	name, err := cl.app.Parse(args)
	if err != nil {
		return nil, cl.explain(err)
	}
	return cl.chosen(name), ""
}

// Wrong command lines end with code 1 and one line that names the flag.
func TestCommandLineFaults(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		var stdout, stderr strings.Builder
		code := execute("koios", args, &stdout, &stderr, All())
		if code != 1 || stderr.String() != want+"\n" || stdout.Len() > 0 {
			t.Errorf("%q: code %d, stderr %q, stdout %.80q: want %q", args, code, stderr.String(), stdout.String(), want)
		}
	}
	f("Error: unknown flag --query.replica-labels: did you mean --query.replica-label?", "query", "--query.replica-labels=a")
	f("Error: unknown flag --objstore.cfg: did you mean --objstore.config?", "store", "--objstore.cfg=a")
	f("Error: unknown flag --no-query.partial-respons: did you mean --query.partial-response?", "query", "--no-query.partial-respons")
	f("Error: unknown flag --zzzzzzzzzzzzzz", "query", "--zzzzzzzzzzzzzz")
	f("Error: unexpected true", "query", "--web.disable-cors=true")
	f("Error: flag 'query.timeout' cannot be repeated", "query", "--query.timeout=1m", "--query.timeout=2m")
	f(`Error: flag --query.timeout: "soon" is no duration like 30s, 5m or 2d`, "query", "--query.timeout=soon")
	f(`Error: flag --query.max-concurrent: "many" is no whole number`, "query", "--query.max-concurrent=many")
	f(`Error: flag --store.limits.request-series: "-1" is no whole number from 0 on`, "query", "--store.limits.request-series=-1")
	f(`Error: flag --chunk-pool-size: "2XB" is no size like 512KB, 250MB or 2GiB`, "store", "--chunk-pool-size=2XB")
	f(`Error: flag --min-time: "yesterday" is neither a time like 2026-01-31T00:00:00Z nor a duration from now like -6w`, "store", "--min-time=yesterday")
	f(`Error: flag --log.level: "loud" is none of error, warn, info, debug`, "query", "--log.level=loud")
	f(`Error: flag --prometheus.url: "localhost:9090" is no URL like http://host:9090`, "sidecar", "--prometheus.url=localhost:9090")
	f("Error: flag --endpoint: address is empty", "query", "--endpoint=")
	f("Error: expected argument for flag '--endpoint'", "query", "--endpoint")
	f(`Error: expected command but got "frobnicate"`, "frobnicate")
}

// Help and version go to standard output and end with code 0.
func TestHelpAndVersion(t *testing.T) {
	for _, arg := range []string{"--help", "--help-long", "--help-man", "--version", "--completion-script-bash", "--completion-script-zsh", "-h"} {
		var stdout, stderr strings.Builder
		// Some of kingpin's own actions know no other output than the process's.
		file, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		stdoutBefore := os.Stdout
		os.Stdout = file
		code := execute("koios", []string{arg}, &stdout, &stderr, All())
		os.Stdout = stdoutBefore
		_ = file.Close()
		direct, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		out := stdout.String() + string(direct)
		if code != 0 || stderr.Len() > 0 || out == "" {
			t.Errorf("%s: code %d, %d bytes out, stderr %q", arg, code, len(out), stderr.String())
		}
		if arg == "--version" && !strings.HasPrefix(out, "koios, version ") {
			t.Errorf("version %q", out)
		}
	}
}

// Sizes count in powers of 1024 however they are written.
func TestParseBytes(t *testing.T) {
	f := func(s string, want uint64) {
		t.Helper()
		got, err := parseBytes(s)
		if err != nil || got != want {
			t.Errorf("%q: %d %v: want %d", s, got, err, want)
		}
	}
	f("0", 0)
	f("17", 17)
	f("1B", 1)
	f("1KB", 1024)
	f("1KiB", 1024)
	f("250MB", 250<<20)
	f("2GB", 2<<30)
	f("1.5GiB", 3<<29)
	f("1TB", 1<<40)
	for _, s := range []string{"", "B", "KB", "-1", "1XB", "1KBB", "1iB", "1KM", "9999999999EB", "0x10", "1e3", "NaN", "Inf", "1_0"} {
		if n, err := parseBytes(s); err == nil {
			t.Errorf("%q is read as %d", s, n)
		}
	}
}

func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"0", "250MB", "1.5GiB", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) { _, _ = parseBytes(s) })
}

// Moments are fixed or relative to now.
func TestParseTimeOrDuration(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := func(s string, want int64) {
		t.Helper()
		m, err := parseTimeOrDuration(s)
		if err != nil || m.from(now).UnixMilli() != want {
			t.Errorf("%q: %d %v: want %d", s, m.from(now).UnixMilli(), err, want)
		}
	}
	f("0000-01-01T00:00:00Z", -62167219200000)
	f("9999-12-31T23:59:59Z", 253402300799000)
	f("2026-01-02T04:04:05+01:00", now.UnixMilli())
	f("-6w", now.Add(-6*7*24*time.Hour).UnixMilli())
	f("2h", now.Add(2*time.Hour).UnixMilli())
	f("0s", now.UnixMilli())
	for _, s := range []string{"", "-", "--1h", "now", "6"} {
		if _, err := parseTimeOrDuration(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

func FuzzParseTimeOrDuration(f *testing.F) {
	f.Add("-6w")
	f.Add("2026-01-02T04:04:05+01:00")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = parseTimeOrDuration(s) })
}

// Content comes from the command line or from a file, not from both; variables are filled in where the
// table says so, and an unset one is named.
func TestContent(t *testing.T) {
	t.Setenv("SECRET", "s3cret")
	t.Setenv("EMPTY", "")
	dir := t.TempDir()
	file := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(file, []byte("key: $(SECRET)$(EMPTY)"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(c content, want, fault string) {
		t.Helper()
		c.name = "x.config"
		got, err := c.read()
		if fault != "" {
			if err == nil || err.Error() != fault {
				t.Errorf("%+v: %v: want %s", c, err, fault)
			}
			return
		}
		if err != nil || string(got) != want {
			t.Errorf("%+v: %q %v: want %q", c, got, err, want)
		}
	}
	f(content{}, "", "")
	f(content{inline: "a: $(SECRET)", expand: true}, "a: s3cret", "")
	f(content{inline: "a: $(SECRET)"}, "a: $(SECRET)", "")
	f(content{file: file, expand: true}, "key: s3cret", "")
	f(content{inline: "a: $SECRET $ (SECRET) ${SECRET}", expand: true}, "a: $SECRET $ (SECRET) ${SECRET}", "")
	f(content{inline: "a", file: file}, "", "flags --x.config and --x.config-file exclude each other: give one of them")
	f(content{required: true}, "", "one of the flags --x.config and --x.config-file is required")
	f(content{file: dir + "/none"}, "", "flag --x.config-file: open "+dir+"/none: no such file or directory")
	f(content{inline: "$(NOT_SET_A) $(NOT_SET_B)", expand: true}, "", "flag --x.config: environment variable NOT_SET_A, NOT_SET_B is referred to as $(NOT_SET_A) and not set")
}

func FuzzExpandEnv(f *testing.F) {
	f.Add([]byte("a: $(PATH)"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = expandEnv(b) })
}
