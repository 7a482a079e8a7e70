package promapi

// Headers in which our queriers say what they have read from stores for a query, in decimal digits: series, and bytes of
// chunks, in all replicas.
const (
	FetchedSeriesHeader     = "X-Koios-Fetched-Series"
	FetchedChunkBytesHeader = "X-Koios-Fetched-Chunk-Bytes"
)
