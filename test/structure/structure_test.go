// Package structure holds the repository to its floors: imports only go down, and each package says what
// it is in its first sentence.
package structure

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/koios-metrics/koios"

// floors is the table: a package may import those of lower floors only, none of its own. The numbers
// leave room for floors between.
var floors = []struct {
	floor    int
	packages []string
}{
	{80, []string{"cmd/*"}}, // the mains
	{70, []string{"cmd/components"}},
	{60, []string{"pkg/receive", "pkg/bucketops", "pkg/standalone"}},
	{50, []string{"pkg/compact", "pkg/sidecar", "pkg/rule", "pkg/store/bucket"}},
	{40, []string{"pkg/downsample", "pkg/block/merge", "pkg/shipper", "pkg/block/indexheader", "pkg/query/api"}},
	{35, []string{"pkg/block/stream"}},
	{30, []string{"pkg/block", "pkg/query/distributed", "pkg/federate"}},
	{20, []string{"pkg/endpoint", "pkg/query", "pkg/frontend", "pkg/objstore", "pkg/objstore/caching", "pkg/objstore/resilient", "pkg/store/prom", "pkg/rule/notify"}},
	{10, []string{"pkg/dedup", "pkg/store/fanout", "pkg/store/remote", "pkg/store/server", "pkg/store/tsdb", "pkg/store/storetest", "pkg/cache", "pkg/promapi", "pkg/serve"}},
	{5, []string{"pkg/aggr", "pkg/store/wire"}}, // what both gRPC ends translate with
	{0, []string{"pkg/store", "pkg/chunk/xor", "pkg/column", "pkg/frontend/matrix", "pkg/size", "pkg/query/difference", "pkg/aggr", "pkg/tenancy", "pkg/gate", "pkg/discovery", "pkg/clientconf", "pkg/grpcsnappy", "pkg/objstore/faulty", "pkg/latency", "pkg/logging", "pkg/tracing", "pkg/reloader"}},
	{-10, []string{"proto/*"}},
}

// without are pairs that the floors would allow and that must not be.
var without = []struct{ importer, imported, because string }{
	{"pkg/dedup", "github.com/prometheus/client_golang", "it is pure: no registry"},
	{"pkg/dedup", "github.com/go-kit/log", "it is pure: no logger"},
	{"pkg/dedup", "os", "it is pure: no disk"},
	{"pkg/dedup", "time", "it is pure: no clock"},
	{"pkg/store", "google.golang.org/grpc", "the wire lives in store/remote and store/server"},
}

func floorOf(pkg string) (int, bool) {
	for _, f := range floors { // exact names first: cmd/components is not one of cmd/*
		if slices.Contains(f.packages, pkg) {
			return f.floor, true
		}
	}
	for _, f := range floors {
		for _, p := range f.packages {
			if ok, _ := path.Match(p, pkg); ok {
				return f.floor, true
			}
		}
	}
	return 0, false
}

type pkgInfo struct {
	imports map[string]string // imported path to the file that imports it
	doc     string
	name    string
}

// packages reads the import lines and comments of every package outside of tests.
func packages(t *testing.T) map[string]*pkgInfo {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*pkgInfo{}
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != root {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(p))
		if err != nil {
			return err
		}
		pkg := all[filepath.ToSlash(rel)]
		if pkg == nil {
			pkg = &pkgInfo{imports: map[string]string{}}
			all[filepath.ToSlash(rel)] = pkg
		}
		pkg.add(f, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (pkg *pkgInfo) add(f *ast.File, file string) {
	test := strings.HasSuffix(file, "_test.go")
	if !test || pkg.name == "" {
		pkg.name = f.Name.Name
	}
	if f.Doc != nil && pkg.doc == "" {
		pkg.doc = f.Doc.Text()
	}
	if test {
		return
	}
	for _, im := range f.Imports {
		pkg.imports[strings.Trim(im.Path.Value, `"`)] = filepath.Base(file)
	}
}

// Imports go down only, and each package has its floor.
func TestFloors(t *testing.T) {
	checked := 0
	for dir, pkg := range packages(t) {
		if !strings.HasPrefix(dir, "pkg/") && !strings.HasPrefix(dir, "cmd/") && !strings.HasPrefix(dir, "proto/") {
			continue
		}
		floor, known := floorOf(dir)
		if !known {
			t.Errorf("%s has no floor: give it one in this table and in docs/architecture.md", dir)
		}
		for im, file := range pkg.imports {
			own, ok := strings.CutPrefix(im, module+"/")
			if !ok {
				continue
			}
			checked++
			below, known := floorOf(own)
			if strings.HasPrefix(dir, "proto/") && strings.HasPrefix(own, "proto/") {
				continue // messages refer to messages; the Go compiler refuses cycles
			}
			if known && below >= floor {
				t.Errorf("%s/%s (floor %d) imports %s (floor %d); imports only go down", dir, file, floor, own, below)
			}
		}
		for _, w := range without {
			for im, file := range pkg.imports {
				if dir == w.importer && (im == w.imported || strings.HasPrefix(im, w.imported+"/")) {
					t.Errorf("%s/%s imports %s; %s", dir, file, im, w.because)
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d imports looked at; the walk is broken", checked)
	}
}

var sentence = regexp.MustCompile(`^(Package|Command) [a-z0-9-]+ [^.]+[.:]`)

// Each package says what it is, in a sentence that begins with its name.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	for dir, pkg := range packages(t) {
		name := strings.TrimSuffix(pkg.name, "_test")
		if name == "main" {
			name = path.Base(dir)
		}
		text := strings.ReplaceAll(pkg.doc, "\n", " ")
		if !sentence.MatchString(text) || !strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(text, "Package "), "Command "), name+" ") {
			t.Errorf("%s does not say what it is: begin a comment above its package clause with %q", dir, "Package "+name+" …")
		}
	}
}

var outside = regexp.MustCompile(`(^|[^a-zA-Z.])/(work|farm)/|proxy\.golang\.org`)

// The repository speaks of Koios alone: no paths of the machine it was written on, no registry hosts.
func TestNoForeignPaths(t *testing.T) {
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == ".git" || n == ".bin" || n == "bin" || n == "data" || n == "node_modules" {
				return fs.SkipDir
			}
			return nil
		}
		if !slices.Contains([]string{".go", ".md", ".yaml", ".yml", ".sh", ".proto", ".txt", ".json", ""}, path.Ext(p)) || p == "test/structure/structure_test.go" {
			return nil
		}
		b, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		if m := outside.Find(b); m != nil && path.Ext(p) != ".sum" {
			t.Errorf("%s holds %q", p, m)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
