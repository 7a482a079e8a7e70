//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// other is the image of a program of this machine: the program, the libraries that it loads, and files.
type other struct {
	name string
	// program is a path, the name of a program on PATH, or $VARIABLE that names one.
	program string
	// advice says how to come by the program.
	advice string
	// folders are made for everybody to write to.
	folders []string
}

// The images of the programs that Koios works with.
var (
	prometheusImage = &other{name: "e2e-prometheus", program: "$KOIOS_PROMETHEUS", advice: "make tools"}
	s3Image         = &other{name: "e2e-s3", program: "$KOIOS_S3", advice: "make .bin/versitygw"}
	memcachedImage  = &other{name: "e2e-memcached", program: "memcached", advice: "apt-get install memcached"}
	redisImage      = &other{name: "e2e-redis", program: "redis-server", advice: "apt-get install redis-server"}
	nginxImage      = &other{name: "e2e-nginx", program: "nginx", advice: "apt-get install nginx-light", folders: []string{"var/lib/nginx", "var/log/nginx", "run"}}

	others = []*other{prometheusImage, s3Image, memcachedImage, redisImage, nginxImage}
)

// library finds the paths in what ldd writes.
var library = regexp.MustCompile(`(?m)^\s*(?:\S+ => )?(/\S+) \(0x`)

// make lays the files out and builds the image of them.
func (o *other) make() error {
	name := os.ExpandEnv(o.program)
	program, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("%s %q: %w; %s", o.program, name, err, o.advice)
	}
	dir, err := os.MkdirTemp("", "koios-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root := filepath.Join(dir, "root")
	if err := copyFile(program, filepath.Join(root, "bin/program")); err != nil {
		return err
	}
	libs, err := exec.Command("ldd", program).Output()
	if err != nil {
		return fmt.Errorf("libraries of %s: %w", program, err)
	}
	for _, m := range library.FindAllStringSubmatch(string(libs), -1) {
		if err := copyFile(m[1], filepath.Join(root, m[1])); err != nil {
			return err
		}
	}
	for _, folder := range append([]string{"tmp", "data"}, o.folders...) {
		path := filepath.Join(root, folder)
		if err := os.MkdirAll(path, 0o777); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o777); err != nil { // whatever the umask
			return err
		}
	}
	users := map[string]string{"passwd": "root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n", "group": "root:x:0:\nnogroup:x:65534:\n"}
	for file, text := range users {
		if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, "etc", file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	text := "FROM scratch\nCOPY root/ /\nUSER 65534:65534\nWORKDIR /data\nENTRYPOINT [\"/bin/program\"]\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
		return err
	}
	if out, err := docker("build", "-q", "-t", o.name, dir); err != nil {
		return fmt.Errorf("docker build: %w\n%s", err, strings.TrimSpace(out))
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
