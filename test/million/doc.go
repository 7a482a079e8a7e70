// Package million asks a querier with little memory for a million series, and has a compactor merge five million. It
// holds nothing outside of its tests, which are built with the tag campaign.
package million
