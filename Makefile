# Everything happens in .venv and build/, and only what changed is built again. `make help` lists the targets.

PYTHON ?= python3
# The interpreter itself, also when a virtual environment is active; what is built carries the name of its kind.
PYTHON_EXE := $(shell $(PYTHON) -c 'import sys; print(sys._base_executable)' 2>/dev/null || echo $(PYTHON))
PYTHON_ID := $(shell $(PYTHON_EXE) -c 'import sys, zlib; print("%s%s-%08x" % \
	(sys.implementation.cache_tag, sys.abiflags, zlib.crc32(sys.base_prefix.encode())))' 2>/dev/null || echo unknown)

# Relative to this folder; `make test-all` gives each interpreter one of its own.
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
WITH_VENV := PATH="$(BIN):$$PATH"
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# Warnings are errors where the tests are built; in the package that users build only when asked for, as CI does.
WERROR ?=
WERROR_TESTS := $(or $(WERROR),true)
WERROR_PACKAGE := $(or $(WERROR),false)

# Folders too: their times tell of files that came or went.
find = $(shell find $(1) -name __pycache__ -prune -o $(2) -print 2>/dev/null)
MESON_FILES := meson.build meson_options.txt $(call find,core python tests/c examples,-name meson.build)
TEST_LAYOUT := $(MESON_FILES) $(call find,core tests/c examples,-type d)
PACKAGE_SOURCES := $(MESON_FILES) pyproject.toml README.md LICENSE $(call find,core python,)

PY_FOLDERS := $(wildcard python tests bench examples tools)
C_FILES := $(call find,core python tests examples bench,-name '*.cpp' -print -o -name '*.[ch]')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two installations at once in one environment would meet.
.NOTPARALLEL:
.PHONY: help demo test test-all test-core test-python test-install test-distributed conformance bench leak soak
.PHONY: fuzz storm model sanitize test-fallback
.PHONY: lint style typing format core-root clean

help:
	@echo 'make demo       a hundred producers on eight workers, here and in the standard pool, side by side'
	@echo 'make test       the core (plain, and with address, undefined and thread sanitizers), the installed C library,'
	@echo '                and the Python package'
	@echo 'make conformance'
	@echo '                the tests that CPython has for its ProcessPoolExecutor and Future, against weirpool'
	@echo 'make test-all   make test with each of PYTHONS (python3.11 to python3.14, where they are on PATH)'
	@echo 'make test-distributed'
	@echo '                bounded() over Dask, mpi4py (mpirun), loky and the standard pools: the real engines'
	@echo 'make test-fallback'
	@echo '                the tests that both engines have to pass, on the standard library'"'"'s pool'
	@echo 'make bench      rates, round trips, memory, starting: beside eight other pools; up to half an hour'
	@echo '                (WORKLOAD="noop map", SCALE=0.1, ROUNDS=3; PUBLISH=yes writes docs/performance.md)'
	@echo 'make soak       the tests of races, each SOAK=200 times over its variants, JOBS at a time'
	@echo 'make fuzz       broken workers that write into the shared memory, by scripts of libFuzzer (clang), SECONDS=60'
	@echo 'make storm      everything that may happen to a pool, at once and at random (SECONDS=60, SEED=)'
	@echo 'make model      the models of tests/model with Spin: each holds, and fails without each of its steps'
	@echo 'make sanitize   the C tests under sanitizers, ROUNDS_SANITIZE=5 times, and tests of the extension'
	@echo 'make leak       a million tasks of every kind; fails if the parent or a worker grows'
	@echo 'make lint       ruff, mypy, clang-format, and make typing (make format: apply ruff and clang-format)'
	@echo 'make typing     what mypy and pyright make of a program that uses the installed package'
	@echo 'make core-root  the core and its tests in a Debian root without Python headers (root only, minutes)'
	@echo 'make clean      removes build/ and .venv/'
	@echo
	@echo 'PYTHON=python3.13 chooses the interpreter. WERROR=true or false: are warnings errors?'

# ---- What has to be there ------------------------------------------------------------------------------------------

MADE := $(VENV)/.made-$(PYTHON_ID)
$(MADE):
	@tools/need.sh venv $(PYTHON_EXE) $(VENV)
	@touch $@

# .venv/.has-NAME: the requirements that pyproject.toml gives for NAME are installed.
$(VENV)/.has-%: pyproject.toml tools/requirements.py $(MADE)
	@echo "installing into $(VENV): $$($(BIN)/python tools/requirements.py $* | tr '\n' ' ')"
	@$(BIN)/python tools/requirements.py $* > $@.txt
	@$(PIP) -r $@.txt
	@touch $@

