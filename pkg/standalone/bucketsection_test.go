package standalone

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A scrape file may say where blocks go, next to what is scraped; what is wrong with either is told.
func TestBucketSection(t *testing.T) {
	f := func(text, want, fault string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "koios.yml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := CheckFile(file)
		if fault != "" {
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%s: %v, want %s", text, err, fault)
			}
			return
		}
		got, berr := BucketOf(file)
		if err != nil || berr != nil || string(got) != want {
			t.Errorf("%s: %q, %v, %v", text, got, err, berr)
		}
	}
	f("global: {scrape_interval: 15s}", "", "")
	f("object_storage: {type: S3, config: {bucket: b}}", "type: S3\nconfig:\n  bucket: b\n", "")
	f("object_storage: {type: TAPE}", "", `object_storage: object storage config: unknown type "TAPE"`)
	f("object_storage: S3", "", "object_storage")
	f("objectstorage: {type: S3}", "", "objectstorage")
}
