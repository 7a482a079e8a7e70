// Package defects puts seeded faults into a bucket and looks at what a compactor does about them. It holds nothing outside
// of its tests.
package defects
