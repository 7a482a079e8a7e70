// Package query evaluates PromQL over a Store.
//
// A request takes this way: Exec picks an engine and hands it a Queryable made for this one request. The
// engine calls Select, which asks the Store in the background, with the aggregates that the PromQL
// function around the selector needs, and keeps the answer's encoded chunks. Samples are decoded only
// while the engine walks over a series. Series that several replicas recorded arrive as one series whose chunks
// say which replica's they are (those that don't are split into lanes by their rhythm); package dedup merges the
// replicas. Floats are decoded into arrays and merged there, for scans and for engines' iterators alike;
// histograms, and totals of downsampled counters, go through iterators.
package query
