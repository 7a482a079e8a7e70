// Package sidebyside measures Koios and a real Thanos on the same bucket in the same run. It holds nothing
// outside of its tests, which are built with the tag compat.
package sidebyside
