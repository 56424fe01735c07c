# One door for everything that is done with the tree. Nothing here writes outside of it, but for `make deps`.
#
#   make demo        a whole datacenter on loopback (ARGS="--for 10" and so on go to the command)
#   make test        all checks and the fast tests; with CI=true the slow ones too
#   make test-slow   the slow tests and those with real processes (ARGS=tests/FILE: those of a file)
#   make test-hosts  the playbooks and units on real hosts, booted here (as root; ARGS as above)
#   make test-pythons  the fast tests on each Python from 3.10 to 3.13 that is here (PYTHONS="..." for others)
#   make lint        ruff and mypy alone; lint-ansible: the playbooks and the role
#   make bench       the figures; bench-full: the long ones
#   make deps        system packages that some tests need (apt, as root); without them those tests are skipped
#   make pins        move the pinned dependencies to the newest versions
#   make wheelhouse  dist/wheelhouse: what hosts without a network install from (WHEELS_FOR="3.11 3.12": for those;
#                    EXTRAS=postgres: with what a root needs to keep its history in PostgreSQL)
#   make zipapp      dist/hbagent.pyz: all of it in one file, for hosts with the Python of .venv
#   make deb         dist/hbagent_*.deb: a package for Debian, for hosts with the Python of this one
#   make clean       take away what this file made

# The first of these that is 3.10 or newer and can make a virtual environment.
CANDIDATES = python3 python3.13 python3.12 python3.11 python3.10 python3.14
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)

# The Pythons that hbagent promises to run on, of those that are here: a command, or what pyenv has. A command of pyenv
# may stand for none.
PYTHONS ?= $(foreach version,3.10 3.11 3.12 3.13,$(shell \
	for p in python$(version) $(HOME)/.pyenv/versions/$(version).*/bin/python$(version); do \
	$$p -c 'import venv, ensurepip' 2>/dev/null && echo $$p && break; done))

VENV = .venv
BIN = $(VENV)/bin
# What runs and checks the playbooks asks for a newer Python than hbagent.
CONTROLLER = $(VENV)/controller
HOST_TOOLS = buildah debootstrap ip nft nsenter ssh ssh-keygen systemd-nspawn
ARGS ?=

# Packages without compiled bytecode cost an agent 5 MiB and half of its start time again.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH
unexport PYTHONHOME
# Scratch files of pip, the tests and the demo stay below the tree.
export TMPDIR = $(CURDIR)/$(VENV)/tmp
export PIP_NO_CACHE_DIR = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1
PIP = $(BIN)/python -m pip --quiet --require-virtualenv

# --basetemp and not pytest's own default, for its path is short: a unix socket's path ends at 107 bytes.
PYTEST = $(BIN)/python -m pytest --basetemp $(VENV)/t
# A worker for each processor: each reads all tests, which is 5 s of its time.
PARALLEL = --numprocesses logical --maxprocesses 4 --dist worksteal
COMPUTING = (slow or hypothesis) and not (alone or paired)
# On few processors, too: for half of its time a fast test waits.
AT_ONCE = --numprocesses 4 --dist worksteal
# A file that ARGS names may have tests of one kind alone: 5 says that there was none.
NONE_WILL_DO = $(if $(strip $(ARGS)),|| test $$? = 5)

.DEFAULT_GOAL = help
# Tests that measure time do not share the machine with the type checker.
.NOTPARALLEL:
.PHONY: help demo test test-fast test-slow test-pythons test-hosts lint bench bench-full deps pins wheelhouse zipapp deb clean moved

help:
	@sed -n 's/^#  //p' Makefile

demo: $(VENV)/installed
	@$(BIN)/hbagent demo $(ARGS)

test: lint test-fast
ifeq ($(CI),true)
test: test-slow
endif

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A collection is found by its place below ansible_collections, and by nothing else.
lint-ansible: $(CONTROLLER)/installed
	@mkdir -p $(CONTROLLER)/collections/ansible_collections/hbagent
	@ln -sfn $(CURDIR)/ansible $(CONTROLLER)/collections/ansible_collections/hbagent/hbagent
	cd ansible && PATH=$(CURDIR)/$(CONTROLLER)/bin:$$PATH \
		ANSIBLE_COLLECTIONS_PATH=$(CURDIR)/$(CONTROLLER)/collections ansible-lint --strict --nocolor

test-fast: $(VENV)/installed
	$(PYTEST) $(AT_ONCE) $(ARGS)

# First what computes, as much at once as there are processors; then what mostly waits for its own processes, two files
# at a time; then what measures time, and has the machine for itself. All three, also when one of them fails.
test-slow: $(VENV)/installed
	failed=0; \
	HBAGENT_EXAMPLES=all $(PYTEST) $(PARALLEL) -m "$(COMPUTING)" $(ARGS) $(NONE_WILL_DO) || failed=1; \
	$(PYTEST) --numprocesses 2 --dist loadfile -m paired $(ARGS) $(NONE_WILL_DO) || failed=1; \
	$(PYTEST) -m alone $(ARGS) $(NONE_WILL_DO) || failed=1; \
	exit $$failed

test-pythons:
	@test -n "$(strip $(PYTHONS))" || { echo "make: none of the Pythons that hbagent runs on is here" >&2; exit 1; }
	@for python in $(PYTHONS); do \
		$(MAKE) --no-print-directory VENV=$(VENV)/$$(basename $$python) PYTHON=$$python test-fast || exit; done

