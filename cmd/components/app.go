package components

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/go-kit/log/level"
	"github.com/prometheus/common/version"
)

// Component is one component: its name on the command line, what it is, and its flags.
type Component struct {
	name, help string
	// bind declares the flags and returns what runs the component once they are read.
	bind func(*flags) runner
	// subs are the commands below it, if there are any. bind then declares the flags that they share, and nothing
	// runs but one of them.
	subs []Component
	// quiet components log nothing but what goes wrong.
	quiet bool
}

// runner builds a component into p: checks its configuration, makes its parts and adds what is to run.
type runner func(p *process) error

// All are the components, in the order of a sample's way.
func All() []Component {
	return []Component{Sidecar(), Store(), Query(), QueryFrontend(), Compact(), Tools(), Config(), Standalone(), Probe()}
}

// Main runs the program with its command line and returns the exit code. With one component its flags
// are the program's own; with more, each is a subcommand.
func Main(program string, args []string, cs ...Component) int {
	setVersion()
	return execute(program, args, os.Stdout, os.Stderr, cs)
}

// setVersion fills in the version of a program that was built without one (go install, go build) from
// what the toolchain knows.
func setVersion() {
	if version.Version != "" {
		return
	}
	version.Version = "unknown"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version.Version = strings.TrimPrefix(info.Main.Version, "v")
	}
}

// exit is thrown where kingpin would end the process (help, version, completion).
type exit int

func execute(program string, args []string, stdout, stderr io.Writer, cs []Component) (code int) {
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(exit)
			if !ok {
				panic(p)
			}
			code = int(e)
		}
	}()
	cl := newCommandLine(program, stdout, cs)
	name, err := cl.app.Parse(args)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "Error: "+cl.explain(err))
		return 1
	}
	c := cl.chosen(name)
	logger, err := cl.globals.logger()
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "Error: "+err.Error())
		return 1
	}
	p := newProcess(c.title, c.flags, logger)
	p.out, p.quiet = stdout, c.quiet
	if err := p.main(cl.globals, c.run); err != nil {
		// One line, whatever the error holds: it becomes the last word of a container.
		_ = level.Error(logger).Log("msg", c.title+" ends", "err", oneLine(err))
		return 1
	}
	return 0
}

// commandLine is the parser of a program.
type commandLine struct {
	app      *kingpin.Application
	globals  *globals
	common   *flags
	commands []*command
}

// command is a component whose flags are bound.
type command struct {
	// name is what the parser calls it: the words that choose it. title has the component's own in front.
	name, title string
	flags       *flags
	run         runner
	quiet       bool
}

func newCommandLine(program string, stdout io.Writer, cs []Component) *commandLine {
	about := "Long-term metrics for Prometheus: a drop-in for Thanos."
	if len(cs) == 1 {
		about = cs[0].help
	}
	app := kingpin.New(program, about)
	app.HelpFlag.Short('h')
	app.UsageWriter(stdout)
	app.ErrorWriter(io.Discard) // errors are told by execute, in one line
	app.Terminate(func(code int) { panic(exit(code)) })
	// kingpin's own version flag would go to the error writer.
	app.Flag("version", "Show application version.").PreAction(func(*kingpin.ParseContext) error {
		_, _ = fmt.Fprintln(stdout, version.Print(program))
		panic(exit(0))
	}).Bool()

	cl := &commandLine{app: app, globals: &globals{}, common: &flags{on: app}}
	cl.globals.bind(cl.common)
	for _, c := range cs {
		if len(cs) == 1 {
			cl.bind(app, c, "", c.name, nil)
		} else {
			cl.bind(app.Command(c.name, c.help), c, c.name, c.name, nil)
		}
	}
	for _, c := range cl.commands {
		c.flags.all = append(c.flags.all, cl.common.all...)
	}
	return cl
}

// clause is what flags and commands are declared on: the application or a command of it.
type clause interface {
	Flag(name, help string) *kingpin.FlagClause
	Command(name, help string) *kingpin.CmdClause
	Arg(name, help string) *kingpin.ArgClause
}

// bind declares a component and what is below it. shared are the flags of the commands above.
func (cl *commandLine) bind(on clause, c Component, name, title string, shared []*declared) {
	fs := &flags{on: on}
	run := c.bind(fs)
	if len(c.subs) == 0 {
		fs.all = append(fs.all, shared...)
		cl.commands = append(cl.commands, &command{name: name, title: title, flags: fs, run: run, quiet: c.quiet})
		return
	}
	shared = append(shared, fs.all...)
	for _, sub := range c.subs {
		cl.bind(on.Command(sub.name, sub.help), sub, strings.TrimSpace(name+" "+sub.name), title+" "+sub.name, shared)
	}
}

func (cl *commandLine) chosen(name string) *command {
	for _, c := range cl.commands {
		if c.name == name {
			return c
		}
	}
	return cl.commands[0]
}

var unknownFlag = regexp.MustCompile(`^unknown long flag '--(.*)'$`)

// explain makes one helpful line of a parse error.
func (cl *commandLine) explain(err error) string {
	m := unknownFlag.FindStringSubmatch(err.Error())
	if m == nil {
		return oneLine(err)
	}
	known := cl.known()
	s := fmt.Sprintf("unknown flag --%s", m[1])
	if near := nearest(strings.TrimPrefix(m[1], "no-"), known); near == m[1] {
		s += ": it belongs to another command, see --help"
	} else if near != "" {
		s += fmt.Sprintf(": did you mean --%s?", near)
	}
	return s
}

// known are the visible flags: of the program and of all its components.
func (cl *commandLine) known() (names []string) {
	model := cl.app.Model()
	add := func(g *kingpin.FlagGroupModel) {
		for _, f := range g.Flags {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		}
	}
	var walk func([]*kingpin.CmdModel)
	walk = func(cs []*kingpin.CmdModel) {
		for _, c := range cs {
			add(c.FlagGroupModel)
			walk(c.Commands)
		}
	}
	add(model.FlagGroupModel)
	walk(model.Commands)
	return names
}

// nearest returns the name that takes the fewest changed letters, "" if it takes more than half.
func nearest(name string, known []string) (best string) {
	least := len(name)/2 + 1
	for _, k := range known {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete or change (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// oneLine is the text of an error without line breaks.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// errInterrupted is why things end when a signal says so.
var errInterrupted = errors.New("a signal ends the process")
