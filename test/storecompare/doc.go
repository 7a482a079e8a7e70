// Package storecompare measures the store gateway and another program that answers to the same flags, side by side over
// one bucket: the same requests to both, over gRPC, by turns. Its tests are built with the tag compat.
package storecompare