# One datacenter for all of them: about as long as everything that Ansible does to six hosts.
# What is missing fails there: nothing of it is worth a pass without hosts.
test-hosts: lint-ansible $(VENV)/installed
	@missing=; for p in $(HOST_TOOLS); do command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	test -z "$$missing" || { echo "Installing what is missing:$$missing"; $(MAKE) deps; }
	CI=true $(PYTEST) -m hosts $(ARGS) tests/hosts

bench: $(VENV)/installed
	@for name in intake agent root sim; do $(BIN)/hbagent bench $$name $(ARGS) || exit; done
	@$(BIN)/hbagent bench detect --quick $(ARGS)
	@$(BIN)/hbagent bench diagnose --quick $(ARGS)

# Seeds of the simulator for each fault, runs of each fault on real processes, the longest pause of a leader; the tests
# make fewer and shorter ones.
bench-full: $(VENV)/installed
	HBAGENT_SEEDS=1000 HBAGENT_EXAMPLES=all $(PYTEST) $(PARALLEL) -m "$(COMPUTING)" $(ARGS)
	$(PYTEST) -m "(alone or paired) and not e2e" $(ARGS)
	HBAGENT_RUNS=20 HBAGENT_LOSS_SECONDS=60 $(PYTEST) tests/e2e/test_causes.py tests/e2e/test_links.py -m e2e $(ARGS)
	HBAGENT_RUNS=20 $(PYTEST) tests/e2e/test_diagnosis.py tests/e2e/test_health.py -m e2e $(ARGS)
	HBAGENT_RUNS=10 $(PYTEST) tests/e2e/test_root_crashes.py -m e2e $(ARGS)
	HBAGENT_NIGHTLY=1 timeout 600 $(PYTEST) tests/e2e/test_pauses.py -m e2e $(ARGS)
	HBAGENT_NIGHTLY=1 timeout 2400 $(PYTEST) tests/e2e/test_soak.py -m e2e $(ARGS)
	$(BIN)/hbagent bench detect
	$(BIN)/hbagent bench diagnose
	@$(MAKE) bench ARGS=

# gcc builds small libraries that bend a clock or leak a lock, and programs that deadlock, as a JDK does; the rest cuts,
# slows and watches real processes.
deps: TMPDIR = /tmp
deps:
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
		buildah chromium debootstrap default-jdk-headless fonts-dejavu-core gcc iproute2 libc6-dev lintian \
		monitoring-plugins-basic nftables nginx-light openssh-client openssl postgresql procps prometheus \
		prometheus-alertmanager python3-venv systemd systemd-container tmux

pins: $(VENV)/installed
	$(BIN)/python tools/pin.py

# Each host gets the wheels of its own Python, so a wheelhouse may hold those of several: WHEELS_FOR="3.11 3.12".
MACHINE ?= $(shell uname -m)
GLIBCS = manylinux_2_28 manylinux_2_26 manylinux_2_17 manylinux2014 manylinux_2_12 manylinux2010
wheelhouse: WHEELS_FOR ?= $(shell $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wheelhouse: PINNED = constraints.txt $(EXTRAS:%=constraints-%.txt)
wheelhouse: $(VENV)/installed
	rm -rf dist/wheelhouse && mkdir -p dist/wheelhouse
	for python in $(WHEELS_FOR); do $(PIP) download --only-binary :all: --require-hashes $(PINNED:%=-r %) \
		-d dist/wheelhouse --python-version $$python $(GLIBCS:%=--platform %_$(MACHINE)) || exit; done
	$(PIP) wheel --no-deps --no-index --no-build-isolation -w dist/wheelhouse .
	for pins in $(PINNED); do sed '/^-r /d' $$pins >dist/wheelhouse/$$pins || exit; done

zipapp: $(VENV)/installed
	$(BIN)/python -m tools.pyz dist/hbagent.pyz

deb: $(VENV)/installed
	$(BIN)/python -m tools.deb dist

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment holds its own path, and its Python may go away; then it is made again.
HOME_OF_VENV := $(shell test -x $(BIN)/python && cat $(VENV)/made 2>/dev/null)
ifneq ($(HOME_OF_VENV),$(CURDIR))
$(VENV)/made: moved
endif

$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "make: no Python of 3.10 or newer that can make a virtual environment is here" \
		"(on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@rm -rf $(VENV) && mkdir -p $(VENV)/tmp
	@$(PYTHON) -m venv $(VENV)
	@printf '%s\n' "$(CURDIR)" > $@

$(VENV)/pinned: $(VENV)/made constraints.txt constraints-dev.txt
	@echo "Installing what constraints-dev.txt pins"
	@$(PIP) install --only-binary :all: --require-hashes -r constraints-dev.txt
	@touch $@

# Nothing is fetched here: the build backend is among the pins.
$(VENV)/installed: $(VENV)/pinned pyproject.toml hbagent/__init__.py
	@$(PIP) install --no-deps --no-index --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q hbagent
	@touch $@

$(CONTROLLER)/installed: $(VENV)/made constraints-controller.txt
	@echo "Installing what constraints-controller.txt pins"
	@rm -rf $(CONTROLLER) && $(PYTHON) -m venv $(CONTROLLER)
	@$(CONTROLLER)/bin/python -m pip --quiet install --only-binary :all: --require-hashes -r constraints-controller.txt
	@touch $@
