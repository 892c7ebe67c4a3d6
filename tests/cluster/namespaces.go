package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A cluster with nodes is a tree of processes in namespaces of their own:
//
//	voicedock-cluster   network: bridge br0 with the API server's address, one port per node, one to the host
//	├─ etcd, kube-apiserver, kube-controller-manager, kube-scheduler
//	└─ voicedock-node   one per node; network: eth0 on br0, the pods' cni0
//	   └─ containerd, kubelet, kube-proxy, and in further namespaces the pods
//
// Each level has PID, mount, network and UTS namespaces below the one above. When the first process dies, by whatever
// cause, the kernel kills all others and frees every mount, link, route and firewall rule with the namespaces. Only the
// state directory and the cgroups have names outside.
const clusterNamespaces = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS

const hostPort = "host" // the cluster's end of the link to the host

func nodeProgram(node int) *program {
	return &program{
		name: nodeProcess, log: nodeName(node), args: []string{nodeName(node)}, dir: nodeName(node),
		cloneflags: clusterNamespaces, once: true,
	}
}

// enterCluster furnishes the namespaces of the cluster's first process.
func enterCluster(c *config) error {
	m := mounter{}
	m.privatize()
	m.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC)
	m.mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV)
	m.bind(".", "/run/cluster")
	m.chdir("/run/cluster")
	if m.err != nil {
		return m.err
	}
	if err := unix.Sethostname([]byte("control")); err != nil {
		return err
	}
	// The bridge only switches: the nodes' firewalls see what passes, its own would do so a second time.
	if err := setBridgeFirewall("0"); err != nil {
		return err
	}
	commands := []string{
		"link set lo up",
		"link add br0 type bridge forward_delay 0",
		"addr add " + c.APIAddress + "/24 dev br0",
		"link set br0 up",
		"link set " + hostPort + " master br0 up",
	}
	for node := range c.Nodes {
		commands = append(commands, fmt.Sprintf("route add %s via %s", c.podCIDR(node), c.NodeAddresses[node]))
	}
	return ip(commands...)
}

// connectNode puts a cable between the bridge and the node whose first process is pid.
func connectNode(node, pid int) error {
	return ip(
		fmt.Sprintf("link add %s master br0 type veth peer name eth0 netns %d", nodeName(node), pid),
		fmt.Sprintf("link set %s up", nodeName(node)),
	)
}

// runNode is a node's first process. Its working directory is the node's; the cluster's is the one above.
func runNode() error {
	if len(os.Args) != 2 {
		return errors.New("this name is for `cluster up` to use")
	}
	name := os.Args[1]
	c, err := loadConfig("..")
	if err != nil {
		return err
	}
	node, err := strconv.Atoi(strings.TrimPrefix(name, "node"))
	if err != nil || node >= c.Nodes {
		return fmt.Errorf("%s is not one of %d nodes", name, c.Nodes)
	}
	if err := furnishNode(name); err != nil {
		return err
	}
	if err := connectPods(c, node); err != nil {
		return err
	}
	containerd, err := exec.LookPath("containerd")
	if err != nil {
		return err
	}
	s := newSupervisor("log")
	if err := s.start(&program{name: "containerd", path: containerd, args: []string{"--config=/run/node/containerd.toml"}}); err != nil {
		return err
	}
	// `up` creates the Node object when the API server is ready and the images are there.
	go func() {
		client, err := newClient("kubelet.conf")
		if err == nil {
			err = poll(context.Background(), 50*time.Millisecond, func() error {
				_, err := client.CoreV1().Nodes().Get(context.Background(), name, metav1.GetOptions{})
				return err
			})
		}
		s.do <- func() error {
			if err != nil {
				return err
			}
			if err := s.start(&program{name: "kubelet", args: []string{
				"--config=/run/node/kubelet.yaml", "--kubeconfig=/run/node/kubelet.conf",
				"--hostname-override=" + name, "--node-ip=" + c.NodeAddresses[node],
			}}); err != nil {
				return err
			}
			return s.start(&program{name: "kube-proxy", args: []string{"--config=/run/node/proxy.yaml"}})
		}
	}()
	return s.run(nil, nil)
}

