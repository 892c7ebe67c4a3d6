package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

const usage = `cluster: a Kubernetes cluster on this machine for tests and the demo

  cluster up       --name NAME [--nodes N] [--proxy iptables|nftables] [--image FILE.tar]... [--kcm] [--reuse]
                   start it; N = 0 is an API server alone and needs no root
  cluster down     --name NAME              remove it and all that it made
  cluster status   --name NAME              say what runs
  cluster load     --name NAME FILE.tar...  import images on all nodes
  cluster stop-api --name NAME              kill the API server; everything else runs on
  cluster start-api --name NAME             start it again
  cluster exec     --name NAME --node K -- COMMAND...    run a command inside a node
  cluster kill-container --name NAME --pod POD [--namespace NS] [--container C] [--signal KILL]
                   kill a container behind the kubelet's back; works while the API server is stopped
  cluster api      [--dir DIR] [--kcm]      an API server in the foreground; prints KUBECONFIG=PATH when it is ready
                   and ends when its standard input closes or its parent is gone

State is in $VOICEDOCK_STATE/NAME, or target/cluster/NAME in the repository: kubeconfig, cluster.json (addresses), log/.
`

func runCommand(args []string) error {
	if len(args) == 0 {
		fmt.Print(usage)
		return errors.New("say which command")
	}
	commands := map[string]func([]string) error{
		"api": commandAPI, "up": commandUp, "down": commandDown, "status": commandStatus, "load": commandLoad,
		"stop-api":  func(a []string) error { return commandSwitchAPI("stop-api", a) },
		"start-api": func(a []string) error { return commandSwitchAPI("start-api", a) },
		"exec":      commandExec, "kill-container": commandKillContainer,
	}
	switch command, ok := commands[args[0]]; {
	case ok:
		err := command(args[1:])
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	case args[0] == "help" || args[0] == "-h" || args[0] == "--help":
		fmt.Print(usage)
		return nil
	default:
		return fmt.Errorf("there is no command %q: `cluster help` lists them", args[0])
	}
}

// parse refuses words that no flag takes: they are mostly a flag with its dashes forgotten.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s does not take %q: `cluster help` shows what it takes", flags.Name(), flags.Arg(0))
	}
	return nil
}

// existing is the cluster that --name names.
type existing struct {
	dir string
	pid int
	*config
}

func findCluster(name string) (*existing, error) {
	dir, err := stateDir(name)
	if err != nil {
		return nil, err
	}
	pids := clusterPIDs(dir)
	c, err := loadConfig(dir)
	if len(pids) == 0 || err != nil {
		return nil, fmt.Errorf("no cluster %q is running in %s: start it with `cluster up --name %s`", name, dir, name)
	}
	return &existing{dir: dir, pid: pids[0], config: c}, nil
}

// progress prints what happens, with the seconds since the start.
type progress struct{ start time.Time }

func (p progress) say(format string, args ...any) {
	fmt.Printf("[%5.1fs] %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func commandSwitchAPI(command string, args []string) error {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	name := flags.String("name", "", "the cluster")
	if err := parse(flags, args); err != nil {
		return err
	}
	c, err := findCluster(*name)
	if err != nil {
		return err
	}
	return switchAPI(c, command == "start-api")
}

func commandStatus(args []string) error {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	name := flags.String("name", "", "the cluster")
	if err := parse(flags, args); err != nil {
		return err
	}
	c, err := findCluster(*name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return printStatus(ctx, os.Stdout, c)
}
