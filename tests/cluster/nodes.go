package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"crypto/x509/pkix"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(templateFiles, "templates/*"))

func render(name string, values map[string]any) ([]byte, error) {
	var out bytes.Buffer
	err := templates.ExecuteTemplate(&out, name, values)
	return out.Bytes(), err
}

// Where the CNI plugins are: Debian's place, then everybody else's.
var pluginDirs = []string{"/usr/lib/cni", "/opt/cni/bin"}

func pluginDir() (string, error) {
	for _, dir := range pluginDirs {
		if _, err := os.Stat(filepath.Join(dir, "host-local")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the CNI plugins are in none of %s: `make tools` installs them (Debian: containernetworking-plugins)", strings.Join(pluginDirs, ", "))
}

// checkMachine finds out in the first millisecond what would otherwise fail in the tenth second.
func checkMachine(proxyMode string) error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster with nodes needs root for its namespaces: use sudo, or --nodes 0 for an API server alone")
	}
	// A login-less root's PATH may lack these.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin:/usr/bin:/bin"); err != nil {
		return err
	}
	programs := []string{"containerd", "ctr", "runc", "ip", "iptables", "nsenter"}
	if proxyMode == "nftables" {
		programs = append(programs, "nft")
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: `make tools` installs what is missing", program)
		}
	}
	if _, err := pluginDir(); err != nil {
		return err
	}
	// Loaded by this, br_netfilter would change how the host's own bridges treat packets: see that it does not.
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		for _, module := range []string{"overlay", "nf_conntrack", "br_netfilter"} {
			_ = exec.Command("modprobe", module).Run()
		}
		if err := setBridgeFirewall("0"); err != nil {
			return errors.New("the kernel module br_netfilter is not there: `modprobe br_netfilter` says why; without it Services do not work between pods of one node")
		}
	}
	return nil
}

func upNodes(ctx context.Context, dir string, o *upOptions, say progress) error {
	if err := checkMachine(o.proxyMode); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	own := []string{filepath.Join(dir, "pause.tar"), filepath.Join(dir, "coredns.tar")}
	if err := writeImage(own[0], pauseImage, filepath.Join(filepath.Dir(binary), "pause")); err != nil {
		return err
	}
	if err := writeImage(own[1], coreDNSImage, filepath.Join(filepath.Dir(binary), "coredns")); err != nil {
		return err
	}

	c := &config{Name: o.name, Nodes: o.nodes, ControllerManager: true, ProxyMode: o.proxyMode}
	cluster := &existing{dir: dir, config: c}
	err = startCluster(dir, clusterNamespaces, func(pid int) error {
		cluster.pid = pid
		placed, err := connectHost(ctx, *c, dir, pid)
		if err != nil {
			return err
		}
		*c = placed
		ca, err := writeControlPlanePKI(dir, c)
		if err != nil {
			return err
		}
		for node := range c.Nodes {
			if err := writeNode(dir, c, node, ca); err != nil {
				return err
			}
		}
		if err := makeCgroups(cgroupName(c.Name, dir), c.Nodes); err != nil {
			return err
		}
		return c.save(dir)
	})
	if err != nil {
		return err
	}
	say.say("cluster %s: %d node(s), kube-proxy in %s mode; nodes %s, pods %s, Services %s, this machine is %s",
		c.Name, c.Nodes, c.ProxyMode, c.NodeCIDR, c.PodCIDR, c.ServiceCIDR, c.HostAddress)

	imported := make(chan error, 1)
	go func() { imported <- importAll(ctx, cluster, append(own, o.images...), say) }()
	client, err := newClient(filepath.Join(dir, "kubeconfig"))
	if err != nil {
		return err
	}
	if err := apiReady(ctx, client, dir, false); err != nil {
		return err
	}
	say.say("API server ready")
	if err := applyDNS(ctx, cluster); err != nil {
		return err
	}
	if err := <-imported; err != nil {
		return err
	}
	for _, image := range own {
		_ = os.Remove(image)
	}
	if err := createNodes(ctx, client, c); err != nil {
		return err
	}
	err = poll(ctx, 100*time.Millisecond, func() error {
		if err := programFailure(dir); err != nil {
			return err
		}
		return nodesReady(ctx, client, c.Nodes)
	})
	if err != nil {
		return err
	}
	say.say("all nodes ready")
	err = poll(ctx, 100*time.Millisecond, func() error {
		dns, err := client.AppsV1().Deployments("kube-system").Get(ctx, "coredns", metav1.GetOptions{})
		if err == nil && dns.Status.ReadyReplicas < 1 {
			err = errors.New("CoreDNS is not ready: see `kubectl -n kube-system get pods,events`")
		}
		return err
	})
	if err != nil {
		return err
	}
	say.say("names resolve; export KUBECONFIG=%s", filepath.Join(dir, "kubeconfig"))
	return nil
}

