package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

type upOptions struct {
	name, proxyMode   string
	nodes             int
	controllerManager bool
	reuse             bool
	images            list
	timeout           time.Duration
}

func commandUp(args []string) error {
	o := upOptions{}
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	flags.StringVar(&o.name, "name", "", "the cluster's name; clusters of different names stand side by side")
	flags.IntVar(&o.nodes, "nodes", 2, "number of nodes; 0: an API server alone, without root")
	flags.StringVar(&o.proxyMode, "proxy", "iptables", "how kube-proxy works: iptables or nftables")
	flags.Var(&o.images, "image", "image archive to import on all nodes; may be repeated")
	flags.BoolVar(&o.controllerManager, "kcm", false, "with --nodes 0: run kube-controller-manager as well")
	flags.BoolVar(&o.reuse, "reuse", false, "leave a cluster of this name and size that is up and ready as it is; only import the images")
	flags.DurationVar(&o.timeout, "timeout", 3*time.Minute, "give up when it is not ready by then")
	if err := parse(flags, args); err != nil {
		return err
	}
	if o.nodes < 0 || o.nodes > maxNodes {
		return fmt.Errorf("--nodes %d: it can be 0 to %d", o.nodes, maxNodes)
	}
	if o.proxyMode != "iptables" && o.proxyMode != "nftables" {
		return fmt.Errorf("--proxy %q: it can be iptables or nftables", o.proxyMode)
	}
	if o.nodes == 0 && len(o.images) > 0 {
		return errors.New("--image needs nodes to import it on: add --nodes 1")
	}
	for _, image := range o.images {
		if _, err := os.Stat(image); err != nil {
			return fmt.Errorf("--image: %w: build it with `hack/image.sh`", err)
		}
	}
	dir, err := stateDir(o.name)
	if err != nil {
		return err
	}
	held, err := lock(dir)
	if err != nil {
		return err
	}
	defer held.release()
	// Interrupted, it clears up as after any failure.
	interrupted, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(interrupted, o.timeout, fmt.Errorf("not ready within %s", o.timeout))
	defer cancel()
	say := progress{time.Now()}
	if o.reuse {
		c, err := findCluster(o.name)
		if err == nil && c.Nodes == o.nodes && (c.Nodes == 0 || c.ProxyMode == o.proxyMode) && allReady(ctx, c) == nil {
			say.say("cluster %s is up already", o.name)
			return loadImages(ctx, c, o.images, say)
		}
	}
	if err := up(ctx, dir, &o, say); err != nil {
		// What failed is in the logs; what runs is of no use any more.
		if cleanupErr := removeCluster(dir, false); cleanupErr != nil {
			err = fmt.Errorf("%w\n(and clearing up failed: %w)", err, cleanupErr)
		}
		return fmt.Errorf("%s did not come up: %w", o.name, err)
	}
	return nil
}

func up(ctx context.Context, dir string, o *upOptions, say progress) error {
	if err := removeCluster(dir, true); err != nil {
		return fmt.Errorf("clear what an earlier run left: %w", err)
	}
	if o.nodes > 0 {
		return upNodes(ctx, dir, o, say)
	}
	c, err := apiOnly(o.name, o.controllerManager)
	if err != nil {
		return err
	}
	if err := prepareAPI(dir, c); err != nil {
		return err
	}
	if err := startCluster(dir, 0, nil); err != nil {
		return err
	}
	client, err := newClient(filepath.Join(dir, "kubeconfig"))
	if err != nil {
		return err
	}
	if err := apiReady(ctx, client, dir, o.controllerManager); err != nil {
		return err
	}
	say.say("API server ready; export KUBECONFIG=%s", filepath.Join(dir, "kubeconfig"))
	return nil
}

// startCluster starts the cluster's first process. With namespaces, between runs while it has nothing yet but them;
// when this process dies before that is done, so does the new one.
func startCluster(dir string, cloneflags uintptr, between func(pid int) error) error {
	log, err := os.OpenFile(filepath.Join(dir, "log", "cluster.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", dir)
	cmd.Args[0] = clusterProcess
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = withoutProxy(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: cloneflags}
	release, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the cluster's first process: %w", err)
	}
	go func() { _ = cmd.Wait() }() // it is our child until we end, and must not stay a zombie
	if between != nil {
		if err := between(cmd.Process.Pid); err != nil {
			_ = cmd.Process.Kill()
			return err
		}
	}
	if _, err := io.WriteString(release, "go\n"); err != nil {
		return fmt.Errorf("%w: %s", err, tail(log.Name(), 5))
	}
	return release.Close()
}

// runCluster is the cluster's first process. Its working directory is the cluster's.
func runCluster(args []string) error {
	if len(args) != 1 {
		return errors.New("this name is for `cluster up` to use")
	}
	if word, _ := io.ReadAll(os.Stdin); string(word) != "go\n" {
		return errors.New("`cluster up` ended before it was done")
	}
	c, err := loadConfig(".")
	if err != nil {
		return err
	}
	var nodes []*program
	if c.Nodes > 0 {
		if err := enterCluster(c); err != nil {
			return err
		}
		for node := range c.Nodes {
			nodes = append(nodes, nodeProgram(node))
		}
	}
	s := newSupervisor("log")
	var api *program
	for _, p := range controlPlane(c) {
		if p.name == "kube-apiserver" {
			api = p
		}
		if err := s.start(p); err != nil {
			return err
		}
	}
	for node, p := range nodes {
		if err := s.start(p); err != nil {
			return err
		}
		if err := connectNode(node, p.pid); err != nil {
			return err
		}
	}
	return s.run(nil, func(sig os.Signal) error {
		if sig == unix.SIGUSR1 {
			s.stop(api)
			return nil
		}
		if api.pid != 0 {
			return nil
		}
		return s.start(api)
	})
}

