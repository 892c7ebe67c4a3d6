package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// clientConfig reads a kubeconfig. Whatever proxy the environment names, a cluster on this machine is reached directly.
func clientConfig(kubeconfig string) (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	c.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	c.Timeout = 5 * time.Second
	c.QPS = -1
	return c, nil
}

func newClient(kubeconfig string) (*kubernetes.Clientset, error) {
	c, err := clientConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(c)
}

// poll asks until done has no error. When time is up, the last one says what was still missing.
func poll(ctx context.Context, every time.Duration, done func() error) error {
	var missing error
	for {
		err := done()
		if err == nil {
			return nil
		}
		var final *finalError
		if errors.As(err, &final) {
			return err
		}
		if missing == nil || ctx.Err() == nil { // an error that only says that time is up says nothing
			missing = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), missing)
		case <-time.After(every):
		}
	}
}

// A finalError ends polling: waiting longer cannot help.
type finalError struct{ error }

// apiReady waits until the API server is ready and, with a controller manager, that works too. dir is the cluster's,
// where programs that ended leave a note.
func apiReady(ctx context.Context, client *kubernetes.Clientset, dir string, controllerManager bool) error {
	return poll(ctx, 50*time.Millisecond, func() error {
		if err := programFailure(dir); err != nil {
			return err
		}
		if _, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
			return fmt.Errorf("the API server is not ready: %w; its log is %s", err, filepath.Join(dir, "log", "kube-apiserver.log"))
		}
		if _, err := client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		if !controllerManager {
			return nil
		}
		if _, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return fmt.Errorf("pods cannot be created yet: %w", err)
		}
		return nil
	})
}

// programFailure reports a program that ended twice, or once and for all, with the end of its log: it will not come up any more.
func programFailure(dir string) error {
	var notes []string
	for _, pattern := range []string{"log/*.exits", "node*/log/*.exits"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		notes = append(notes, found...)
	}
	for _, note := range notes {
		if count, err := os.ReadFile(note); err == nil && strings.TrimSpace(string(count)) != "1" {
			log := strings.TrimSuffix(note, ".exits") + ".log"
			name := strings.TrimSuffix(filepath.Base(note), ".exits")
			return &finalError{fmt.Errorf("%s does not stay up; the end of %s:\n%s", name, log, tail(log, 5))}
		}
	}
	return nil
}

func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "  " + err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		all[i] = "  " + line[:min(len(line), 400)]
	}
	return strings.Join(all, "\n")
}

// withoutProxy is the environment for the cluster's programs.
func withoutProxy(environment []string) []string {
	return slices.DeleteFunc(slices.Clone(environment), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return strings.HasSuffix(strings.ToLower(name), "_proxy")
	})
}
