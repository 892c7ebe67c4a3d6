package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const cgroupMount = "/sys/fs/cgroup"

// cgroupName is the name of the cgroup above all pods of the cluster. Two checkouts may each have a cluster "test".
func cgroupName(name, dir string) string {
	hash := fnv.New32a()
	hash.Write([]byte(dir))
	return fmt.Sprintf("voicedock-%s-%08x", name, hash.Sum32())
}

func unifiedCgroups() bool {
	_, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers"))
	return err == nil
}

// cgroupRoots are the hierarchies: one with cgroup v2, one per controller with v1.
func cgroupRoots() ([]string, error) {
	if unifiedCgroups() {
		return []string{cgroupMount}, nil
	}
	roots, err := filepath.Glob(filepath.Join(cgroupMount, "*", "cgroup.procs"))
	for i := range roots {
		roots[i] = filepath.Dir(roots[i])
	}
	if err == nil && len(roots) == 0 {
		err = fmt.Errorf("no cgroups are mounted on %s: the kubelet needs them; mount them as systemd does", cgroupMount)
	}
	return roots, err
}

// makeCgroups makes the cgroup NAME with one below it per node.
func makeCgroups(name string, nodes int) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		top := filepath.Join(root, name)
		paths := []string{top}
		for node := range nodes {
			paths = append(paths, filepath.Join(top, nodeName(node)))
		}
		if unifiedCgroups() {
			if err := delegate(root); err != nil {
				return err
			}
		}
		for _, path := range paths {
			if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			if unifiedCgroups() {
				if err := delegate(path); err != nil {
					return err
				}
				continue
			}
			// With v1 a new cpuset is empty, and nothing can run in it, until it is filled.
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				above, err := os.ReadFile(filepath.Join(filepath.Dir(path), file))
				if err != nil {
					continue // not the cpuset hierarchy
				}
				if err := os.WriteFile(filepath.Join(path, file), above, 0); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// delegate makes the controllers of a v2 cgroup available below it.
func delegate(path string) error {
	available, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for controller := range strings.FieldsSeq(string(available)) {
		if !slices.Contains([]string{"cpu", "cpuset", "memory", "pids", "hugetlb", "io"}, controller) {
			continue
		}
		if err := os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("enable the controller %s below %s: %w; in a container, run it with a cgroup namespace of the host", controller, path, err)
		}
	}
	return nil
}

// removeCgroups removes the cgroup NAME in all hierarchies. The processes in it are dead, but the kernel may need a
// moment to see it.
func removeCgroups(name string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return nil //nolint:nilerr // without cgroups there is nothing to remove
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, root := range roots {
		top := filepath.Join(root, name)
		for {
			var dirs []string
			_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			if len(dirs) == 0 {
				break
			}
			slices.Reverse(dirs)
			for _, dir := range dirs {
				err = os.Remove(dir)
			}
			if err != nil && time.Now().After(deadline) {
				return fmt.Errorf("cgroup %s does not empty: see which processes are in it with `cat %s/cgroup.procs`", top, top)
			}
			if err != nil {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	return nil
}
