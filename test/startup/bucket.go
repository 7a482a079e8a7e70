package startup

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// s3 is a bucket that is read over S3's protocol, each answer after a latency. It counts the requests.
type s3 struct {
	latency time.Duration
	names   []string // sorted
	objects map[string][]byte
	written time.Time

	mu       sync.Mutex
	requests map[string]int
}

const (
	bucketName = "blocks"
	// S3 lists so many objects in one answer.
	pageObjects = 1000
)

func newS3(objects map[string][]byte, latency time.Duration) *s3 {
	return &s3{latency: latency, names: slices.Sorted(maps.Keys(objects)), objects: objects, written: time.Now().Add(-time.Hour), requests: map[string]int{}}
}

// take returns the requests since the last call, by operation.
func (s *s3) take() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.requests
	s.requests = map[string]int{}
	return n
}

func (s *s3) count(op string) {
	s.mu.Lock()
	s.requests[op]++
	s.mu.Unlock()
}

// ServeHTTP implements http.Handler.
func (s *s3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	time.Sleep(s.latency)
	bucket, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if bucket != bucketName || r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.count("other")
		http.Error(w, "unknown", http.StatusNotFound)
		return
	}
	if name == "" {
		s.count("list")
		s.list(w, r)
		return
	}
	body, ok := s.objects[name]
	switch {
	case r.Method == http.MethodHead:
		s.count("head")
	case r.Header.Get("Range") != "" && !strings.HasSuffix(name, ".json"):
		s.count("get range")
	default:
		s.count("get " + name[strings.LastIndex(name, "/")+1:])
	}
	if !ok {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>")
		return
	}
	w.Header().Set("ETag", `"0"`)
	http.ServeContent(w, r, "", s.written, bytes.NewReader(body))
}

type listedObject struct {
	Key, LastModified, ETag, StorageClass string
	Size                                  int
}

type listedPrefix struct{ Prefix string }

type listing struct {
	XMLName                 xml.Name `xml:"ListBucketResult"`
	Name, Prefix, Delimiter string
	NextContinuationToken   string `xml:",omitempty"`
	KeyCount, MaxKeys       int
	IsTruncated             bool
	Contents                []listedObject
	CommonPrefixes          []listedPrefix
}

func (s *s3) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	l := listing{Name: bucketName, Prefix: q.Get("prefix"), Delimiter: q.Get("delimiter"), MaxKeys: pageObjects}
	after := max(q.Get("continuation-token"), q.Get("start-after"))
	for i := sort.SearchStrings(s.names, max(l.Prefix, after)); i < len(s.names) && strings.HasPrefix(s.names[i], l.Prefix); {
		name := s.names[i]
		if name <= after {
			i++
			continue
		}
		if l.KeyCount == pageObjects {
			l.IsTruncated = true
			break
		}
		l.KeyCount++
		if n := strings.Index(name[len(l.Prefix):], l.Delimiter); l.Delimiter != "" && n >= 0 {
			dir := name[:len(l.Prefix)+n+1]
			l.CommonPrefixes = append(l.CommonPrefixes, listedPrefix{dir})
			l.NextContinuationToken = dir + "\xf4\x8f\xbf\xbf"
			i = sort.SearchStrings(s.names, l.NextContinuationToken)
			continue
		}
		l.Contents = append(l.Contents, listedObject{
			Key: name, LastModified: s.written.UTC().Format("2006-01-02T15:04:05.000Z"), ETag: `"0"`, StorageClass: "STANDARD", Size: len(s.objects[name]),
		})
		l.NextContinuationToken = name
		i++
	}
	if !l.IsTruncated {
		l.NextContinuationToken = ""
	}
	w.Header().Set("Content-Type", "application/xml")
	if err := xml.NewEncoder(w).Encode(l); err != nil {
		panic(fmt.Sprintf("BUG: a listing can always be encoded: %v", err))
	}
}
