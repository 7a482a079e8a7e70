//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// koiosImage is the image that the stories are about, as `make image` has made it.
var koiosImage = os.Getenv("KOIOS_IMAGE")

func TestMain(m *testing.M) {
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// setUp sees that there is an engine with Koios's image, and makes the images of the others.
func setUp() error {
	if out, err := docker("version", "--format={{.Server.Version}}"); err != nil {
		return fmt.Errorf("these tests need a running Docker engine: %w\n%s", err, out)
	}
	if koiosImage == "" {
		return fmt.Errorf("KOIOS_IMAGE names no image: run the tests by `make e2e`")
	}
	if out, err := docker("image", "inspect", koiosImage); err != nil {
		return fmt.Errorf("the image %s is not there, `make image` makes it: %w\n%s", koiosImage, err, out)
	}
	for _, img := range others {
		if err := img.make(); err != nil {
			return fmt.Errorf("make the image of %s: %w", img.name, err)
		}
	}
	return nil
}

// docker runs a command of the engine's client and returns what it wrote.
func docker(args ...string) (string, error) {
	out, err := exec.Command("docker", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// mustDocker is docker for commands that have to work.
func mustDocker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := docker(args...)
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}