// connectHost takes the first free index and puts the cable between the host and the cluster. The link's name is the
// register of indexes: the kernel makes it for one caller only and removes it with the cluster.
func connectHost(ctx context.Context, c config, dir string, pid int) (config, error) {
	taken, err := hostRoutes(ctx)
	if err != nil {
		return c, err
	}
	for index := range maxClusters {
		c = c.withAddresses(index)
		if overlaps(taken, c.NodeCIDR) || overlaps(taken, c.PodCIDR) {
			continue
		}
		err := ip(fmt.Sprintf("link add %s type veth peer name %s netns %d", c.Link, hostPort, pid))
		if err != nil && strings.Contains(err.Error(), "File exists") {
			continue
		}
		if err != nil {
			return c, err
		}
		commands := []string{
			fmt.Sprintf("addr add %s/24 dev %s", c.HostAddress, c.Link),
			"link set " + c.Link + " up",
		}
		for node, address := range c.NodeAddresses {
			commands = append(commands, fmt.Sprintf("route add %s via %s dev %s", c.podCIDR(node), address, c.Link))
		}
		if _, err := output(exec.CommandContext(ctx, "ip", "link", "set", c.Link, "alias", linkOwner(dir))); err != nil {
			return c, err
		}
		return c, ip(commands...)
	}
	return c, fmt.Errorf("none of %d address ranges (172.31.10.0/24 with 10.200.0.0/16 and so on) is free: "+
		"remove clusters that you no longer need (`ip link | grep vdock` shows their links) or the routes in `ip route` that are in the way", maxClusters)
}

// linkOwner goes into the link's alias (256 bytes), so that nobody removes another cluster's link of the same name.
func linkOwner(dir string) string { return dir[max(0, len(dir)-250):] }

func hostRoutes(ctx context.Context) ([]netip.Prefix, error) {
	out, err := output(exec.CommandContext(ctx, "ip", "-json", "-4", "route", "show"))
	if err != nil {
		return nil, err
	}
	var routes []struct{ Dst string }
	if err := json.Unmarshal(out, &routes); err != nil {
		return nil, fmt.Errorf("read `ip -json route`: %w", err)
	}
	var taken []netip.Prefix
	for _, route := range routes {
		if prefix, err := netip.ParsePrefix(route.Dst); err == nil {
			taken = append(taken, prefix)
		} else if address, err := netip.ParseAddr(route.Dst); err == nil {
			taken = append(taken, netip.PrefixFrom(address, address.BitLen()))
		}
	}
	return taken, nil
}

func overlaps(taken []netip.Prefix, cidr string) bool {
	return slices.ContainsFunc(taken, netip.MustParsePrefix(cidr).Overlaps)
}

// removeLink removes the host's end of the cable, if it is this cluster's. The kernel would do it as well, a moment
// after the namespace's end.
func removeLink(link, dir string) error {
	alias, err := os.ReadFile(filepath.Join("/sys/class/net", link, "ifalias"))
	if err != nil || strings.TrimSpace(string(alias)) != linkOwner(dir) {
		return nil //nolint:nilerr // gone, or another's
	}
	if err := ip("link del " + link); err != nil && !strings.Contains(err.Error(), "Cannot find device") {
		return err
	}
	return nil
}

