package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A program is one process that a supervisor keeps running.
type program struct {
	name       string // also its argv[0], which makes this binary be that program
	log        string // name of its log file, if not its own name
	path       string // empty for this binary
	args       []string
	dir        string
	cloneflags uintptr
	once       bool // it is not started again when it ends

	pid     int
	stopped bool // on purpose: it is not started again
	exits   int
	restart <-chan time.Time
}

// A supervisor is the parent of the programs. When it dies, by whatever cause, the kernel kills them.
//
// It is used from the main goroutine only, see init in main.go.
type supervisor struct {
	logDir   string
	failFast bool // end when a program ends, instead of starting it again after a second
	programs []*program
	signals  chan os.Signal
	do       chan func() error // run by the supervisor, on its goroutine
}

func newSupervisor(logDir string) *supervisor {
	s := &supervisor{logDir: logDir, signals: make(chan os.Signal, 64), do: make(chan func() error)}
	signal.Notify(s.signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	return s
}

func (s *supervisor) start(p *program) error {
	if !slices.Contains(s.programs, p) {
		s.programs = append(s.programs, p)
	}
	if p.log == "" {
		p.log = p.name
	}
	log, err := os.OpenFile(filepath.Join(s.logDir, p.log+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	path := p.path
	if path == "" {
		path = "/proc/self/exe" // and not its name: a mount may hide that in a node
	}
	// syscall.ForkExec and not os/exec: as first process of its namespace the supervisor must wait for any process
	// that ends, which would take the exits away from under os/exec.
	pid, err := syscall.ForkExec(path, append([]string{p.name}, p.args...), &syscall.ProcAttr{
		Dir:   p.dir,
		Env:   withoutProxy(os.Environ()),
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Cloneflags: p.cloneflags},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.pid, p.stopped, p.restart = pid, false, nil
	return nil
}

// stop kills a program at once: a cluster is thrown away, and kube-apiserver takes over a minute to end politely when
// etcd is gone.
func (s *supervisor) stop(p *program) {
	p.stopped = true
	if p.pid != 0 {
		_ = unix.Kill(p.pid, unix.SIGKILL)
	}
}

// reap collects all processes that have ended, orphans included, and reports the first program that should not have.
func (s *supervisor) reap() error {
	var failed error
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if pid <= 0 {
			return failed
		}
		for _, p := range s.programs {
			if p.pid != pid {
				continue
			}
			p.pid = 0
			if p.stopped {
				continue
			}
			p.exits++
			fmt.Printf("%s ended (status %#x), %d time(s)\n", p.name, int(status), p.exits)
			// `up` reads these to fail early instead of waiting for something that cannot come.
			exits := fmt.Sprint(p.exits)
			if p.once {
				exits = "final"
			} else {
				p.restart = time.After(time.Second)
			}
			_ = os.WriteFile(filepath.Join(s.logDir, p.log+".exits"), []byte(exits), 0o600)
			if failed == nil {
				failed = fmt.Errorf("%s ended (status %#x)", p.name, int(status))
			}
		}
	}
}

// run keeps the programs alive until a signal to end, until one of `end` is readable, or, with failFast, until a
// program ends. onSignal gets SIGUSR1 and SIGUSR2.
func (s *supervisor) run(end <-chan string, onSignal func(os.Signal) error) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.reap(); err != nil && s.failFast {
			s.stopAll()
			return err
		}
		for _, p := range s.programs {
			select {
			case <-p.restart:
				if err := s.start(p); err != nil {
					return err
				}
			default:
			}
		}
		select {
		case <-tick.C:
		case do := <-s.do:
			if err := do(); err != nil {
				return err
			}
		case why := <-end:
			fmt.Fprintln(os.Stderr, "cluster:", why)
			s.stopAll()
			return nil
		case sig := <-s.signals:
			switch sig {
			case unix.SIGCHLD:
			case unix.SIGUSR1, unix.SIGUSR2:
				if onSignal != nil {
					if err := onSignal(sig); err != nil {
						return err
					}
				}
			default:
				s.stopAll()
				return nil
			}
		}
	}
}

// stopAll kills the programs and waits until they are gone, a few seconds at most.
func (s *supervisor) stopAll() {
	for _, p := range s.programs {
		s.stop(p)
	}
	for range 100 {
		_ = s.reap()
		if !slices.ContainsFunc(s.programs, func(p *program) bool { return p.pid != 0 }) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// endOfInput reports when the process that started this one is gone: its pipe to our standard input closes, or it is
// no longer our parent. A terminal or /dev/null says nothing. PR_SET_PDEATHSIG would not do: it fires when the
// *thread* that started us ends, which in a test runner happens long before its process does.
func endOfInput() chan string {
	end := make(chan string, 3)
	parent := os.Getppid()
	go func() {
		for os.Getppid() == parent {
			time.Sleep(200 * time.Millisecond)
		}
		end <- "the process that started this API server is gone: it ends too"
	}()
	if info, err := os.Stdin.Stat(); err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0 {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			end <- "standard input was closed: the API server ends"
		}()
	}
	return end
}
