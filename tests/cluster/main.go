// Command cluster is a Kubernetes cluster in one binary: under the names etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler, kubelet and kube-proxy it is that program; as `cluster COMMAND` it starts
// them as a cluster on this machine and takes it away again. README.md says how it is isolated.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"golang.org/x/sys/unix"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func init() {
	// The main goroutine stays on the main thread: a child's parent-death signal is tied to the thread that started
	// it, and only the main thread is sure to live as long as the process.
	runtime.LockOSThread()
}

func main() {
	name := filepath.Base(os.Args[0])
	setProcessName(name)
	switch name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(kcm.NewControllerManagerCommand()))
	case "kube-scheduler":
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	case "kube-proxy":
		os.Exit(cli.Run(proxy.NewProxyCommand()))
	case "kubelet":
		os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background())))
	case clusterProcess:
		exitOn(runCluster(os.Args[1:]))
	case nodeProcess:
		exitOn(runNode())
	default:
		exitOn(runCommand(os.Args[1:]))
	}
}

// setProcessName makes ps and top show the program's name and not that of /proc/self/exe.
func setProcessName(name string) {
	if text, err := unix.BytePtrFromString(name); err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(text)), 0, 0, 0)
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
