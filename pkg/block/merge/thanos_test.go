//go:build compat

package merge

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Thanos finds no fault in blocks that were merged, of one replica and of several.
func TestVerifiedBesideThanos(t *testing.T) {
	thanos := os.Getenv("KOIOS_THANOS")
	if thanos == "" {
		t.Fatal("KOIOS_THANOS is not the path of a Thanos program")
	}
	for seed := range uint64(4) {
		bucket := t.TempDir()
		cfg := Config{Inputs: inputsOf(t, generated(rand.New(rand.NewPCG(seed, 5)), 3)), Dedup: Penalty}
		if _, _, err := Compact(t.Context(), cfg, map[string]string{"cluster": "a"}, bucket); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(thanos, "tools", "bucket", "verify", "--issues=index_known_issues",
			"--objstore.config", fmt.Sprintf("{type: FILESYSTEM, config: {directory: %q}}", bucket)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if !strings.Contains(string(out), "verifier=index_known_issues") {
			t.Fatalf("Thanos looked at nothing: %s", out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "level=warn") || strings.Contains(line, "level=error") || strings.Contains(line, "detected") {
				t.Errorf("seed %d: %s", seed, line)
			}
		}
	}
}
