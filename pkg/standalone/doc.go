// Package standalone is all of Koios in one process over one folder: it scrapes targets into a local TSDB,
// ships finished blocks to a bucket, and answers PromQL over both.
//
//	targets ──scrape──▶ TSDB ──shipper──▶ bucket
//	                      │                 │
//	                  store/tsdb       store/bucket
//	                      └──── fanout ─────┘
//	                              │
//	                    querier, StoreAPI (gRPC)
//	                              │
//	              frontend (splits, keeps answers), HTTP
//
// The folder holds tsdb (what was scraped lately), bucket (finished blocks, unless another bucket is
// configured), store (what the bucket reader keeps on disk) and set-aside (blocks that could not be read).
// Two rules keep the data whole: a block leaves the TSDB only once the shipper knows it to be in the
// bucket, and a block that can't be read is moved aside with a log line, so that the rest goes on.
package standalone