// writeNode writes all that a node's programs start from. The paths in it are those that the node sees.
func writeNode(dir string, c *config, node int, ca *authority) error {
	plugins, err := pluginDir()
	if err != nil {
		return err
	}
	name := nodeName(node)
	f := &files{dir: filepath.Join(dir, name)}
	values := map[string]any{
		"PauseImage": pauseImage, "PluginDir": plugins, "Snapshotter": snapshotter(dir),
		"PodCIDR": c.podCIDR(node), "ClusterCIDR": c.PodCIDR, "Address": c.NodeAddresses[node], "DNS": c.dnsIP(),
		"CgroupRoot": "/" + cgroupName(c.Name, dir) + "/" + name, "ProxyMode": c.ProxyMode, "Node": name,
	}
	for file, source := range map[string]string{
		"containerd.toml": "containerd.toml", "cni/10-pods.conflist": "pods.conflist",
		"kubelet.yaml": "kubelet.yaml", "proxy.yaml": "proxy.yaml",
	} {
		text, err := render(source, values)
		if err != nil {
			return err
		}
		f.write(file, text)
	}
	f.write("ca.crt", ca.certPEM)
	f.write("resolv.conf", nil)
	serving, err := ca.issue(pkix.Name{CommonName: name}, name, c.NodeAddresses[node])
	f.credential("kubelet", serving, err)
	for file, subject := range map[string]pkix.Name{
		"kubelet.conf": {CommonName: "system:node:" + name, Organization: []string{"system:nodes"}},
		"proxy.conf":   {CommonName: "system:kube-proxy"},
	} {
		data, err := ca.kubeconfig(c.contextName(), c.apiURL(), subject)
		f.kubeconfig(file, data, err)
	}
	for _, sub := range []string{"log", "lib", "varlog"} {
		if f.err == nil {
			f.err = os.MkdirAll(filepath.Join(f.dir, sub), 0o755)
		}
	}
	return f.err
}

// snapshotter is overlayfs, but not where the state directory is on an overlay itself (in a container).
func snapshotter(dir string) string {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) == nil && s.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return "native"
	}
	return "overlayfs"
}

// importAll imports the images as soon as each node's containerd answers.
func importAll(ctx context.Context, c *existing, archives []string, say progress) error {
	err := poll(ctx, 20*time.Millisecond, func() error {
		if err := programFailure(c.dir); err != nil {
			return err
		}
		return onNodes(c, func(_ string, pid int) error {
			_, err := output(ctr(ctx, pid, "version"))
			return err
		})
	})
	if err != nil {
		return err
	}
	return loadImages(ctx, c, archives, say)
}

// createNodes registers the nodes, which lets their kubelets start. Done by hand because the network plugin's ranges
// are set: whoever hands them out in order of arrival may mix them up.
func createNodes(ctx context.Context, client *kubernetes.Clientset, c *config) error {
	for node := range c.Nodes {
		_, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: nodeName(node), Labels: map[string]string{
				corev1.LabelHostname: nodeName(node), corev1.LabelOSStable: "linux",
			}},
			Spec: corev1.NodeSpec{PodCIDR: c.podCIDR(node), PodCIDRs: []string{c.podCIDR(node)}},
		}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("create %s: %w", nodeName(node), err)
		}
	}
	return nil
}

// What dns.yaml has, by kind.
var resources = map[string]string{
	"ServiceAccount": "serviceaccounts", "ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings",
	"ConfigMap": "configmaps", "Deployment": "deployments", "Service": "services",
}

func applyDNS(ctx context.Context, c *existing) error {
	text, err := render("dns.yaml", map[string]any{"CoreDNSImage": coreDNSImage, "DNS": c.dnsIP()})
	if err != nil {
		return err
	}
	restConfig, err := clientConfig(filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(restConfig)
	if err != nil {
		return err
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("dns.yaml: %w", err)
		}
		kind := object.GroupVersionKind()
		resource := client.Resource(schema.GroupVersionResource{Group: kind.Group, Version: kind.Version, Resource: resources[kind.Kind]})
		err := poll(ctx, 200*time.Millisecond, func() error {
			_, err := resource.Namespace(object.GetNamespace()).Apply(ctx, object.GetName(), object,
				metav1.ApplyOptions{FieldManager: "voicedock-cluster", Force: true})
			return err
		})
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", kind.Kind, object.GetName(), err)
		}
	}
}