# .venv/.package-*: weirpool itself is installed, from these sources. The stamp has the time at which that
# began, so that what changes meanwhile is built the next time.
PACKAGE := $(VENV)/.package-$(WERROR_PACKAGE)
PACKAGE_BUILD := build/python-$(PYTHON_ID)-$(notdir $(VENV))
$(PACKAGE): $(PACKAGE_SOURCES) $(VENV)/.has-build
	@tools/need.sh compiler
	@tools/need.sh headers $(PYTHON_EXE)
	@echo 'building and installing weirpool'
	@touch $@.started
	@mkdir -p $(PACKAGE_BUILD)
	@$(WITH_VENV) $(PIP) --no-build-isolation --no-deps --force-reinstall \
		--config-settings=build-dir=$(PACKAGE_BUILD) \
		--config-settings=setup-args=-Dwerror=$(WERROR_PACKAGE) .
	@mv $@.started $@

# ---- What a newcomer wants to see ----------------------------------------------------------------------------------

demo: $(PACKAGE) $(VENV)/.has-demo
	@$(BIN)/python -m weirpool demo --compare

# WORKLOAD="noop map": only these (core: the engine alone). SCALE=0.1: a tenth of the items and of the time.
ROUNDS ?= 3
SCALE ?= 1
bench: $(PACKAGE) $(VENV)/.has-bench build/release/build.ninja
	@$(WITH_VENV) ninja -C build/release --quiet bench/core
	@$(BIN)/python -m bench --core build/release/bench/core --rounds $(ROUNDS) --scale $(SCALE) \
		$(addprefix --workload ,$(WORKLOAD)) $(if $(PUBLISH),--publish)

# ---- Tests ---------------------------------------------------------------------------------------------------------

test: test-core test-install test-python

PYTHONS ?= $(foreach minor,11 12 13 14,$(shell python3.$(minor) -c 'import sys; print(sys.executable)' 2>/dev/null))
test-all:
	@MAKE='$(MAKE)' tools/test_all.sh $(PYTHONS)

# A comma inside an argument.
, := ,

# configure,FOLDER,OPTIONS: (again) when a build file changed, or a source came or went
define configure
	@tools/need.sh compiler
	@$(WITH_VENV) meson setup $$(test -f $(1)/build.ninja && echo --reconfigure) $(1) \
		-Dpython=false -Dexamples=false -Dwerror=$(WERROR_TESTS) $(2) > build/setup.log || { cat build/setup.log; exit 1; }
	@touch $(1)/build.ninja
endef

# Meson keeps pickles of the Python that it runs on. Where that was another one it configures again, which builds
# nothing anew.
MESON_OF := build/.meson-of-$(PYTHON_ID)-$(notdir $(VENV))
$(MESON_OF):
	@mkdir -p build
	@rm -f build/.meson-of-*
	@touch $@

build/plain/build.ninja: $(TEST_LAYOUT) $(VENV)/.has-build $(MESON_OF)
	@mkdir -p build
	$(call configure,build/plain,--prefix=$(CURDIR)/build/prefix --libdir=lib)

# As users build it, for measuring.
build/release/build.ninja: $(MESON_FILES) bench/meson.build $(VENV)/.has-build
	@mkdir -p build
	$(call configure,build/release,-Dbench=true -Dtests=false -Dbuildtype=release)

build/sanitize/build.ninja: $(TEST_LAYOUT) $(VENV)/.has-build $(MESON_OF)
	@mkdir -p build
	$(call configure,build/sanitize,-Db_sanitize=address$(,)undefined -Db_lundef=false \
		-Dc_args=-fno-sanitize-recover=undefined)

# It sees one process and one mapping: what it has to say is about tests whose workers are threads.
build/thread/build.ninja: $(TEST_LAYOUT) $(VENV)/.has-build $(MESON_OF)
	@mkdir -p build
	$(call configure,build/thread,-Db_sanitize=thread -Db_lundef=false)

# The thread sanitizer's short form. The long one is part of `make sanitize`.
THREAD_TESTS := gate table park wake

test-core: build/plain/build.ninja build/sanitize/build.ninja build/thread/build.ninja
	$(WITH_VENV) meson test -C build/plain --print-errorlogs
	$(WITH_VENV) meson test -C build/sanitize --print-errorlogs --timeout-multiplier 3
	$(WITH_VENV) meson test -C build/thread --print-errorlogs --timeout-multiplier 3 $(THREAD_TESTS)

# Each C test so often under the sanitizers that see all processes, and under the one for threads; then tests of the
# extension, built with the first two. Nothing that leaks in the interpreter is ours to find here (make leak).
ROUNDS_SANITIZE ?= 5
SANITIZED := build/python-sanitize-$(PYTHON_ID)
SANITIZED_TESTS ?= test_submit.py test_map.py test_payloads.py test_messages.py test_buffers.py test_future.py
sanitize: build/sanitize/build.ninja build/thread/build.ninja $(VENV)/.has-test $(VENV)/.has-build
	$(WITH_VENV) meson test -C build/sanitize --print-errorlogs --timeout-multiplier 10 --repeat $(ROUNDS_SANITIZE)
	$(WITH_VENV) meson test -C build/thread --print-errorlogs --timeout-multiplier 10 --repeat $(ROUNDS_SANITIZE)
	@tools/need.sh headers $(PYTHON_EXE)
	$(WITH_VENV) PYTHON=$(BIN)/python tests/sanitize.sh $(SANITIZED) $(SANITIZED_TESTS)

