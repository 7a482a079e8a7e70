package api

import (
	"net/http"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/tenancy"
)

// tenant finds out whose request it is and puts the name into the context, from where it travels on.
func (a *API) tenant(f handlerFunc) handlerFunc {
	return func(r *http.Request) (*answer, error) {
		name, err := a.cfg.Tenancy.FromRequest(r)
		if err != nil {
			return nil, &store.Error{Kind: store.KindBadRequest, Err: err}
		}
		return f(r.WithContext(tenancy.NewContext(r.Context(), name)))
	}
}

// ownMatcher selects the caller's series; nil when tenancy is not enforced.
func (a *API) ownMatcher(r *http.Request) *labels.Matcher {
	if !a.cfg.EnforceTenancy {
		return nil
	}
	name, _ := tenancy.FromContext(r.Context())
	return labels.MustNewMatcher(labels.MatchEqual, a.cfg.TenantLabel, name)
}

// enforceExpr adds the caller's matcher to each selector of an expression. Matchers that are there stay,
// so asking for another tenant's series finds nothing.
func (a *API) enforceExpr(r *http.Request, expr string) (string, error) {
	own := a.ownMatcher(r)
	if own == nil {
		return expr, nil
	}
	parsed, err := a.q.Parse(expr)
	if err != nil {
		return "", &store.Error{Kind: store.KindBadRequest, Err: err}
	}
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		if vs, ok := n.(*parser.VectorSelector); ok {
			vs.LabelMatchers = append(vs.LabelMatchers, own)
		}
		return nil
	})
	return parsed.String(), nil
}

// enforceMatchers adds the caller's matcher to each list, or makes one of it alone.
func (a *API) enforceMatchers(r *http.Request, all [][]*labels.Matcher) [][]*labels.Matcher {
	own := a.ownMatcher(r)
	if own == nil {
		return all
	}
	if len(all) == 0 {
		return [][]*labels.Matcher{{own}}
	}
	for i := range all {
		all[i] = append(all[i], own)
	}
	return all
}
