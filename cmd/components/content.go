package components

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/alecthomas/kingpin/v2"
)

// content is a pair of flags --NAME and --NAME-file: YAML in the command line, or the path of a file
// with it.
type content struct {
	name         string
	inline, file string
	expand       bool
	required     bool
}

// content declares the pair. With expand, $(NAME) is replaced by the environment variable.
func (fs *flags) content(dst *content, name, what string, expand bool) (inline, file *kingpin.FlagClause) {
	dst.name, dst.expand = name, expand
	subst := "no env-subst"
	if expand {
		subst = "env-subst $(VAR)"
	}
	inline = scalar(fs, &dst.inline, name, "inline yaml content ("+subst+", excl. with -file)", noDefault,
		fmt.Sprintf("YAML of %s. See also --%s-file.", what, name), verbatim).PlaceHolder("<content>")
	file = scalar(fs, &dst.file, name+"-file", "path to yaml ("+subst+")", noDefault,
		fmt.Sprintf("Path of a YAML file of %s. See also --%s.", what, name), verbatim).PlaceHolder("<file-path>")
	return inline, file
}

// read returns the YAML, nil if none is given.
func (c *content) read() ([]byte, error) {
	if c.inline != "" && c.file != "" {
		return nil, fmt.Errorf("flags --%s and --%s-file exclude each other: give one of them", c.name, c.name)
	}
	if c.inline == "" && c.file == "" {
		if c.required {
			return nil, fmt.Errorf("one of the flags --%s and --%s-file is required", c.name, c.name)
		}
		return nil, nil
	}
	flag, text := c.name, []byte(c.inline)
	if c.file != "" {
		flag = c.name + "-file"
		var err error
		if text, err = os.ReadFile(c.file); err != nil {
			return nil, fmt.Errorf("flag --%s: %w", flag, err)
		}
	}
	if !c.expand {
		return text, nil
	}
	text, err := expandEnv(text)
	if err != nil {
		return nil, fmt.Errorf("flag --%s: %w", flag, err)
	}
	return text, nil
}

var envReference = regexp.MustCompile(`\$\(([a-zA-Z_][a-zA-Z_0-9]*)\)`)

// expandEnv replaces $(NAME) by environment variables; one that is not set is an error.
func expandEnv(text []byte) ([]byte, error) {
	var unset []string
	out := envReference.ReplaceAllFunc(text, func(ref []byte) []byte {
		name := string(ref[2 : len(ref)-1])
		v, ok := os.LookupEnv(name)
		if !ok {
			unset = append(unset, name)
		}
		return []byte(v)
	})
	if len(unset) > 0 {
		return nil, fmt.Errorf("environment variable %s is referred to as $(%s) and not set", strings.Join(unset, ", "), unset[0])
	}
	return out, nil
}