model: $(MADE)
	@tools/need.sh spin
	@$(BIN)/python tests/model/run.py $(MODEL)

# Scripts that reached something new are kept in build/fuzz/corpus; one that fails is build/fuzz/crash-*, and
# `build/fuzz/tests/fuzz/hostile FILE` plays it again.
build/fuzz/build.ninja: $(MESON_FILES) tests/fuzz/meson.build $(call find,core,-type d) $(VENV)/.has-build
	@tools/need.sh clang
	@mkdir -p build
	@CC=clang $(WITH_VENV) meson setup $$(test -f $@ && echo --reconfigure) build/fuzz \
		-Dpython=false -Dexamples=false -Dtests=false -Dfuzz=true -Db_sanitize=address$(,)undefined -Db_lundef=false \
		-Dc_args='-fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined' > build/setup.log || \
		{ cat build/setup.log; exit 1; }
	@touch $@

SECONDS ?= 60
fuzz: build/fuzz/build.ninja
	$(WITH_VENV) ninja -C build/fuzz --quiet tests/fuzz/hostile
	@mkdir -p build/fuzz/corpus
	build/fuzz/tests/fuzz/hostile -max_total_time=$(SECONDS) -max_len=2048 -len_control=20 -timeout=30 \
		-artifact_prefix=build/fuzz/ -print_final_stats=1 build/fuzz/corpus

test-install: build/plain/build.ninja
	@tools/need.sh libcrypto
	$(WITH_VENV) tests/install/run.sh build/plain build/prefix

# The interpreter's checks, and warnings as errors, also in the workers: these flags are handed on. Workers are forked
# while producers run, as users do it.
STRICT := -X dev -W error -W 'ignore:This process:DeprecationWarning'

# The same for pytest's own processes, where several run tests: TEST_JOBS at a time.
STRICT_ENV := PYTHONDEVMODE=1 PYTHONWARNINGS='error,ignore:This process:DeprecationWarning'
TEST_JOBS ?= 2

test-python: $(PACKAGE) $(VENV)/.has-test $(VENV)/.has-demo
	$(STRICT_ENV) $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal

# All that the fall-back has to pass; a part of it is in `make test`.
test-fallback: $(PACKAGE) $(VENV)/.has-test $(VENV)/.has-demo
	WEIRPOOL_FALLBACK=all $(BIN)/python $(STRICT) -m pytest tests/python/test_fallback.py

# Other people's engines: what they warn of is theirs, so warnings are no errors here. Not part of `make test`.
test-distributed: $(PACKAGE) $(VENV)/.has-distributed
	$(WITH_VENV) $(BIN)/python -X dev -m pytest -W default tests/distributed

# Several at a time, as more than the cores can run at once: that is when races show.
SOAK ?= 200
JOBS ?= $(shell echo $$((2 * $$(nproc))))
soak: $(PACKAGE) $(VENV)/.has-test
	WEIRPOOL_SOAK=$(SOAK) $(STRICT_ENV) $(BIN)/python -m pytest -m race -n $(JOBS) -q

SEED :=
storm: $(PACKAGE) $(VENV)/.has-test
	@$(BIN)/python $(STRICT) tests/storm --seconds $(SECONDS) $(addprefix --seed ,$(SEED))

LEAK_TASKS ?= 1000000
leak: $(PACKAGE) $(VENV)/.has-test
	$(BIN)/python $(STRICT) tests/python/leak.py --tasks $(LEAK_TASKS)

# CPython's own tests of ProcessPoolExecutor and Future. BOUND=128: against a bounded pool. METHODS=fork: fewer start
# methods.
SUITE := build/conformance/suite-$(PYTHON_ID)
conformance: $(PACKAGE)
	@tools/need.sh suite $(PYTHON_EXE) $(SUITE)
	@$(BIN)/python tests/conformance/run.py --suite $(SUITE)/test $(if $(BOUND),--bound $(BOUND)) \
		$(if $(METHODS),--methods $(METHODS))

core-root:
	@tools/need.sh debootstrap
	tests/core_root.sh build/core-root

# ---- Style ---------------------------------------------------------------------------------------------------------

lint: style typing

style: $(VENV)/.has-lint $(VENV)/.has-demo
	$(BIN)/ruff check $(PY_FOLDERS)
	$(BIN)/ruff format --check $(PY_FOLDERS)
	$(BIN)/mypy
	@echo clang-format --dry-run
	@$(BIN)/clang-format --dry-run --Werror $(C_FILES)

# The installed package, as a user's type checker sees it; and the stub of the extension beside the extension.
typing: $(PACKAGE) $(VENV)/.has-lint
	$(BIN)/mypy --config-file tests/typing/mypy.ini tests/typing/user.py
	$(BIN)/pyright --project tests/typing --pythonpath $(BIN)/python
	$(BIN)/python -m mypy.stubtest weirpool._core

format: $(VENV)/.has-lint
	$(BIN)/ruff check --fix $(PY_FOLDERS)
	$(BIN)/ruff format $(PY_FOLDERS)
	$(BIN)/clang-format -i $(C_FILES)

clean:
	rm -rf build $(VENV)
