package components

import "errors"

// errUnbuilt ends components whose packages have not landed yet.
var errUnbuilt = errors.New("this component is not built yet")

func (c *storeFlags) run(*process) error { return errUnbuilt }
func (c *queryFlags) run(*process) error { return errUnbuilt }
