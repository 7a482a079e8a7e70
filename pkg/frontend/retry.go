package frontend

import (
	"context"
	"errors"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
)

// Times between attempts double from the first to the last.
const (
	retryWaitMin = 200 * time.Millisecond
	retryWaitMax = 2 * time.Second
)

// retriable tells whether a second attempt may do better: after an answer of a server in trouble, or after none.
func retriable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errTooLong) {
		return false
	}
	var over *overloadError
	if errors.As(err, &over) {
		return false
	}
	var s *statusError
	return !errors.As(err, &s) || s.code/100 == 5
}

// attempt calls f up to n times in all and returns its last result. Observe, if not nil, is told how often it was
// called again.
func attempt[T any](ctx context.Context, n int, observe func(again int), f func(context.Context) (T, error)) (T, error) {
	if n <= 1 {
		return f(ctx)
	}
	policy := retrypolicy.NewBuilder[T]().
		HandleIf(func(_ T, err error) bool { return err != nil && retriable(err) && ctx.Err() == nil }).
		WithMaxAttempts(n).WithBackoff(retryWaitMin, retryWaitMax).WithJitterFactor(0.2).
		ReturnLastFailure().Build()
	calls := 0
	out, err := failsafe.With(policy).WithContext(ctx).GetWithExecution(func(failsafe.Execution[T]) (T, error) {
		calls++
		return f(ctx)
	})
	if observe != nil {
		observe(calls - 1)
	}
	return out, err
}

// retry asks again where that may help.
func retry(attempts int, m *metrics, next rangeHandler) rangeHandler {
	if attempts <= 0 {
		return next
	}
	return rangeFunc(func(ctx context.Context, q *rangeQuery) (*rangeAnswer, error) {
		return attempt(ctx, attempts, func(again int) { m.retries.Observe(float64(again)) }, func(ctx context.Context) (*rangeAnswer, error) { return next.do(ctx, q) })
	})
}
