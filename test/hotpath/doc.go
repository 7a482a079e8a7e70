// Package hotpath measures the way of series from the sockets of many stores to the engine, over real gRPC.
// It holds nothing outside of its tests.
package hotpath
