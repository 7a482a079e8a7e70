package store

// SliceCursor hands out series from memory.
type SliceCursor struct {
	series   []*Series
	at       int
	warnings Warnings
	err      error
}

// NewSliceCursor makes a cursor over series, which must be sorted by labels and are lent to the cursor.
// The warnings are handed out with them.
func NewSliceCursor(series []*Series, warnings ...error) *SliceCursor {
	return &SliceCursor{series: series, at: -1, warnings: warnings}
}

// ErrCursor makes a cursor that ends at once with err and the warnings.
func ErrCursor(err error, warnings ...error) *SliceCursor {
	return &SliceCursor{at: -1, err: err, warnings: warnings}
}

// Next implements Cursor.
func (c *SliceCursor) Next() bool {
	if c.at+1 >= len(c.series) {
		return false
	}
	c.at++
	return true
}

// At implements Cursor.
func (c *SliceCursor) At() *Series { return c.series[c.at] }

// Err implements Cursor.
func (c *SliceCursor) Err() error { return c.err }

// Warnings implements Cursor.
func (c *SliceCursor) Warnings() Warnings { return c.warnings }

// Close implements Cursor.
func (c *SliceCursor) Close() error { return nil }

// Drain reads a cursor to its end and closes it. The series are the caller's own.
func Drain(c Cursor) ([]*Series, Warnings, error) {
	defer c.Close()
	var all []*Series
	for c.Next() {
		all = append(all, c.At().Clone())
	}
	return all, c.Warnings(), c.Err()
}

// Limit ends a cursor after n series; 0 is no limit.
func Limit(c Cursor, n int) Cursor {
	if n <= 0 {
		return c
	}
	return &limited{Cursor: c, left: n}
}

type limited struct {
	Cursor
	left int
}

func (l *limited) Next() bool {
	if l.left == 0 {
		return false
	}
	l.left--
	return l.Cursor.Next()
}

// Where hands out the series for which want is true.
func Where(c Cursor, want func(*Series) bool) Cursor { return &where{Cursor: c, want: want} }

type where struct {
	Cursor
	want func(*Series) bool
}

func (w *where) Next() bool {
	for w.Cursor.Next() {
		if w.want(w.At()) {
			return true
		}
	}
	return false
}

// Keeper is a Cursor that can hand its current series over for good without copying it. Only what stands
// next to storage implements it; Keep asks for it.
type Keeper interface {
	Cursor
	// Keep returns the current series, now the caller's own. It is called at most once per series; At
	// goes on returning the same until Next.
	Keep() *Series
}

// Looker is a Cursor that knows something of the series after the current one without moving to it.
type Looker interface {
	Cursor
	// Extended tells whether the next series has all labels of the current one, as stored, and right
	// after them one whose name sorts before name. A yes that turns out wrong costs a copy; a no must be
	// true. It is called before the next Next.
	Extended(name string) bool
}

// Whole is a Cursor that can tell that no two of its series have equal labels.
type Whole interface {
	Cursor
	// Whole is asked before the first Next.
	Whole() bool
}

func isWhole(c Cursor) bool {
	w, ok := c.(Whole)
	return ok && w.Whole()
}

// Keep returns the current series so that it outlives the next move of its cursor.
func Keep(c Cursor) *Series {
	if k, ok := c.(Keeper); ok {
		return k.Keep()
	}
	return c.At().Clone()
}

// Keep implements Keeper.
func (c *SliceCursor) Keep() *Series { return c.series[c.at] }

// Extended implements Looker.
func (c *SliceCursor) Extended(name string) bool {
	return c.at+1 < len(c.series) && ExtendsBefore(c.series[c.at].Labels, c.series[c.at+1].Labels, name)
}

// Keep implements Keeper.
func (l *limited) Keep() *Series { return Keep(l.Cursor) }

// Keep implements Keeper.
func (w *where) Keep() *Series { return Keep(w.Cursor) }
