# Set VOICEDOCK_CACHE to keep tools elsewhere than in ~/.cache/voicedock; set KUBECONFIG to test on a cluster of your own.

.DEFAULT_GOAL := help
.PHONY: help check test fuzz bench-api bench-calls bench-control explore demo demo-down tools image docs sbom reproducible release crds chart-docs clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

check: ## Format, lints, generated files, licences, chart, scripts
	@hack/check.sh

test: ## All tests, with a real API server and a two-node cluster
	@hack/test.sh

fuzz: ## Fuzz the parser, the front door and the whole machine, a minute each; ARGS="machine FILE" plays an input again
	@hack/fuzz.sh $(ARGS)

bench-api: ## Figures of the REST API and of tool calls; ARGS="reads" for a part of them
	@hack/bench-api.sh $(ARGS)

bench-calls: ## Figures of calls, beside Kamailio; ARGS="plain kamailio" for parts of them
	@hack/bench-calls.sh $(ARGS)

bench-control: ## Figures of the control plane; ARGS="change --numbers 1000" for a part of them
	@hack/bench-control.sh $(ARGS)

explore: ## Try the protocol of the tables on every order of events, with combinations of mishaps (half an hour)
	@VOICEDOCK_EXPLORE=1 cargo test --locked --release --lib routing::protocol -- --nocapture --test-threads=2

demo: ## Bring up a cluster and show four calls; with OPENAI_API_KEY, OPENAI_PROJECT_ID, OPENAI_WEBHOOK_SECRET a model answers
	@hack/demo.sh

demo-down: ## Remove all that the demo brought up
	@hack/demo.sh down

tools: ## Install what the targets above need
	@hack/tools.sh all

image: ## Build the image: target/image/voicedock.tar
	@hack/image.sh

docs: ## Build the book, and follow its links: target/book/index.html
	@hack/docs.sh

sbom: ## Say what is in the binary, as CycloneDX: target/sbom/voicedock.cdx.json
	@hack/sbom.sh

reproducible: ## Build the image twice, in two directories, and compare; ARGS="ARCHIVE": once, and compare with that one
	@hack/reproducible.sh $(ARGS)

release: ## Build for all platforms and push image and charts; ARGS="REGISTRY VERSION"
	@hack/release.sh $(ARGS)

crds: ## Write crds/, the charts' copies of it and docs/reference/ from the types
	@for directory in crds charts/voicedock/files/crds charts/voicedock-crds/files/crds; do cargo run --quiet --locked --bin voicedock -- crds --out $$directory || exit 1; done
	@cargo run --quiet --locked --bin voicedock -- crds --format markdown --out docs/reference

chart-docs: ## Write the charts' README.md from their values.yaml
	@hack/tools.sh chart
	@PATH="$${VOICEDOCK_CACHE:-$$HOME/.cache/voicedock}/bin:$$PATH" helm-docs --chart-search-root charts --sort-values-order file --log-level warning

clean: ## Remove clusters and build results (the cached tools stay)
	@for state in target/cluster/*/; do [ ! -d "$$state" ] || hack/cluster.sh down --name "$$(basename "$$state")" || exit 1; done
	@rm -rf target
