package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
)

// A config says what one cluster consists of and where it is. `up` writes it to cluster.json in the cluster's
// directory, where scripts and tests read addresses from it as well.
type config struct {
	Name string `json:"name"`
	// Index tells apart the clusters that stand on one machine: addresses and the link's name derive from it.
	Index int `json:"index"`
	// Nodes is 0 for an API server alone.
	Nodes             int    `json:"nodes"`
	ControllerManager bool   `json:"controllerManager"`
	ProxyMode         string `json:"proxyMode,omitempty"`

	APIAddress string `json:"apiAddress"`
	APIPort    int    `json:"apiPort"`
	// Link is the veth by which the host's own network namespace reaches the cluster; HostAddress is the host on it.
	Link          string   `json:"link,omitempty"`
	HostAddress   string   `json:"hostAddress,omitempty"`
	NodeAddresses []string `json:"nodeAddresses,omitempty"`
	NodeCIDR      string   `json:"nodeCIDR,omitempty"`
	PodCIDR       string   `json:"podCIDR,omitempty"`
	ServiceCIDR   string   `json:"serviceCIDR"`
}

// Up to this many clusters with nodes may stand side by side; the addresses below leave room for no more.
const maxClusters = 40

const maxNodes = 9

// withAddresses fills in all that follows from the index.
func (c config) withAddresses(index int) config {
	c.Index = index
	c.Link = fmt.Sprintf("vdock%d", index)
	c.APIAddress = fmt.Sprintf("172.31.%d.1", 10+index)
	c.APIPort = 6443
	c.HostAddress = fmt.Sprintf("172.31.%d.254", 10+index)
	c.NodeCIDR = fmt.Sprintf("172.31.%d.0/24", 10+index)
	c.PodCIDR = fmt.Sprintf("10.%d.0.0/16", 200+index)
	c.ServiceCIDR = fmt.Sprintf("10.%d.0.0/16", 150+index)
	c.NodeAddresses = nil
	for node := range c.Nodes {
		c.NodeAddresses = append(c.NodeAddresses, fmt.Sprintf("172.31.%d.%d", 10+index, 10+node))
	}
	return c
}

func (c *config) apiURL() string          { return fmt.Sprintf("https://%s:%d", c.APIAddress, c.APIPort) }
func (c *config) contextName() string     { return "voicedock-" + c.Name }
func (c *config) podCIDR(node int) string { return fmt.Sprintf("10.%d.%d.0/24", 200+c.Index, node) }
func (c *config) dnsIP() string           { return c.serviceIP(10) }
func nodeName(node int) string            { return fmt.Sprintf("node%d", node) }

func (c *config) serviceIP(last byte) string {
	bytes := netip.MustParsePrefix(c.ServiceCIDR).Addr().As4()
	bytes[3] = last
	return netip.AddrFrom4(bytes).String()
}

func (c *config) save(dir string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cluster.json"), append(data, '\n'), 0o600)
}

func loadConfig(dir string) (*config, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err != nil {
		return nil, err
	}
	c := &config{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%s/cluster.json: %w", dir, err)
	}
	return c, nil
}

var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)

// stateDir is where the cluster of this name keeps everything it writes.
func stateDir(name string) (string, error) {
	if !validName.MatchString(name) {
		return "", fmt.Errorf("%q is not a cluster's name: use --name with 1 to 40 lower-case letters, digits and dashes", name)
	}
	if base := os.Getenv("VOICEDOCK_STATE"); base != "" {
		base, err := filepath.Abs(base)
		return filepath.Join(base, name), err
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "tests", "cluster", "go.mod")); err == nil {
			return filepath.Join(dir, "target", "cluster", name), nil
		}
		if dir == "/" {
			return "", fmt.Errorf("this is not inside the voicedock repository: change into it, or set VOICEDOCK_STATE to a directory for the clusters' state")
		}
	}
}
