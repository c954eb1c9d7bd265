# SPDX-License-Identifier: Apache-2.0
# The front door. `make` builds without root; `make demo` and `make test` are the two commands of the README.
BUILD := build
ASAN  := build-asan
T     ?= 60

.PHONY: all deps demo test lab lab-down fuzz bench-gate bench-front lint format clean install help

all: deps $(BUILD)/build.ninja
	@ninja --quiet -C $(BUILD)

deps:
	@scripts/deps.sh build

$(BUILD)/build.ninja:
	@meson setup $(BUILD) >/dev/null

$(ASAN)/build.ninja:
	@meson setup $(ASAN) -Db_sanitize=address,undefined -Db_lundef=false >/dev/null

demo: ## three acts and the claims; writes build/demo/report.json
	@scripts/deps.sh test
	@started=$$(date +%s) && $(MAKE) --no-print-directory all && WALNUT_STARTED=$$started lab/demo

test: ## unit tests under ASan and UBSan, each fuzz target for some seconds, then the network tests in namespaces
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory all $(ASAN)/build.ninja
	@ninja --quiet -C $(ASAN)
	@python3 tests/run.py --unit $(ASAN) --fuzz 5 --net $(BUILD)

lab: ## the topology, left up
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory all
	@lab/lab up --keep

lab-down:
	@lab/lab down --all

fuzz: ## every fuzz target for T seconds, then a million random frames through the gate in the kernel
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory all
	@tests/fuzz/run.sh $(T)
	@tests/fuzz/walk.sh $(BUILD)

bench-gate: ## the gate's figures beside its peers; writes build/bench/gate.json. QUICK=1: three rounds of the programs alone, no file; ONLY=miss,nat: a part
	@scripts/deps.sh bench-gate
	@$(MAKE) --no-print-directory all
	@ninja --quiet -C $(BUILD) bench/gate/gate-micro bench/gate/gate-flows bench/gate/gate-others bench/gate/bare.bpf.o
	@bench/gate/run --build $(BUILD) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(RUNS),--runs $(RUNS))

bench-front: ## the front's figures beside Kamailio and bare loops; writes build/bench/front.json. QUICK=1: three rounds of the short parts, no file; ONLY=calls,auth: a part
	@scripts/deps.sh bench-front
	@$(MAKE) --no-print-directory all
	@ninja --quiet -C $(BUILD) bench/front/front-load bench/front/front-bare bench/front/front-users bench/front/front-micro bench/gate/gate-others
	@bench/front/run --build $(BUILD) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(RUNS),--runs $(RUNS))

lint: ## compiled by clang too, clang-format, clang-tidy, cppcheck
	@scripts/deps.sh lint
	@scripts/lint.sh

format:
	@git ls-files 'src/*.[ch]' 'lab/*.[ch]' 'bench/*.[ch]' 'tests/*.[ch]' | xargs clang-format -i

install: all
	@meson install -C $(BUILD)

clean:
	@rm -rf $(BUILD) $(ASAN) build-clang build-fuzz

help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/'
