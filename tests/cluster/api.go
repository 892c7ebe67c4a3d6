package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const apiServiceCIDR = "10.96.0.0/16"

// apiOnly is the config of an API server without nodes.
func apiOnly(name string, controllerManager bool) (*config, error) {
	port, err := freePort()
	return &config{
		Name: name, Index: -1, ControllerManager: controllerManager,
		APIAddress: "127.0.0.1", APIPort: port, ServiceCIDR: apiServiceCIDR,
	}, err
}

// commandAPI is `cluster api`: an API server for one test process. It ends, and takes everything with it, when its
// standard input closes, when its parent is gone, and on SIGTERM, SIGINT and SIGHUP.
func commandAPI(args []string) error {
	flags := flag.NewFlagSet("api", flag.ContinueOnError)
	dir := flags.String("dir", "", "directory for its state, made if missing; default: a temporary one that is removed at the end")
	controllerManager := flags.Bool("kcm", false, "run kube-controller-manager as well: garbage collection, namespace deletion, service accounts")
	timeout := flags.Duration("timeout", time.Minute, "give up when it is not ready by then")
	if err := parse(flags, args); err != nil {
		return err
	}
	end := endOfInput()
	if *dir == "" {
		made, err := os.MkdirTemp("", "voicedock-api-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(made)
		*dir = made
	}
	path, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	if pids := workingIn(path); len(pids) > 0 {
		return fmt.Errorf("an API server (pid %v) is already running in %s: end it, or choose another --dir", pids, path)
	}
	c, err := apiOnly("api", *controllerManager)
	if err != nil {
		return err
	}
	if err := prepareAPI(path, c); err != nil {
		return err
	}
	if err := os.Chdir(path); err != nil {
		return err
	}
	s := newSupervisor("log")
	s.failFast = true
	defer s.stopAll()
	for _, p := range controlPlane(c) {
		if err := s.start(p); err != nil {
			return err
		}
	}
	failed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		defer cancel()
		client, err := newClient("kubeconfig")
		if err == nil {
			err = apiReady(ctx, client, path, *controllerManager)
		}
		if err != nil {
			failed <- fmt.Errorf("not ready within %s: %w", *timeout, err)
			end <- "giving up"
			return
		}
		fmt.Printf("KUBECONFIG=%s\n", filepath.Join(path, "kubeconfig"))
	}()
	if err := s.run(end, nil); err != nil {
		return fmt.Errorf("%w; the end of the logs:\n%s\n%s", err, tail("log/etcd.log", 3), tail("log/kube-apiserver.log", 3))
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// prepareAPI clears what an earlier server left in dir and writes the files that a new one starts from.
func prepareAPI(dir string, c *config) error {
	for _, old := range []string{"etcd", "pki", "log", "etcd.sock:0", "etcd-peer.sock:0", "kubeconfig", "cluster.json"} {
		if err := os.RemoveAll(filepath.Join(dir, old)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	if _, err := writeControlPlanePKI(dir, c); err != nil {
		return err
	}
	return c.save(dir)
}
