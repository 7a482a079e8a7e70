// Package matrix reads, cuts, joins and writes the JSON answers of range queries without turning their samples into
// numbers and back.
//
// A querier writes a matrix as text; a frontend cuts it at times, joins it with others and writes it again. None of that
// looks at values. So a series here is a few slices of the text that came in: joining two parts of a series lists two
// pieces, cutting one shortens a slice. What is read is checked, so that what is written is JSON in any case.
package matrix
