package main

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// controlPlane are the programs of a control plane whose directory is the working directory. etcd listens on Unix
// sockets in that directory only: no port to collide on, and nobody else can read the cluster's Secrets.
func controlPlane(c *config) []*program {
	const etcdSocket = "unix://etcd.sock:0" // etcd wants a port, the file is called "etcd.sock:0"
	programs := []*program{{
		name: "etcd",
		args: []string{
			"--data-dir=etcd", "--unsafe-no-fsync", "--log-level=warn", "--name=" + c.Name,
			"--listen-client-urls=" + etcdSocket, "--listen-peer-urls=unix://etcd-peer.sock:0",
			// Announced to nobody; etcd refuses a Unix socket here.
			"--advertise-client-urls=http://localhost:2379",
			"--initial-advertise-peer-urls=http://localhost:2380", "--initial-cluster=" + c.Name + "=http://localhost:2380",
		},
	}, {
		name: "kube-apiserver",
		args: []string{
			"--etcd-servers=" + etcdSocket,
			"--bind-address=" + c.APIAddress, "--advertise-address=" + c.APIAddress, fmt.Sprintf("--secure-port=%d", c.APIPort),
			"--tls-cert-file=pki/apiserver.crt", "--tls-private-key-file=pki/apiserver.key",
			"--client-ca-file=pki/ca.crt",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
			"--kubelet-client-certificate=pki/kubelet-client.crt", "--kubelet-client-key=pki/kubelet-client.key",
			"--kubelet-certificate-authority=pki/ca.crt", "--kubelet-preferred-address-types=InternalIP",
			"--service-account-key-file=pki/service-accounts.pub",
			"--service-account-signing-key-file=pki/service-accounts.key",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-cluster-ip-range=" + c.ServiceCIDR, "--endpoint-reconciler-type=lease",
			// No kube-proxy runs beside the API server: it reaches webhooks by their pods' addresses.
			"--enable-aggregator-routing=true",
			// A pod leaves a lost node after seconds, so that a test of that ends in seconds.
			"--default-not-ready-toleration-seconds=5", "--default-unreachable-toleration-seconds=5",
		},
	}}
	if c.APIAddress == "127.0.0.1" {
		// The lease reconciler refuses to announce a loopback address; without nodes nobody asks for it.
		programs[1].args = append(programs[1].args, "--endpoint-reconciler-type=none", "--advertise-address=192.0.2.1")
	}
	if c.ControllerManager || c.Nodes > 0 {
		// Neither gets a kubeconfig for delegated authentication: reading its ConfigMap races the API server's
		// creation of the RBAC rules and ends the program. Their own ports are off for the same reason.
		programs = append(programs, &program{
			name: "kube-controller-manager",
			args: []string{
				"--kubeconfig=pki/controller-manager.conf", "--secure-port=0", "--leader-elect=false",
				"--kube-api-qps=500", "--kube-api-burst=1000", // the default of 20 takes seconds for the start alone
				"--use-service-account-credentials=true", "--root-ca-file=pki/ca.crt",
				"--service-account-private-key-file=pki/service-accounts.key",
				"--cluster-signing-cert-file=pki/ca.crt", "--cluster-signing-key-file=pki/ca.key",
				"--allocate-node-cidrs=false", // `up` does, see createNodes
				"--node-monitor-period=1s", "--node-monitor-grace-period=8s",
			},
		})
	}
	if c.Nodes > 0 {
		programs = append(programs, &program{
			name: "kube-scheduler",
			args: []string{"--kubeconfig=pki/scheduler.conf", "--secure-port=0", "--leader-elect=false",
				"--kube-api-qps=500", "--kube-api-burst=1000"},
		})
	}
	return programs
}

// freePort finds a port on loopback below the range from which the kernel takes ports for outgoing connections, so
// that none of these can take it between now and the API server's start.
func freePort() (int, error) {
	for range 100 {
		port := 20000 + rand.IntN(12000)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("no free port between 20000 and 32000 on 127.0.0.1: end what listens there (`ss -ltnp`)")
}
