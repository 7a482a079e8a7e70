package stream

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

const (
	// A posting takes 16 bytes of memory while it waits to be sorted, so 2M are 32 MiB; what is beyond that goes to
	// a file of 12 bytes each. 5 million series of 10 labels make 28 such runs.
	postingsHeldMax  = 2 << 20
	postingBytes     = 12
	runBufferBytes   = 64 << 10
	allPostings      = uint64(0) // the pair of the list of all series; it sorts first
	postingsTempName = "postings-%04d.tmp"
)

// posting says that a series has a label.
type posting struct {
	pair   uint64 // ordinal of the name plus one, and of the value
	series uint32 // offset in the index by 16
}

func pairOf(name, value uint32) uint64 { return uint64(name+1)<<32 | uint64(value) }

// sorter sorts postings outside of memory. Series have to be added in ascending order.
type sorter struct {
	dir  string
	held []posting
	max  int
	runs []string
}

func (s *sorter) add(p posting) error {
	if len(s.held) == s.max {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.held = append(s.held, p)
	return nil
}

func (s *sorter) sort() {
	slices.SortFunc(s.held, func(a, b posting) int {
		if a.pair != b.pair {
			return cmp.Compare(a.pair, b.pair)
		}
		return cmp.Compare(a.series, b.series)
	})
}

// spill writes what is held to a run.
func (s *sorter) spill() error {
	s.sort()
	path := filepath.Join(s.dir, fmt.Sprintf(postingsTempName, len(s.runs)))
	f, err := createFile(path)
	if err != nil {
		return err
	}
	s.runs = append(s.runs, path)
	var b [postingBytes]byte
	for _, p := range s.held {
		binary.LittleEndian.PutUint64(b[:], p.pair)
		binary.LittleEndian.PutUint32(b[8:], p.series)
		if _, err := f.Write(b[:]); err != nil {
			f.abandon()
			return err
		}
	}
	s.held = s.held[:0]
	return errors.Join(f.w.Flush(), f.f.Close())
}

// remove deletes the runs.
func (s *sorter) remove() error {
	var err error
	for _, r := range s.runs {
		err = errors.Join(err, os.Remove(r))
	}
	s.runs, s.held = nil, nil
	return err
}

// run reads one sorted run.
type run struct {
	r    *bufio.Reader
	f    *os.File
	head posting
	end  bool
}

func (r *run) next() error {
	var b [postingBytes]byte
	if _, err := io.ReadFull(r.r, b[:]); err != nil {
		if errors.Is(err, io.EOF) {
			r.end = true
			return nil
		}
		return err
	}
	r.head = posting{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint32(b[8:])}
	return nil
}

// lists calls f with each pair and its series, both in ascending order. The slice is f's until it returns; it is as
// long as the longest list, four bytes a series.
func (s *sorter) lists(f func(pair uint64, series []uint32) error) (err error) {
	if len(s.runs) == 0 {
		s.sort()
		var series []uint32
		for i := 0; i < len(s.held); {
			pair := s.held[i].pair
			series = series[:0]
			for ; i < len(s.held) && s.held[i].pair == pair; i++ {
				series = append(series, s.held[i].series)
			}
			if err := f(pair, series); err != nil {
				return err
			}
		}
		return nil
	}
	if err := s.spill(); err != nil {
		return err
	}
	s.held = nil
	var runs []*run
	defer func() {
		for _, r := range runs {
			err = errors.Join(err, r.f.Close())
		}
	}()
	for _, path := range s.runs {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		r := &run{f: file, r: bufio.NewReaderSize(file, runBufferBytes)}
		runs = append(runs, r)
		if err := r.next(); err != nil {
			return err
		}
	}
	return mergeRuns(runs, f)
}

// mergeRuns walks runs whose series ascend from run to run.
func mergeRuns(runs []*run, f func(pair uint64, series []uint32) error) error {
	var series []uint32
	for {
		pair, found := ^uint64(0), false
		for _, r := range runs {
			if !r.end && (!found || r.head.pair < pair) {
				pair, found = r.head.pair, true
			}
		}
		if !found {
			return nil
		}
		series = series[:0]
		for _, r := range runs {
			for !r.end && r.head.pair == pair {
				series = append(series, r.head.series)
				if err := r.next(); err != nil {
					return err
				}
			}
		}
		if err := f(pair, series); err != nil {
			return err
		}
	}
}
