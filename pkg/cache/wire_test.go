package cache

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Shows that an entry is believed as it was made for its key only: no byte of it may differ, none be missing or too
// many, and the key must be the same.
//
// Mutant seen killed: the checksum leaves out the key.
func TestEntries(t *testing.T) {
	for _, value := range []string{"", "x", strings.Repeat("value ", 100)} {
		b := encodeEntry("key", []byte(value))
		if got, err := decodeEntry("key", b); err != nil || got == nil || string(got) != value {
			t.Errorf("%q: %q, %v", value, got, err)
		}
		if _, err := decodeEntry("kez", b); err == nil {
			t.Errorf("%q: believed for another key", value)
		}
		if _, err := decodeEntry("key", append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("%q: believed with a byte too many", value)
		}
		for i := range b {
			if _, err := decodeEntry("key", b[:i]); err == nil {
				t.Errorf("%q: believed cut at %d", value, i)
			}
			for bit := range 8 {
				bad := bytes.Clone(b)
				bad[i] ^= 1 << bit
				if _, err := decodeEntry("key", bad); err == nil {
					t.Errorf("%q: believed with bit %d of byte %d flipped", value, bit, i)
				}
			}
		}
	}
}

// What is kept may be anything: what is believed is what would be kept of it.
func FuzzEntry(f *testing.F) {
	f.Add("koios1:key", encodeEntry("koios1:key", []byte("value")))
	f.Add("koios1:key", encodeEntry("koios1:other", []byte("value")))
	f.Add("", []byte("koi\x01"))
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, key string, b []byte) {
		value, err := decodeEntry(key, b)
		if err == nil && !bytes.Equal(encodeEntry(key, value), b) {
			t.Fatal("believed what was not kept")
		}
		if again, err := decodeEntry(key, encodeEntry(key, b)); err != nil || !bytes.Equal(again, b) {
			t.Fatal(err)
		}
	})
}

// Shows which answers of a configuration endpoint are read, and what is said of others.
func TestClusterConfig(t *testing.T) {
	f := func(answer string, wantVersion int, want []string, fault string) {
		t.Helper()
		version, got, err := readClusterConfig(strings.NewReader(answer))
		if fault != "" {
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%q: %v, want %s", answer, err, fault)
			}
			return
		}
		if diff := cmp.Diff(want, got); err != nil || version != wantVersion || diff != "" {
			t.Errorf("%q: version %d, %v\n%s", answer, version, err, diff)
		}
	}
	f("CONFIG cluster 0 26\r\n12\nhost|10.0.0.1|11211\n\r\n\r\nEND\r\n", 12, []string{"host:11211"}, "")
	f("CONFIG cluster 0 33\r\n3\na|10.0.0.1|11211 |10.0.0.2|1121\n\n\r\nEND\r\n", 3, []string{"a:11211", "10.0.0.2:1121"}, "")
	f("CONFIG cluster 0 20\r\n1\n|2001:db8::1|11211\n\r\nEND\r\n", 1, []string{"[2001:db8::1]:11211"}, "")
	f("ERROR\r\n", 0, nil, "no configuration endpoint")
	f("", 0, nil, "read the first line")
	f("CONFIG cluster 0 "+strings.Repeat("9", 300)+"\r\n", 0, nil, "read the first line")
	f("CONFIG cluster 0 -1\r\n", 0, nil, `"-1" bytes`)
	f("CONFIG cluster 0 2000000\r\n", 0, nil, `"2000000" bytes`)
	f("CONFIG cluster 0 9\r\n1\na", 0, nil, "read the list")
	f("CONFIG cluster 0 2\r\n1\n", 0, nil, "1 lines")
	f("CONFIG cluster 0 7\r\nx\na|b|1", 0, nil, `"x" is no number`)
	f("CONFIG cluster 0 5\r\n1\na|b", 0, nil, "host|ip|port")
	f("CONFIG cluster 0 9\r\n1\na|b|x12", 0, nil, "no port")
	f("CONFIG cluster 0 11\r\n1\na|b|99999", 0, nil, "no port")
	f("CONFIG cluster 0 6\r\n1\n||12", 0, nil, "no host")
}

// An answer may be anything: the servers that are read have a host and a port.
func FuzzClusterConfig(f *testing.F) {
	f.Add([]byte("CONFIG cluster 0 26\r\n12\nhost|10.0.0.1|11211\n\r\n\r\nEND\r\n"))
	f.Add([]byte("CONFIG cluster 0 33\r\n3\na|10.0.0.1|11211 |10.0.0.2|1121\n\n\r\nEND\r\n"))
	f.Add([]byte("CONFIG cluster 0 99999999999999999999\r\n"))
	f.Add([]byte("ERROR\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, servers, err := readClusterConfig(bytes.NewReader(b))
		if err == nil && len(servers) == 0 {
			t.Fatal("no servers and no error")
		}
		for _, s := range servers {
			if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
				t.Fatalf("%q: %v", s, err)
			}
		}
	})
}

// A configuration may be anything: what is read is what Validate admits.
func FuzzParseBackend(f *testing.F) {
	f.Add("memcached", "addresses: [a:1]\nmax_item_size: 2MiB")
	f.Add("REDIS", "addr: a:1\ncache_size: 1GB")
	f.Add("IN-MEMORY", "max_size: 1e3KB")
	f.Add("GROUPCACHE", "self_url: http://a:1\ngroupcache_group: g")
	f.Fuzz(func(t *testing.T, typ, text string) {
		var config any
		if _, err := decode([]byte(text), &config); err != nil {
			return
		}
		b, _, err := ParseBackend(typ, config, InMemory, Memcached, Redis, Groupcache)
		if err == nil && b.Type == InMemory && b.Memory.Validate() != nil {
			t.Fatal("admitted what is not valid")
		}
	})
}
