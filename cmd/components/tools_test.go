package components

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/test/bulk"
)

// toolWorld is a bucket of files that tools are run on, and which of their flags were used.
type toolWorld struct {
	t    *testing.T
	dir  string
	used map[string]bool
}

func newToolWorld(t *testing.T) *toolWorld {
	return &toolWorld{t: t, dir: t.TempDir(), used: map[string]bool{}}
}

// toolBlock says what is special of a block.
type toolBlock struct {
	cluster    string
	ago        time.Duration // its end, before now
	level      int
	resolution int64
}

// add writes a block of two hours into a folder, the bucket's by default.
func (w *toolWorld) add(b toolBlock, dirs ...string) ulid.ULID {
	w.t.Helper()
	dir := w.dir
	if len(dirs) > 0 {
		dir = dirs[0]
	}
	end := time.Now().Add(-b.ago).UnixMilli() / 7_200_000 * 7_200_000
	id, err := bulk.Write(w.t.Context(), dir, bulk.Spec{
		From: end - 7_200_000, Interval: 60_000, Samples: 120, Series: bulk.Counters("m", 3), External: map[string]string{"cluster": b.cluster},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.meta(id, func(m *block.Meta) {
		m.Compaction.Level, m.Thanos.Downsample.Resolution = max(b.level, 1), b.resolution
		if len(dirs) > 0 { // as Prometheus leaves it
			m.Thanos = block.Thanos{}
		}
	}, dir)
	return id
}

// meta changes the metadata of a block.
func (w *toolWorld) meta(id ulid.ULID, change func(*block.Meta), dir string) {
	w.t.Helper()
	at := filepath.Join(dir, id.String())
	m, err := block.ReadMetaDir(at)
	if err != nil {
		w.t.Fatal(err)
	}
	change(m)
	if err := block.WriteMetaDir(at, m); err != nil {
		w.t.Fatal(err)
	}
}

// run runs a tool in this process, and returns its exit code and what it answered.
func (w *toolWorld) run(sub string, args ...string) (int, string) {
	w.t.Helper()
	w.used["tools bucket (all subcommands) objstore.config"] = true
	for _, a := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		w.used["tools bucket "+sub+" "+strings.TrimPrefix(name, "no-")] = true
	}
	var stdout, stderr bytes.Buffer
	all := append([]string{"--log.level=error", "tools", "bucket", sub, fileBucket(w.dir)}, args...)
	code := execute("koios", all, &stdout, &stderr, All())
	return code, stdout.String() + stderr.String()
}

// good runs a tool that must succeed.
func (w *toolWorld) good(sub string, args ...string) string {
	w.t.Helper()
	code, out := w.run(sub, args...)
	if code != 0 {
		w.t.Errorf("%s %v: code %d\n%s", sub, args, code, out)
	}
	return out
}

// has tells whether an object is there.
func (w *toolWorld) has(id ulid.ULID, rel string) bool {
	_, err := os.Stat(filepath.Join(w.dir, id.String(), rel))
	return !errors.Is(err, fs.ErrNotExist)
}

// is checks a statement.
func (w *toolWorld) is(ok bool, format string, args ...any) {
	w.t.Helper()
	if !ok {
		w.t.Errorf(format, args...)
	}
}

// metas are the blocks of a bucket.
func (w *toolWorld) metas(dir string) (all []*block.Meta) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", block.MetaFilename))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range files {
		m, err := block.ReadMetaDir(filepath.Dir(f))
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func (w *toolWorld) file(text string) string {
	w.t.Helper()
	name := filepath.Join(w.t.TempDir(), "file.yml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return name
}

const keepA = "[{action: keep, source_labels: [cluster], regex: a}]"

// toolsElsewhere are the flags whose effect other tests show, or that change how much is done at once and nothing else.
var toolsElsewhere = map[string]string{
	"tools bucket cleanup block-sync-concurrency": "at once", "tools bucket retention block-sync-concurrency": "at once",
	"tools bucket downsample block-files-concurrency": "at once", "tools bucket downsample downsample.concurrency": "at once",
	"tools bucket upload-blocks shipper.upload-concurrency": "at once",
	"tools bucket replicate http-grace-period":              "TestOrderOfTheEnd", "tools bucket downsample http-grace-period": "TestOrderOfTheEnd",
	"tools bucket replicate http.config": "TestWebTLSAndUsers", "tools bucket downsample http.config": "TestWebTLSAndUsers",
	"tools bucket replicate http-address": "TestBucketWeb", "tools bucket downsample http-address": "TestBucketWeb",
}

// Every flag of the tools that the reference has changes what its tool answers or does to a bucket.
func TestToolFlagsHaveTheirEffect(t *testing.T) {
	used := map[string]bool{}
	for name, f := range map[string]func(*toolWorld){
		"ls": (*toolWorld).testList, "inspect": (*toolWorld).testInspect, "verify": (*toolWorld).testVerify, "mark": (*toolWorld).testMark,
		"cleanup": (*toolWorld).testCleanup, "retention": (*toolWorld).testRetention, "rewrite": (*toolWorld).testRewrite,
		"upload-blocks": (*toolWorld).testUpload, "replicate": (*toolWorld).testReplicate, "downsample": (*toolWorld).testDownsample,
	} {
		t.Run(name, func(t *testing.T) {
			w := newToolWorld(t)
			f(w)
			for flag := range w.used {
				used[flag] = true
			}
		})
	}
	for component, rows := range referenceRows(t) {
		if !strings.HasPrefix(component, "tools bucket") || component == "tools bucket web" { // TestBucketWeb
			continue
		}
		for _, r := range rows {
			key := component + " " + r.name
			test := toolsElsewhere[key]
			if strings.HasPrefix(test, "Test") && !hasTest(t, test) {
				t.Errorf("%s: there is no %s", key, test)
			}
			if !used[key] && test == "" {
				t.Errorf("nothing shows the effect of %s", key)
			}
		}
	}
}

func (w *toolWorld) testList() {
	a, b := w.add(toolBlock{cluster: "a", ago: 48 * time.Hour}), w.add(toolBlock{cluster: "b", ago: 4 * time.Hour})
	for arg, want := range map[string][]ulid.ULID{
		"":               {a, b},
		"--min-time=-1d": {b}, "--max-time=-1d": {a},
		"--selector.relabel-config=" + keepA:              {a},
		"--selector.relabel-config-file=" + w.file(keepA): {a},
	} {
		ids := make([]string, len(want))
		for i, id := range want {
			ids[i] = id.String()
		}
		var args []string
		if arg != "" {
			args = []string{arg}
		}
		out := w.good("ls", args...)
		w.is(out == strings.Join(ids, "\n")+"\n", "ls %s: %s", arg, out)
	}
	out := w.good("ls", "--output={{.Thanos.Labels.cluster}}")
	w.is(out == "a\nb\n", "ls -o: %q", out)
	w.good("mark", "--id="+a.String(), "--marker=deletion-mark.json", "--details=x")
	out = w.good("ls", "--exclude-delete")
	w.is(out == b.String()+"\n", "ls --exclude-delete: %q", out)
	code, _ := w.run("ls", "--timeout=1ns")
	w.is(code == 1, "ls within no time: code %d", code)
	w.used["tools bucket (all subcommands) objstore.config-file"] = true
	var stdout, stderr bytes.Buffer
	file := w.file("type: FILESYSTEM\nconfig: {directory: " + w.dir + "}")
	code = execute("koios", []string{"tools", "bucket", "ls", "--objstore.config-file=" + file}, &stdout, &stderr, All())
	w.is(code == 0 && strings.Contains(stdout.String(), a.String()), "ls with a file: %d %s", code, stdout.String())
}

func (w *toolWorld) testInspect() {
	a, b := w.add(toolBlock{cluster: "a", ago: 4 * time.Hour, level: 2}), w.add(toolBlock{cluster: "b", ago: 48 * time.Hour})
	out := w.good("inspect", `--selector=cluster="a"`)
	w.is(strings.Contains(out, a.String()) && !strings.Contains(out, b.String()), "inspect --selector: %s", out)
	out = w.good("inspect", "--output=tsv")
	w.is(strings.HasPrefix(out, "ULID\tFROM\t"), "inspect --output: %s", out)
	first := strings.Index(out, b.String()) < strings.Index(out, a.String())
	out = w.good("inspect", "--sort-by=LABELS")
	w.is(first && strings.Index(out, a.String()) < strings.Index(out, b.String()), "inspect --sort-by: %s", out)
	code, _ := w.run("inspect", "--timeout=1ns")
	w.is(code == 1, "inspect within no time: code %d", code)
}

func (w *toolWorld) testVerify() {
	bad, other := w.add(toolBlock{cluster: "a", ago: 48 * time.Hour}), w.add(toolBlock{cluster: "a", ago: 48 * time.Hour})
	chunks := filepath.Join(w.dir, bad.String(), "chunks", "000001")
	b, err := os.ReadFile(chunks)
	if err != nil {
		w.t.Fatal(err)
	}
	b[len(b)-6] ^= 0xff // of the last chunk
	if err := os.WriteFile(chunks, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
	_, out := w.run("verify", "--issues=overlapped_blocks")
	w.is(strings.Contains(out, "overlap") && !strings.Contains(out, "chunk"), "verify --issues: %s", out)
	_, out = w.run("verify", "--id="+other.String())
	w.is(!strings.Contains(out, bad.String()), "verify --id: %s", out)
	backup := w.t.TempDir()
	code, _ := w.run("verify", "--repair", "--id="+bad.String(), "--dry-run", "--objstore-backup.config={type: FILESYSTEM, config: {directory: "+backup+"}}")
	w.is(w.has(bad, "meta.json") && len(w.metas(backup)) == 0, "verify --dry-run changes something, code %d", code)
	file := w.file("type: FILESYSTEM\nconfig: {directory: " + backup + "}")
	w.run("verify", "--repair", "--id="+bad.String(), "--delete-delay=1h", "--objstore-backup.config-file="+file)
	w.is(w.has(bad, "deletion-mark.json") && len(w.metas(backup)) == 1, "verify --repair --delete-delay: no mark, or no copy in the backup")
}

func (w *toolWorld) testMark() {
	a := w.add(toolBlock{cluster: "a", ago: 48 * time.Hour})
	for _, marker := range []string{"deletion-mark.json", "no-compact-mark.json", "no-downsample-mark.json"} {
		w.good("mark", "--id="+a.String(), "--marker="+marker, "--details=because")
		b, err := os.ReadFile(filepath.Join(w.dir, a.String(), marker))
		w.is(err == nil && strings.Contains(string(b), "because"), "mark: %s %v", b, err)
		w.good("mark", "--id="+a.String(), "--marker="+marker, "--remove")
		w.is(!w.has(a, marker), "mark --remove: %s is there", marker)
	}
}

func (w *toolWorld) testCleanup() {
	ids := map[string]ulid.ULID{"a": w.add(toolBlock{cluster: "a", ago: 48 * time.Hour}), "b": w.add(toolBlock{cluster: "b", ago: 48 * time.Hour})}
	for _, id := range ids {
		w.meta(id, func(m *block.Meta) { m.Thanos.Source = block.SourceSidecar }, w.dir)
		w.good("mark", "--id="+id.String(), "--marker=deletion-mark.json", "--details=x")
	}
	there := func() string { return fmt.Sprint(w.has(ids["a"], "meta.json"), w.has(ids["b"], "meta.json")) }
	w.good("cleanup", "--consistency-delay=0s")
	w.is(there() == "true true", "cleanup deletes before its delay")
	w.good("cleanup", "--delete-delay=0s")
	w.is(there() == "true true", "cleanup deletes what is too fresh")
	w.good("cleanup", "--delete-delay=0s", "--consistency-delay=0s", "--dry-run")
	w.is(there() == "true true", "cleanup --dry-run deletes")
	w.good("cleanup", "--delete-delay=0s", "--consistency-delay=0s", "--selector.relabel-config="+keepA)
	w.is(there() == "false true", "cleanup --selector.relabel-config: there %s", there())
	w.good("cleanup", "--delete-delay=0s", "--consistency-delay=0s", "--selector.relabel-config-file="+w.file(strings.Replace(keepA, "regex: a", "regex: b", 1)))
	w.is(there() == "false false", "cleanup --selector.relabel-config-file: there %s", there())
}

func (w *toolWorld) testRetention() {
	const mark = "deletion-mark.json"
	day := 24 * time.Hour
	raw, five, hour := w.add(toolBlock{cluster: "a", ago: 3 * day}), w.add(toolBlock{cluster: "a", ago: 3 * day, resolution: block.Resolution5m}), w.add(toolBlock{cluster: "a", ago: 3 * day, resolution: block.Resolution1h})
	other := w.add(toolBlock{cluster: "b", ago: 3 * day})
	for _, m := range w.metas(w.dir) {
		w.meta(m.ULID, func(m *block.Meta) { m.Thanos.Source = block.SourceSidecar }, w.dir)
	}
	marked := func() (ms string) {
		for _, id := range []ulid.ULID{raw, five, hour, other} {
			ms += map[bool]string{true: "x", false: "."}[w.has(id, mark)]
		}
		return ms
	}
	now := "--consistency-delay=0s"
	f := func(want string, args ...string) {
		w.t.Helper()
		w.good("retention", args...)
		w.is(marked() == want, "retention %v: marked %s, want %s", args, marked(), want)
	}
	f("....", "--retention.resolution-raw=1d", "--downsampling.disable") // too fresh
	f("....", "--retention.resolution-raw=1d", "--downsampling.disable", now, "--dry-run")
	f("....", "--retention.resolution-raw=1d", now) // 5m should have it
	f("x...", "--retention.resolution-raw=1d", "--downsampling.disable", now, "--selector.relabel-config="+keepA)
	f("xx..", "--retention.resolution-5m=1d", "--downsampling.disable", now, "--selector.relabel-config-file="+w.file(keepA))
	f("xxx.", "--retention.resolution-1h=1d", now)
	w.good("retention", "--retention.resolution-raw=1d", "--downsampling.disable", now, "--delete-delay=0s")
	w.is(w.has(other, mark) || !w.has(other, "meta.json"), "retention --delete-delay: the block is there, without a mark")
}

func (w *toolWorld) testRewrite() {
	a := w.add(toolBlock{cluster: "a", ago: 48 * time.Hour})
	id, tmp := "--id="+a.String(), "--tmp.dir="+w.t.TempDir()
	const del, rename = `[{matchers: '{job="job-001"}'}]`, "[{action: replace, target_label: job, replacement: other}]"
	blocks := func() int { return len(w.metas(w.dir)) }
	out := w.good("rewrite", id, tmp, "--rewrite.to-delete-config="+del)
	w.is(blocks() == 1 && strings.Contains(out, `job="job-001"`), "rewrite without --no-dry-run: %d blocks, %s", blocks(), out)
	logs := func() int {
		files, _ := filepath.Glob(filepath.Join(strings.TrimPrefix(tmp, "--tmp.dir="), "*", "change.log"))
		return len(files)
	}
	was := logs()
	w.good("rewrite", id, tmp, "--no-dry-run", "--rewrite.to-delete-config-file="+w.file(del), "--hash-func=SHA256", "--no-rewrite.add-change-log")
	w.is(blocks() == 2 && logs() == was && !w.has(a, "deletion-mark.json"), "rewrite: %d blocks, %d logs", blocks(), logs())
	for _, m := range w.metas(w.dir) {
		if m.ULID != a {
			w.is(m.Stats.NumSeries == 2 && m.Thanos.Files[0].Hash != nil && m.Thanos.Files[0].Hash.Func == block.HashSHA256, "rewritten: %+v", m)
		}
	}
	w.good("rewrite", id, tmp, "--no-dry-run", "--rewrite.to-relabel-config="+rename, "--delete-blocks")
	w.is(blocks() == 3 && logs() == was+1 && w.has(a, "deletion-mark.json"), "rewrite --delete-blocks: %d blocks, %d logs, mark %v", blocks(), logs(), w.has(a, "deletion-mark.json"))
	// A block without external labels is for Prometheus only.
	b := w.add(toolBlock{cluster: "a", ago: 48 * time.Hour})
	w.meta(b, func(m *block.Meta) { m.Thanos.Labels = nil }, w.dir)
	id = "--id=" + b.String()
	code, _ := w.run("rewrite", id, tmp, "--no-dry-run", "--rewrite.to-relabel-config-file="+w.file(rename))
	w.is(code == 1 && blocks() == 4, "rewrite of a block without labels: code %d", code)
	w.good("rewrite", id, tmp, "--no-dry-run", "--prom-blocks", "--rewrite.to-relabel-config-file="+w.file(rename))
	w.is(blocks() == 5, "rewrite --prom-blocks: %d blocks", blocks())
}

func (w *toolWorld) testUpload() {
	path := w.t.TempDir()
	w.add(toolBlock{ago: 48 * time.Hour}, path)
	w.add(toolBlock{ago: 24 * time.Hour, level: 2}, path)
	w.good("upload-blocks", "--path="+path, `--label=cluster="u"`)
	ms := w.metas(w.dir)
	w.is(len(ms) == 1 && ms[0].Thanos.Labels["cluster"] == "u", "upload-blocks: %d blocks", len(ms))
	w.good("upload-blocks", "--path="+path, `--label=cluster="u"`, "--shipper.upload-compacted")
	w.is(len(w.metas(w.dir)) == 2, "upload-blocks --shipper.upload-compacted: %d blocks", len(w.metas(w.dir)))
}

func (w *toolWorld) testReplicate() {
	day := 24 * time.Hour
	raw := w.add(toolBlock{cluster: "a", ago: 3 * day})
	five := w.add(toolBlock{cluster: "a", ago: 3 * day, resolution: block.Resolution5m})
	two := w.add(toolBlock{cluster: "b", ago: 1 * day, level: 2})
	three := w.add(toolBlock{cluster: "b", ago: 1 * day, level: 3})
	all := []ulid.ULID{raw, five, two, three}
	f := func(want []ulid.ULID, args ...string) {
		w.t.Helper()
		to := w.t.TempDir()
		w.good("replicate", append([]string{"--single-run", "--http-address=127.0.0.1:0", "--objstore-to.config={type: FILESYSTEM, config: {directory: " + to + "}}"}, args...)...)
		var got []ulid.ULID
		for _, m := range w.metas(to) {
			got = append(got, m.ULID)
		}
		slices.SortFunc(got, ulid.ULID.Compare)
		want = slices.Clone(want)
		slices.SortFunc(want, ulid.ULID.Compare)
		w.is(slices.Equal(got, want), "replicate %v: %v, want %v", args, got, want)
	}
	f(all)
	f([]ulid.ULID{two, three}, "--compaction=2", "--compaction=3")
	f([]ulid.ULID{two, three}, "--compaction-min=2")
	f([]ulid.ULID{raw, five}, "--compaction-max=1")
	f([]ulid.ULID{five}, "--resolution=5m")
	f([]ulid.ULID{raw, five}, `--matcher={cluster="a"}`)
	f([]ulid.ULID{raw, five}, "--max-time=-2d")
	f([]ulid.ULID{two, three}, "--min-time=-2d")
	f([]ulid.ULID{three}, "--id="+three.String())
	w.good("mark", "--id="+raw.String(), "--marker=deletion-mark.json", "--details=x")
	f(all)
	f(all[1:], "--ignore-marked-for-deletion")
	to := w.t.TempDir()
	w.good("replicate", "--single-run", "--http-address=127.0.0.1:0", "--objstore-to.config-file="+w.file("type: FILESYSTEM\nconfig: {directory: "+to+"}"))
	w.is(len(w.metas(to)) == 4, "replicate --objstore-to.config-file: %d blocks", len(w.metas(to)))
}

func (w *toolWorld) testDownsample() {
	w.add(toolBlock{cluster: "a", ago: 96 * time.Hour})
	data := filepath.Join(w.t.TempDir(), "work")
	w.good("downsample", "--wait-interval=0s", "--hash-func=SHA256", "--http-address=127.0.0.1:0", "--data-dir="+data)
	_, err := os.Stat(data)
	w.is(err == nil, "downsample --data-dir: %v", err)
	found := false
	for _, m := range w.metas(w.dir) {
		if m.Resolution() == block.Resolution5m {
			found = true
			w.is(m.Thanos.Files[0].Hash != nil, "downsample --hash-func: no checksum")
		}
	}
	w.is(found, "downsample makes no block")
}
