package fleet

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The keys of the S3 servers that tests start.
const (
	s3Key    = "koios-test"
	s3Secret = "koios-test-secret"
	// s3Bucket is the one bucket of such a server.
	s3Bucket = "blocks"
)

// StartS3 starts an S3 server with a bucket, and returns the object storage config of a prefix of it. The program is
// versitygw; `make .bin/versitygw` builds it.
func StartS3(t testing.TB, program string) (config func(prefix string) string) {
	t.Helper()
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("this test needs an S3 server: %v", err)
	}
	root, addr := t.TempDir(), FreeAddr(t)
	if err := os.Mkdir(filepath.Join(root, s3Bucket), 0o777); err != nil {
		t.Fatal(err)
	}
	Start(t, "s3", program, "--port", addr, "--access", s3Key, "--secret", s3Secret, "--quiet", "--health", "/healthy", "posix", root)
	Eventually(t, "S3 server answers", readyWait, func() error {
		if status, body := Get(t.Context(), "http://"+addr+"/healthy"); status != http.StatusOK {
			return fmt.Errorf("status %d: %s", status, body)
		}
		return nil
	})
	return func(prefix string) string { return S3Config(addr, s3Bucket, prefix) }
}

// S3Config is the object storage config of a prefix of a bucket on an S3 server without TLS. In-process servers take any
// keys.
func S3Config(addr, bucket, prefix string) string {
	return strings.Join([]string{
		"type: S3", "config:", "  bucket: " + bucket, "  endpoint: " + addr, "  access_key: " + s3Key, "  secret_key: " + s3Secret,
		"  insecure: true", "  region: us-east-1", "prefix: " + prefix, "",
	}, "\n")
}
