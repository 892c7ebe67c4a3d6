package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	pauseImage   = "voicedock.local/pause:1"
	coreDNSImage = "voicedock.local/coredns:1"
)

// writeImage makes an image archive (the docker-archive format) that holds one static binary and nothing else.
func writeImage(path, reference, binary string) error {
	program, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("%w: `make tools` builds it beside this binary", err)
	}
	name := filepath.Base(binary)
	layer, err := tarball(entry{name, 0o755, program})
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "created": "1970-01-01T00:00:00Z",
		"config":  map[string]any{"Entrypoint": []string{"/" + name}, "User": "65532:65532", "Env": []string{"PATH=/"}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
		"history": []map[string]any{{"created": "1970-01-01T00:00:00Z", "created_by": "voicedock tests/cluster"}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": digest(config) + ".json", "RepoTags": []string{reference}, "Layers": []string{digest(layer) + "/layer.tar"},
	}})
	if err != nil {
		return err
	}
	archive, err := tarball(
		entry{digest(config) + ".json", 0o644, config},
		entry{digest(layer) + "/layer.tar", 0o644, layer},
		entry{"manifest.json", 0o644, manifest},
	)
	if err != nil {
		return err
	}
	return os.WriteFile(path, archive, 0o600)
}

type entry struct {
	name string
	mode int64
	data []byte
}

func tarball(entries ...entry) ([]byte, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	return buffer.Bytes(), w.Close()
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// ctr is containerd's own client on the containerd of the node with this first process.
func ctr(ctx context.Context, node int, args ...string) *exec.Cmd {
	socket := fmt.Sprintf("/proc/%d/root/run/containerd/containerd.sock", node)
	return exec.CommandContext(ctx, "ctr", append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...)
}

// onNodes does something for each node, for all at once.
func onNodes(c *existing, do func(node string, pid int) error) error {
	errs := make([]error, c.Nodes)
	var wait sync.WaitGroup
	for node := range c.Nodes {
		wait.Add(1)
		go func() {
			defer wait.Done()
			pid, err := nodePID(c.pid, nodeName(node))
			if err == nil {
				err = do(nodeName(node), pid)
			}
			if err != nil {
				errs[node] = fmt.Errorf("%s: %w", nodeName(node), err)
			}
		}()
	}
	wait.Wait()
	return errors.Join(errs...)
}

// loadImages imports image archives on all nodes.
func loadImages(ctx context.Context, c *existing, archives []string, say progress) error {
	if len(archives) == 0 {
		return nil
	}
	err := onNodes(c, func(_ string, pid int) error {
		for _, archive := range archives {
			if _, err := output(ctr(ctx, pid, "images", "import", archive)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		say.say("imported %s on %d nodes", strings.Join(archives, ", "), c.Nodes)
	}
	return err
}

func commandLoad(args []string) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	name := flags.String("name", "", "the cluster")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("load: name one or more image archives (FILE.tar)")
	}
	for _, archive := range flags.Args() {
		file, err := os.Open(archive)
		if err != nil {
			return fmt.Errorf("%w: build it with `hack/image.sh`", err)
		}
		_, err = tar.NewReader(file).Next()
		file.Close()
		if err != nil && err != io.EOF {
			return fmt.Errorf("%s is not an image archive: %w", archive, err)
		}
	}
	c, err := findCluster(*name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return loadImages(ctx, c, flags.Args(), progress{time.Now()})
}

func commandExec(args []string) error {
	flags := flag.NewFlagSet("exec", flag.ContinueOnError)
	name := flags.String("name", "", "the cluster")
	node := flags.Int("node", 0, "number of the node")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("exec: name the command to run, after --")
	}
	c, err := findCluster(*name)
	if err != nil {
		return err
	}
	pid, err := nodePID(c.pid, nodeName(*node))
	if err != nil {
		return err
	}
	return inNode(pid, flags.Args())
}

// commandKillContainer finds the container by containerd's labels, so that it needs no API server.
func commandKillContainer(args []string) error {
	flags := flag.NewFlagSet("kill-container", flag.ContinueOnError)
	name := flags.String("name", "", "the cluster")
	namespace := flags.String("namespace", "default", "the pod's namespace")
	pod := flags.String("pod", "", "the pod")
	container := flags.String("container", "", "the container; default: all of the pod")
	signal := flags.String("signal", "KILL", "the signal")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *pod == "" {
		return errors.New("kill-container: name the pod with --pod")
	}
	c, err := findCluster(*name)
	if err != nil {
		return err
	}
	filter := fmt.Sprintf(`labels."io.cri-containerd.kind"==container,labels."io.kubernetes.pod.namespace"==%q,labels."io.kubernetes.pod.name"==%q`,
		*namespace, *pod)
	if *container != "" {
		filter += fmt.Sprintf(`,labels."io.kubernetes.container.name"==%q`, *container)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var mutex sync.Mutex
	killed := 0
	err = onNodes(c, func(_ string, pid int) error {
		ids, err := output(ctr(ctx, pid, "containers", "list", "--quiet", filter))
		if err != nil {
			return err
		}
		for id := range strings.FieldsSeq(string(ids)) {
			// A container that has ended stays listed for a while; it has no task to signal.
			if _, err := output(ctr(ctx, pid, "tasks", "kill", "--signal", *signal, id)); err == nil {
				mutex.Lock()
				killed++
				mutex.Unlock()
			}
		}
		return nil
	})
	if err == nil && killed == 0 {
		err = fmt.Errorf("no running container of pod %s/%s: `kubectl get pods -n %s` lists the pods", *namespace, *pod, *namespace)
	}
	if err == nil {
		fmt.Printf("sent SIG%s to %d container(s) of %s/%s\n", strings.TrimPrefix(*signal, "SIG"), killed, *namespace, *pod)
	}
	return err
}
