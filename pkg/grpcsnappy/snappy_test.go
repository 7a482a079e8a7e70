package grpcsnappy

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/golang/snappy"
	"google.golang.org/grpc/encoding"
)

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 5)
	}
	return b
}

func compress(tb testing.TB, msg []byte) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w, err := encoding.GetCompressor(Name).Compress(&buf)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(msg); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

// Messages of all sizes come back through the registered compressor, in parallel, and what it writes is
// the framed format, which another reader of it understands.
func TestRoundTrip(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, n := range []int{0, 1, 100, 1 << 16, 1<<16 + 1, 1 << 20} {
				msg := pattern(n)
				wire := compress(t, msg)
				r, err := encoding.GetCompressor(Name).Decompress(bytes.NewReader(wire))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, msg) {
					t.Errorf("%d bytes come back as %d, error %v", n, len(got), err)
				}
				if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
					t.Errorf("reading past the end: %d, %v", n, err)
				}
				other, err := io.ReadAll(snappy.NewReader(bytes.NewReader(wire)))
				if err != nil || !bytes.Equal(other, msg) {
					t.Errorf("another reader: %d bytes, error %v", len(other), err)
				}
			}
		})
	}
	wg.Wait()
}

// Arbitrary bytes are an error or a message, and leave the pool in order.
func FuzzDecompress(f *testing.F) {
	f.Add(compress(f, pattern(300)))
	f.Add([]byte("\xff\x06\x00\x00sNaPpY"))
	f.Add([]byte("nonsense"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := encoding.GetCompressor(Name)
		r, err := c.Decompress(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		r, err = c.Decompress(bytes.NewReader(compress(t, b)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, b) {
			t.Errorf("error %v, %d bytes of %d", err, len(got), len(b))
		}
	})
}

func BenchmarkCompress(b *testing.B) {
	msg := pattern(32 << 10)
	c := encoding.GetCompressor(Name)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		w, _ := c.Compress(io.Discard)
		_, _ = w.Write(msg)
		_ = w.Close()
	}
}

func BenchmarkDecompress(b *testing.B) {
	wire := compress(b, pattern(32<<10))
	c := encoding.GetCompressor(Name)
	b.SetBytes(32 << 10)
	b.ReportAllocs()
	for b.Loop() {
		r, _ := c.Decompress(bytes.NewReader(wire))
		_, _ = io.Copy(io.Discard, r)
	}
}