func switchAPI(c *existing, on bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := newClient(filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		return err
	}
	if on {
		if err := unix.Kill(c.pid, unix.SIGUSR2); err != nil {
			return err
		}
		return apiReady(ctx, client, c.dir, false)
	}
	if err := unix.Kill(c.pid, unix.SIGUSR1); err != nil {
		return err
	}
	return poll(ctx, 20*time.Millisecond, func() error {
		if _, err := client.Discovery().RESTClient().Get().AbsPath("/livez").DoRaw(ctx); err == nil {
			return errors.New("the API server still answers")
		}
		return nil
	})
}

// removeCluster ends the cluster in dir, if there is one, and removes what it made. With state, that includes dir.
func removeCluster(dir string, state bool) error {
	c, _ := loadConfig(dir)
	if err := killAll(func() []int { return clusterPIDs(dir) }, 20*time.Second); err != nil {
		return err
	}
	// The first process of a cluster with nodes took its namespaces along, and with them processes, mounts, links and
	// routes. Without namespaces, its children have died of their parent's death; see that they are gone.
	if err := killAll(func() []int { return workingIn(dir) }, 10*time.Second); err != nil {
		return err
	}
	name := filepath.Base(dir)
	if c != nil && c.Link != "" {
		if err := removeLink(c.Link, dir); err != nil {
			return err
		}
	}
	if err := removeCgroups(cgroupName(name, dir)); err != nil {
		return err
	}
	if state {
		return os.RemoveAll(dir)
	}
	return nil
}

func commandDown(args []string) error {
	flags := flag.NewFlagSet("down", flag.ContinueOnError)
	name := flags.String("name", "", "the cluster")
	if err := parse(flags, args); err != nil {
		return err
	}
	dir, err := stateDir(*name)
	if err != nil {
		return err
	}
	held, err := lock(dir)
	if err != nil {
		return err
	}
	defer held.release()
	say := progress{time.Now()}
	if err := removeCluster(dir, true); err != nil {
		return err
	}
	say.say("cluster %s is gone", *name)
	return nil
}

// A clusterLock keeps two commands from building and removing the same cluster at once. The kernel frees it with the
// process.
type clusterLock struct{ file *os.File }

func lock(dir string) (*clusterLock, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".lock")
	for {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			holder, _ := os.ReadFile(path)
			file.Close()
			return nil, fmt.Errorf("pid %s is starting or removing this cluster right now: wait for it, or end it", strings.TrimSpace(string(holder)))
		}
		// Between open and lock, the one that held it may have removed the file.
		ours, err := file.Stat()
		if err != nil {
			return nil, err
		}
		if current, err := os.Stat(path); err == nil && os.SameFile(ours, current) {
			_ = file.Truncate(0)
			_, _ = fmt.Fprintln(file, os.Getpid())
			return &clusterLock{file}, nil
		}
		file.Close()
	}
}

func (l *clusterLock) release() {
	_ = os.Remove(l.file.Name())
	l.file.Close()
}

// allReady is nil when the API server and all nodes are ready and pods can be created.
func allReady(ctx context.Context, c *existing) error {
	client, err := newClient(filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		return err
	}
	if _, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		return err
	}
	if c.Nodes == 0 {
		return nil
	}
	return nodesReady(ctx, client, c.Nodes)
}

func nodesReady(ctx context.Context, client *kubernetes.Clientset, want int) error {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	ready := 0
	var missing []string
	for _, node := range nodes.Items {
		if condition := readyCondition(&node); condition != nil && condition.Status == corev1.ConditionTrue {
			ready++
		} else if condition != nil {
			missing = append(missing, node.Name+": "+condition.Message)
		}
	}
	if ready < want {
		return fmt.Errorf("%d of %d nodes are ready (%s)", ready, want, strings.Join(missing, "; "))
	}
	if _, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
		return fmt.Errorf("pods cannot be created yet: %w", err)
	}
	return nil
}

func readyCondition(node *corev1.Node) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

func printStatus(ctx context.Context, out io.Writer, c *existing) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "cluster\t%s (pid %d)\n", c.Name, c.pid)
	fmt.Fprintf(w, "kubeconfig\t%s\n", filepath.Join(c.dir, "kubeconfig"))
	client, err := newClient(filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		return err
	}
	state := "ready"
	if _, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		state = "not ready: " + err.Error()
	}
	fmt.Fprintf(w, "API server\t%s %s\n", c.apiURL(), state)
	if c.Nodes == 0 {
		return nil
	}
	fmt.Fprintf(w, "this machine\t%s on %s\n", c.HostAddress, c.Link)
	for node, address := range c.NodeAddresses {
		state := "not ready"
		if n, err := client.CoreV1().Nodes().Get(ctx, nodeName(node), metav1.GetOptions{}); err != nil {
			state = "unknown"
		} else if condition := readyCondition(n); condition != nil && condition.Status == corev1.ConditionTrue {
			state = "ready"
		}
		pid, err := nodePID(c.pid, nodeName(node))
		if err != nil {
			state = "not running"
		}
		fmt.Fprintf(w, "%s\t%s %s (pid %d), pods %s\n", nodeName(node), address, state, pid, c.podCIDR(node))
	}
	return nil
}
