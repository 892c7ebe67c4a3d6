package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The process table is the register of what runs: a file can be lost (`rm -rf target`) or out of date.
const (
	clusterProcess = "voicedock-cluster" // argv: voicedock-cluster DIR
	nodeProcess    = "voicedock-node"    // argv: voicedock-node NAME, a child of the former
)

func processes() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func commandLine(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(string(bytes.TrimRight(data, "\x00")), "\x00")
}

// parentOf is the parent's pid, or 0 when pid is gone or a zombie.
func parentOf(pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// pid (name) state ppid …, and the name may hold anything
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(data, []byte(") Z ")) && !bytes.Contains(data, []byte(") X "))
}

// clusterPIDs are the first processes of the cluster whose directory is dir; more than one only after accidents.
func clusterPIDs(dir string) []int {
	var found []int
	for _, pid := range processes() {
		if argv := commandLine(pid); len(argv) == 2 && argv[0] == clusterProcess && argv[1] == dir && alive(pid) {
			found = append(found, pid)
		}
	}
	return found
}

// nodePID is the first process of a node, by its pid in this namespace.
func nodePID(cluster int, node string) (int, error) {
	for _, pid := range processes() {
		if argv := commandLine(pid); slices.Equal(argv, []string{nodeProcess, node}) && parentOf(pid) == cluster {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("%s is not running", node)
}

// workingIn are the processes whose working directory is dir: the programs of an API server without namespaces.
func workingIn(dir string) []int {
	var found []int
	for _, pid := range processes() {
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && strings.TrimSuffix(cwd, " (deleted)") == dir &&
			alive(pid) && isOurs(pid) {
			found = append(found, pid)
		}
	}
	return found
}

// isOurs keeps a shell that someone left in the directory from being taken for a part of the cluster.
func isOurs(pid int) bool {
	argv := commandLine(pid)
	return len(argv) > 0 && slices.Contains([]string{
		clusterProcess, "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
	}, filepath.Base(argv[0]))
}

// killAll kills the processes that find reports and returns when none is left.
func killAll(find func() []int, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		pids := find()
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %v does not end within %s of SIGKILL: look at its state with `ps -o pid,stat,wchan,args -p PID`, then try again",
				pids, timeout)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
