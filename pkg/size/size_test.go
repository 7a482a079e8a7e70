package size

import "testing"

// Sizes are read with and without units; what K stands for is the caller's choice, what KiB stands for is not.
func TestParse(t *testing.T) {
	f := func(s string, kilo float64, want int64) {
		t.Helper()
		if got, err := Parse(s, kilo); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	f("0", Binary, 0)
	f("123", Decimal, 123)
	f("123B", Binary, 123)
	f("16KB", Binary, 16<<10)
	f("16KB", Decimal, 16_000)
	f("16KiB", Decimal, 16<<10)
	f("250 MiB", Binary, 250<<20)
	f("250mb", Decimal, 250_000_000)
	f("1.5G", Binary, 3<<29)
	f("1.5G", Decimal, 1_500_000_000)
	f("2TB", Binary, 2<<40)
	f("1E", Binary, 1<<60)
	for _, s := range []string{"", "B", "KB", "MB", "-1", "1XB", "1KBB", "1iB", "1i", "1KM", "1KMB", "9EB", "9999999999EB", "1e3", "NaN", "Inf", "0x10", "1_0", "1.2.3"} {
		if n, err := Parse(s, Binary); err == nil {
			t.Errorf("%q is read as %d", s, n)
		}
	}
}

// FuzzParse shows that any text is refused or a size that is not negative.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "250MB", "1.5GiB", "x", "9EiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, kilo := range []float64{Binary, Decimal} {
			if n, err := Parse(s, kilo); err == nil && n < 0 {
				t.Errorf("%q is %d", s, n)
			}
		}
	})
}
