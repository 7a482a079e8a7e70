// Package frontend asks a query frontend and the querier below it the same, over data that arrives late, stores that go
// away and come back, a querier in trouble and caches that forget, and compares the answers. It holds nothing outside of
// its tests.
package frontend