// connectPods waits for the node's cable and sets up addresses and routes. There is no default route: whatever is
// neither the host's end of the link, nor a node, a pod or a Service cannot be reached.
func connectPods(c *config, node int) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := net.InterfaceByName("eth0"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return errors.New("the cluster's first process did not connect this node within 10s: see log/cluster.log")
		}
		time.Sleep(5 * time.Millisecond)
	}
	commands := []string{
		"link set lo up",
		"addr add " + c.NodeAddresses[node] + "/24 dev eth0",
		"link set eth0 up",
		// kube-proxy translates these before they leave; the route is there so that a packet gets that far.
		"route add " + c.ServiceCIDR + " dev eth0",
	}
	for other := range c.Nodes {
		if other != node {
			commands = append(commands, fmt.Sprintf("route add %s via %s", c.podCIDR(other), c.NodeAddresses[other]))
		}
	}
	if err := ip(commands...); err != nil {
		return err
	}
	if err := setBridgeFirewall("1"); err != nil { // a pod may reach a Service whose pod is on the same bridge
		return err
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}

// furnishNode gives the node private versions of all places that its programs write to at paths that cannot be
// configured.
func furnishNode(name string) error {
	m := mounter{}
	m.privatize()
	// Kubernetes expects mounts to propagate to and from pods that ask for it.
	m.mount("", "/", "", unix.MS_REC|unix.MS_SHARED)
	m.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC)
	m.mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV)
	m.bind(".", "/run/node")
	m.bind("lib", "/var/lib")
	m.bind("varlog", "/var/log")
	m.chdir("/run/node")
	// The kubelet insists on these values, which are the whole machine's. It is shown what it wants to see.
	for file, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		shown := filepath.Join("/run/sysctl", strings.ReplaceAll(file, "/", "."))
		m.write(shown, value+"\n")
		m.mount(shown, filepath.Join("/proc/sys", file), "", unix.MS_BIND)
	}
	if m.err != nil {
		return m.err
	}
	return unix.Sethostname([]byte(name))
}

// A mounter makes mounts until the first error, which it keeps.
type mounter struct{ err error }

// privatize keeps what is mounted from here on from the namespace above.
func (m *mounter) privatize() { m.mount("", "/", "", unix.MS_REC|unix.MS_SLAVE) }

func (m *mounter) mount(source, target, kind string, flags uintptr) {
	if m.err != nil {
		return
	}
	data := ""
	if kind == "tmpfs" {
		data = "mode=755"
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		m.err = fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
}

func (m *mounter) bind(source, target string) {
	if m.err == nil {
		m.err = os.MkdirAll(target, 0o755)
	}
	m.mount(source, target, "", unix.MS_BIND|unix.MS_REC)
}

func (m *mounter) chdir(dir string) {
	if m.err == nil {
		m.err = os.Chdir(dir)
	}
}

func (m *mounter) write(path, text string) {
	if m.err == nil {
		m.err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if m.err == nil {
		m.err = os.WriteFile(path, []byte(text), 0o644)
	}
}

// setBridgeFirewall says whether this network namespace's firewall sees what its bridges switch.
func setBridgeFirewall(value string) error {
	return os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte(value), 0)
}

// ip runs iproute2's commands one after the other.
func ip(commands ...string) error {
	for _, command := range commands {
		if _, err := output(exec.Command("ip", strings.Fields(command)...)); err != nil {
			return err
		}
	}
	return nil
}

// output runs a command; its error says which command and what it said.
func output(cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// inNode runs a command inside a node's namespaces, in place of this process.
func inNode(pid int, command []string) error {
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return fmt.Errorf("%w: install util-linux", err)
	}
	args := append([]string{"nsenter", "--target", fmt.Sprint(pid), "--mount", "--net", "--pid", "--uts", "--"}, command...)
	return syscall.Exec(nsenter, args, os.Environ())
}
