package standalone

import (
	"context"
	"math"

	"github.com/koios-metrics/koios/pkg/store"
)

// pending stands in for the bucket until it has been looked into: what is there is not known, and an answer
// without it has a hole.
type pending struct{}

// bucketName is how warnings and logs call the bucket.
const bucketName = "bucket"

var errPending = store.Errorf(store.KindUnavailable, "the bucket was not looked into yet")

// Series implements store.Store.
func (pending) Series(context.Context, *store.SeriesRequest) (store.Cursor, error) {
	return nil, errPending
}

// LabelNames implements store.Store.
func (pending) LabelNames(context.Context, *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	return nil, nil, errPending
}

// LabelValues implements store.Store.
func (pending) LabelValues(context.Context, *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	return nil, nil, errPending
}

// Describe implements store.Store: it may hold anything.
func (pending) Describe() store.Description {
	return store.Description{MinTime: math.MinInt64, MaxTime: math.MaxInt64, Name: bucketName, Local: true, Replicas: true}
}
