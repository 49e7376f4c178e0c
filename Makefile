SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

GO      ?= go
TOOL    := $(GO) tool -modfile=tools.mod
TOOLS   := $(CURDIR)/.tools
COUNTS  := $(TOOLS)/counts
PACKS   := policies/packs examples/adapted-pack/packs examples/confinement-pack/packs
TIMEOUT ?= 20m
TESTS   ?= ./...
ARGS    ?=

# Tests look for redis-server in $WRIT_REDIS_SERVER, then in PATH.
export PATH := $(PATH):$(TOOLS)

# The race detector needs a C compiler, and nothing else does: all that is built without it is built once, as it is
# released. deps may install a compiler: look when a recipe runs.
export CGO_ENABLED = 0
HAVE_CC  = command -v "$${CC:-gcc}" >/dev/null
SET_RACE = race=-race; $(HAVE_CC) && export CGO_ENABLED=1 || race=
# What is built with it sleeps for a second before it ends, each time, or as long as this says.
export GORACE ?= atexit_sleep_ms=50

# What cannot be run here is said where it is missed, and kept for .ci/run, which says it once more at its end.
MISSED := $(TOOLS)/not-run
missed = { mkdir -p $(TOOLS); echo "NOT RUN: $(1)" | tee -a $(MISSED); }

# Tests of the jail fail where none can start, unless they are left out by name.
SAY_JAIL = [ "$$WRIT_TEST_JAIL" != off ] || $(call missed,tests of the jail (WRIT_TEST_JAIL=off))

APT = apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends

# Runs go test with the flags in $(1), prints one line per package, keeps the counts as $(2), or as go.
gotest = set -o pipefail; $(SET_RACE); \
	$(GO) test -json $$race -vet=off -count=1 -p 2 $(1) | $(TOOLS)/testcount -counts $(COUNTS)/$(or $(2),go)
# Packages that plan, judge, or check files, on one goroutine: they start none, and of their tests only SHARED do, which are
# run with the race detector by themselves. And e2e, which only calls: the gateways it puts under load are built with the
# race detector all the same (RACED_GATEWAYS).
PURE   = agents|approvals|budgets|bundles|effects|grants|keys|policies|policies/author|queue|quotas|receipts|receipts/pack|registry|roles|roster|runs|secrets|workflow|e2e
SHARED = TestMemoIsShared|TestDecideWhileReloading|TestCreationRaces|TestSignaturesAreBounded
# Tests of other packages that do much on one goroutine each: the race detector has nothing to find, and takes long.
ALONE  = TestRepair|TestNobodyJudgesTheirOwnWork|TestTheCheckerNotices
# The same without the race detector, for tests it has no place in; counted as $(2).
plaintest = set -o pipefail; \
	$(GO) test -json -vet=off -count=1 $(1) | $(TOOLS)/testcount -counts $(COUNTS)/$(2)

.PHONY: help
help: ## Show this help
	@echo "writ: a policy-as-code governance gateway for agents"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

.PHONY: run
run: build ## Run the demo, with its data in ./.writ (ARGS="..." for more flags)
	@exec bin/writ demo --data ./.writ $(ARGS)

.PHONY: build
build: ## Build bin/writ
	@echo "build: bin/writ"
	@mkdir -p bin
	@$(GO) build -trimpath -o bin/writ ./cmd/writ

.PHONY: test
test: deps others-ahead check regal others ## Install what the tests need, then check everything
	@$(SAY_JAIL)

.PHONY: check
check: gofumpt vet staticcheck opa-check opa-fmt opa-test author go-test shared-test pure-test alone-test ## Format, vet, lint, policies and tests, with the race detector
	@$(HAVE_CC) || $(call missed,the race detector: there is no C compiler (gcc))
	@$(SAY_JAIL)

.PHONY: deps
deps: deps-redis deps-gcc deps-openssl deps-agents deps-runsc ## Find redis-server, gcc, openssl, runsc and what agents use, or install them

