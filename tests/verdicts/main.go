// verdicts says what GitOps clients think of custom resources, with their own code:
//
//	verdicts kstatus          Flux, Helm 4 and kubectl-like waiters: kstatus
//	verdicts argo HEALTH.LUA  Argo CD, with a health script, in the VM that it runs such scripts in
//
// Standard input is a JSON array of objects, standard output one of {"status": …, "message": …}, in the same order. A
// script that fails, or says what Argo CD doesn't know, ends the program with 1 and a sentence.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "verdicts:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var judge func(json.RawMessage) (verdict, error)
	switch {
	case len(args) == 1 && args[0] == "kstatus":
		judge = kstatus
	case len(args) == 2 && args[0] == "argo":
		script, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		judge = func(object json.RawMessage) (verdict, error) { return argo(string(script), object) }
	default:
		return fmt.Errorf("say `kstatus`, or `argo HEALTH.LUA`")
	}
	var objects []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		return fmt.Errorf("standard input is not a JSON array: %w", err)
	}
	verdicts := make([]verdict, 0, len(objects))
	for number, object := range objects {
		said, err := judge(object)
		if err != nil {
			return fmt.Errorf("object %d: %w", number, err)
		}
		verdicts = append(verdicts, said)
	}
	return json.NewEncoder(os.Stdout).Encode(verdicts)
}
