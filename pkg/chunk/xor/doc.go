// Package xor decodes whole XOR chunks, the encoding of Prometheus's float samples, into arrays of times
// and values.
//
// Prometheus's iterator decodes one sample a call, through an interface, bit by bit. Whoever reads all
// samples of a chunk anyway is served faster here:
//
//	var s xor.Samples
//	for _, c := range chunks {
//		if err := xor.Decode(&s, c.Data); err != nil {
//			return err
//		}
//	}
//	use(s.Times, s.Values)
//
// Iterator walks over such arrays where a chunkenc.Iterator is wanted.
//
// # The format
//
// A chunk is the number of samples (two bytes, big endian), the first time (varint, ms), the first value
// (eight bytes), the distance to the second time (uvarint), and then bits, highest first, without
// alignment: for each sample from the third on how much the distance has changed, and for each from the
// second on the XOR of its value with the one before.
//
//	change of distance   0                          none
//	                     10   + 14 bits             -8191 … 8192
//	                     110  + 17 bits             -65535 … 65536
//	                     1110 + 20 bits             -524287 … 524288
//	                     1111 + 64 bits             any
//	XOR                  0                          none
//	                     10 + bits                  in the window of the last XOR that had one
//	                     11 + 5 + 6 + bits          a new window: zeros before it, bits in it (0 means 64)
//
// # Differences from Prometheus's iterator
//
// A chunk that Prometheus's encoder wrote gives the same samples, bit by bit. Of other bytes, samples are
// handed out up to the first fault, as there, and then:
//
//   - Bytes that end within a sample are ErrShort. Prometheus's reader takes missing bits for zeros in some
//     places, and so can make up that sample and many after it without an error.
//   - A window wider than a value is ErrMalformed, and passes there.
//   - A time before that of the previous sample is ErrDisorder, and passes there. Equal times are fine:
//     downsampled counters end with one.
//   - Fewer than two bytes are ErrShort, and a panic there.
//
// An exhausted Iterator stays exhausted; Prometheus's accepts a Seek to its last sample again.
package xor
