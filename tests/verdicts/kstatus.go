package main

import (
	"encoding/json"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status" // the fork that is in Flux and in Helm 4
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func kstatus(raw json.RawMessage) (verdict, error) {
	object := &unstructured.Unstructured{}
	// Not a plain decoder: that makes `generation` a float, which kstatus refuses.
	if err := object.UnmarshalJSON(raw); err != nil {
		return verdict{}, err
	}
	result, err := status.Compute(object)
	if err != nil {
		return verdict{}, err
	}
	return verdict{Status: result.Status.String(), Message: result.Message}, nil
}
