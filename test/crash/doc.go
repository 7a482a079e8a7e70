// Package crash kills and stops compactors at random moments, and looks at what they leave in the bucket. It holds
// nothing outside of its tests.
package crash