# Debian's redis-tools carries the server's binary under another name and starts no service.
.PHONY: deps-redis
deps-redis:
	@mkdir -p $(TOOLS)
	@set -e; found="$${WRIT_REDIS_SERVER:-$$(command -v redis-server || true)}"; \
	if [ -z "$$found" ] && [ ! -x /usr/bin/redis-check-rdb ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "deps: installing redis-tools with apt-get"; \
	  { $(APT) redis-tools; } >/dev/null; \
	fi; \
	if [ -z "$$found" ] && [ -x /usr/bin/redis-check-rdb ]; then \
	  ln -sf /usr/bin/redis-check-rdb $(TOOLS)/redis-server; \
	  found=$(TOOLS)/redis-server; \
	fi; \
	version="$$("$$found" --version 2>/dev/null | grep 'Redis server v=' | cut -d' ' -f1-3 || true)"; \
	if [ -z "$$version" ]; then \
	  echo "deps: no redis-server$${found:+ ($$found is none)}; run this, or set WRIT_REDIS_SERVER to its path:"; \
	  echo "  sudo apt-get install -y --no-install-recommends redis-tools && ln -sf /usr/bin/redis-check-rdb .tools/redis-server"; \
	  exit 1; \
	fi; \
	echo "deps: $$version at $$found"

.PHONY: deps-gcc
deps-gcc:
	@set -e; \
	if ! $(HAVE_CC) && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "deps: installing gcc with apt-get"; \
	  { $(APT) gcc libc6-dev; } >/dev/null; \
	fi; \
	if $(HAVE_CC); then \
	  echo "deps: a C compiler for the race detector"; \
	else \
	  echo "deps: no gcc: the tests run without the race detector; to have it:"; \
	  echo "  sudo apt-get install -y --no-install-recommends gcc libc6-dev"; \
	fi

# The front page's commands are run as they are printed, and one of them makes a key.
.PHONY: deps-openssl
deps-openssl:
	@set -e; \
	if ! command -v openssl >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "deps: installing openssl with apt-get"; \
	  { $(APT) openssl; } >/dev/null; \
	fi; \
	if ! command -v openssl >/dev/null; then \
	  echo "deps: no openssl; run this:"; \
	  echo "  sudo apt-get install -y --no-install-recommends openssl"; \
	  exit 1; \
	fi; \
	echo "deps: $$(openssl version | cut -d' ' -f1-2)"

# Jails with a kernel of their own are root's to make, and tested as root.
.PHONY: deps-runsc
deps-runsc:
	@set -e; \
	if ! command -v runsc >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "deps: installing runsc with apt-get"; \
	  { $(APT) runsc; } >/dev/null; \
	fi; \
	if ! command -v runsc >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "deps: no runsc; run this, or see https://gvisor.dev/docs/user_guide/install:"; \
	  echo "  sudo apt-get install -y --no-install-recommends runsc"; \
	  exit 1; \
	fi; \
	echo "deps: $$(runsc --version 2>/dev/null | head -1 | grep . || echo 'runsc is for root')"

# Programs that must work in a jail, which its battery runs there.
AGENTS = curl git node python3
.PHONY: deps-agents
deps-agents:
	@set -e; \
	missing() { for p in $(AGENTS); do [ -x /usr/bin/$$p ] || echo $$p; done | sed s/^node$$/nodejs/; }; \
	if [ -n "$$(missing)" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "deps: installing $$(echo $$(missing)) with apt-get"; \
	  { $(APT) $$(missing); } >/dev/null; \
	fi; \
	if [ -n "$$(missing)" ]; then \
	  echo "deps: what agents use is missing from /usr/bin; run this:"; \
	  echo "  sudo apt-get install -y --no-install-recommends $$(echo $$(missing))"; \
	  exit 1; \
	fi; \
	echo "deps: $(AGENTS)"

.PHONY: deps-node
deps-node:
	@set -e; \
	if ! command -v npm >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "deps: installing nodejs and npm with apt-get"; \
	  { $(APT) nodejs npm; } >/dev/null; \
	fi; \
	if ! command -v npm >/dev/null; then \
	  echo "deps: no node; run this:"; \
	  echo "  sudo apt-get install -y --no-install-recommends nodejs npm"; \
	  exit 1; \
	fi; \
	echo "deps: node $$(node --version)"

.PHONY: gofumpt
gofumpt:
	@echo "gofumpt: every Go file is formatted"
	@diff="$$($(TOOL) gofumpt -l .)" || exit 1; if [ -n "$$diff" ]; then echo "not formatted:"; echo "$$diff"; exit 1; fi

.PHONY: vet
vet:
	@echo "go vet, and for a machine that is no Linux"
	@$(GO) vet ./...
	@GOOS=darwin CGO_ENABLED=0 $(GO) vet ./jail ./internal/daemon ./cmd/writ ./bench

.PHONY: staticcheck
staticcheck:
	@echo "staticcheck"
	@$(TOOL) staticcheck ./...

.PHONY: opa-check
opa-check:
	@echo "opa check: the policy packs compile in strict mode"
	@$(TOOL) opa check --strict --ignore vendor $(PACKS) policies/policytest

.PHONY: opa-fmt
opa-fmt:
	@echo "opa fmt: every policy is formatted, but for files that stay as they came"
	@find $(PACKS) policies/policytest -name '*.rego' -not -path '*/vendor/*' | xargs $(TOOL) opa fmt --fail -l

.PHONY: opa-test
opa-test: testcount
	@echo "opa test: the policies' own tests"
	@set -o pipefail; $(TOOL) opa test --format json $(PACKS) | $(TOOLS)/testcount -opa -counts $(COUNTS)/opa

# Regal has a module of its own, because it wants another OPA. Where it cannot be had nothing fails.
.PHONY: regal
regal: ## Lint the policies with Regal, when it can be had
	@if ! $(GO) -C tools/regal build -o $(TOOLS)/regal github.com/open-policy-agent/regal 2>/dev/null; then \
	  $(call missed,Regal: it cannot be built here); exit 0; \
	fi; \
	echo "regal: the policies, with the configuration authors start from"; \
	$(TOOLS)/regal lint --config-file policies/author/scaffold/regal.yaml $(PACKS)

.PHONY: author
author: ## Check, lint and test the policies as their authors do
	@echo "writ policy: check, lint and test"
	@$(GO) run ./cmd/writ policy check policies && $(GO) run ./cmd/writ policy lint policies && $(GO) run ./cmd/writ policy test policies

.PHONY: go-test
go-test: testcount
	@$(SET_RACE); echo "go test$${race:+ $$race}: $(TESTS)"
ifeq ($(TESTS),./...)
	@$(call gotest,-timeout $(TIMEOUT) -skip '^($(ALONE))$$' $$($(GO) list ./... | grep -v -x -E '.*/writ/($(PURE))'))
else
	@$(call gotest,-timeout $(TIMEOUT) $(TESTS))
endif

.PHONY: shared-test
shared-test: testcount
	@$(SET_RACE); echo "go test$${race:+ $$race}: what many goroutines share in packages that otherwise have one"
	@$(call gotest,-timeout $(TIMEOUT) -run '^($(SHARED))$$' ./policies ./receipts,shared)

.PHONY: pure-test
pure-test: testcount
	@echo "go test: what has one goroutine, so that the race detector has nothing to find, and e2e"
	@$(HAVE_CC) && export RACED_GATEWAYS=1; $(call plaintest,-p 2 -timeout $(TIMEOUT) $$($(GO) list ./... | grep -x -E '.*/writ/($(PURE))'),pure)

.PHONY: alone-test
alone-test: testcount
	@echo "go test: repair of every damage, and histories of people who judge their own work"
	@$(call plaintest,-p 2 -run '^($(ALONE))$$' . ./internal/daemon,alone)

.PHONY: testcount
testcount:
	@mkdir -p $(COUNTS)
	@$(GO) build -o $(TOOLS)/testcount ./internal/tools/testcount

.PHONY: soak
soak: testcount ## Run the tests with the long ones at full length (TESTS=./some/package)
	@echo "soak: go test with WRIT_SOAK=1, an hour at most per package"
	@export WRIT_SOAK=1; $(call gotest,-timeout 60m $(TESTS))
	@export WRIT_SOAK=1; $(call plaintest,-timeout 120m -run '^TestNobodyJudgesTheirOwnWork$$' .,verdicts)

# Programs of others that auditors use. Cosign is stock, from its own source, and large: without the compiler's optimizations
# it takes two and a half minutes of two cores instead of seven. It is kept where every working copy finds it, under its version.
COSIGN := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/writ/cosign-v3.1.3
BROWSER = $(shell command -v chromium || command -v google-chrome)

.PHONY: conformance
conformance: deps-browser others ## Check receipts and log with cosign, @sigstore/verify, Tessera's fsck, Rekor's own code and a browser

.PHONY: deps-browser
deps-browser:
	@set -e; \
	if [ -z "$(BROWSER)" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "deps: installing chromium with apt-get"; \
	  { $(APT) chromium; } >/dev/null; \
	fi; \
	if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then \
	  echo "deps: no browser; run this:"; \
	  echo "  sudo apt-get install -y --no-install-recommends chromium"; \
	  exit 1; \
	fi

$(COSIGN):
	@echo "conformance: building cosign once, which takes minutes"
	@mkdir -p $(@D)
	@new=$@.$$$$; $(GO) -C conformance/cosign build -gcflags=all='-N -l' -ldflags=-s -o $$new github.com/sigstore/cosign/v3/cmd/cosign && mv $$new $@ # other working copies may build it too

.PHONY: others-deps
others-deps: deps-node $(COSIGN)
	@$(MAKE) deps-browser || true # what is missed without one is said below

# Made ready beside the tests, from what they leave idle; whoever needs it waits for the lock, and makes what is missing.
.PHONY: others-ahead
others-ahead:
	@mkdir -p $(TOOLS); flock $(TOOLS)/others.lock nice -n 19 $(MAKE) others-deps others-built </dev/null >$(TOOLS)/others.log 2>&1 &

.PHONY: others-built
others-built:
	@$(GO) -C conformance build -o $(TOOLS)/fsck-v1.0.4 github.com/transparency-dev/tessera/cmd/fsck
	@$(GO) -C conformance vet .

.PHONY: others
others: testcount
	@mkdir -p $(TOOLS); flock $(TOOLS)/others.lock $(MAKE) others-deps others-built
	@cd conformance && npm ci --silent --no-audit --no-fund --ignore-scripts
	@set -o pipefail; skip='^$$'; browser=$$(command -v chromium || command -v google-chrome || true); \
	if [ -z "$$browser" ]; then skip='^TestThePageInABrowser$$'; $(call missed,the verifier in a browser: there is none, see above); fi; \
	cd conformance && COSIGN_PROGRAM=$(COSIGN) CHROMIUM_PROGRAM=$$browser $(GO) test -json -count=1 -timeout 10m -skip "$$skip" . | $(TOOLS)/testcount -counts $(COUNTS)/others

.PHONY: bench
bench: deps-redis ## Measure against the targets, about eight minutes (ARGS="-quick", "-only receipts -long" or "-only path")
	@$(GO) run ./bench $(ARGS)

.PHONY: generate
generate: ## Rewrite the generated files: openapi.yaml and the tests' golden files
	@echo "generate: openapi/openapi.yaml"
	@mkdir -p openapi $(TOOLS)
	@$(GO) run ./cmd/writ openapi > $(TOOLS)/openapi.yaml
	@mv $(TOOLS)/openapi.yaml openapi/openapi.yaml
	@set -e; for dir in $$(grep -rl --include='*_test.go' 'flag.Bool("update"' . | xargs -r -n1 dirname | sort -u); do \
	  echo "generate: $$dir -update"; \
	  $(GO) test -count=1 "$$dir" -update; \
	done

.PHONY: clean
clean: ## Remove what was built (not the data in ./.writ)
	@rm -rf bin $(COUNTS) $(TOOLS)/testcount $(MISSED)
