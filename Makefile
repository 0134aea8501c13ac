# Futago: everything that a developer or a CI machine runs. A plain Debian 12 with `make` is enough; `make test` and `make demo` need root, since
# the lab makes networks, mounts and control groups (all of its own, gone afterwards).
#
#   make demo            a whole pair on this machine, with a page to look at; DETACH=1 returns when it is protected
#   make test            everything: check, unit tests, simulation, the lab's real faults
#   make test-long       half an hour of longer stories in the lab
#   make simulate-long   very many simulated schedules with a compiled simulator: SEEDS=100000 SEED=1000000 JOBS=1
#   make check           style, types, floors between the columns; quick, needs no root
#   make bench           figures of the parts;  make bench-failover: outage of each failure;  make bench-jobs: job control;  make bench-intake: messages, and peers; one JSON object a line
#   make faults          every failure pattern in turn, one JSON object a line
#   make clean           remove what make made

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# The environment is that of one lock file: a changed lock means a new environment.
LOCK_HASH := $(shell sha256sum requirements-dev.lock | cut -c1-16)
READY := $(VENV)/ready-$(LOCK_HASH)

APT := DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0
APT_PYTHON := python3 python3-venv
APT_TEST := postgresql-15 libfuse2 mmdebstrap nftables openipmi ipmitool iputils-arping iproute2 ethtool rsyslog rsyslog-relp snmp chromium fonts-ipafont-gothic etcd-server
SUITES := $(wildcard tests/unit tests/contract tests/sim tests/web tests/browser tests/lab)

.PHONY: help
help:
	@sed -n '4,13s/^# //p' Makefile

# --- the environment ---

.PHONY: venv
venv: $(READY)

# Any python3 from 3.11 on that can make environments; the distribution's, installed now, if there is none.
$(READY): | requirements-dev.lock
	@usable() { "$$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
	for python in python3 /usr/bin/python3 python3.13 python3.12 python3.11 ""; do
	    if [ -n "$$python" ] && usable "$$python"; then break; fi
	done
	if [ -z "$$python" ]; then
	    $(MAKE) --no-print-directory apt PACKAGES="$(APT_PYTHON)"
	    python=/usr/bin/python3
	fi
	echo "making $(VENV) with $$($$python --version)"
	rm -rf $(VENV)
	"$$python" -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	touch $@

# Install those of PACKAGES that are missing. No database cluster and no etcd of the distribution's own is made or started.
.PHONY: apt
apt:
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done)
	if [ -n "$$missing" ]; then
	    if [ "$$(id -u)" != 0 ]; then echo "make: these packages are missing: $$missing; run this as root once" >&2; exit 1; fi
	    echo "installing" $$missing
	    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
	        mkdir -p /etc/postgresql-common
	        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
	    fi
	    case " $$missing " in *" etcd-server "*) mkdir -p /etc/systemd/system; ln -sn /dev/null /etc/systemd/system/etcd.service 2>/dev/null || true;; esac
	    $(APT) update >/dev/null
	    $(APT) install -y --no-install-recommends -o Dpkg::Options::=--force-confold $$missing >/dev/null
	fi

# --- what is run ---

.PHONY: check
check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: prepare-test
prepare-test:
	@if [ "$$(id -u)" != 0 ]; then echo "make test needs root: the lab makes networks and mounts of its own" >&2; exit 1; fi
	$(MAKE) --no-print-directory apt PACKAGES="$(APT_TEST)"

.PHONY: unit
unit: $(READY)
	$(BIN)/pytest tests/unit

# One run of pytest over all suites, so that its summary is the last word.
.PHONY: test
test: $(READY) prepare-test check
	$(BIN)/pytest -m "not long" $(SUITES)

# The stories that take minutes each: every kind of third vote and fence, every rung of recovery, the drill.
.PHONY: test-long
test-long: $(READY) prepare-test
	$(BIN)/pytest -m long tests/lab

# Many schedules: SEEDS from SEED on, by JOBS processes, with the simulator compiled (tests/sim/compiled.py) and compared with the source first.
SEEDS ?= 100000
SEED ?= 1000000
JOBS ?= 1
.PHONY: simulate-long
simulate-long: $(READY)
	@$(MAKE) --no-print-directory apt PACKAGES="gcc python3-dev"
	$(BIN)/python tests/sim/compiled.py build/simulator --check 200
	PYTHONPATH=build/simulator $(BIN)/python -m futago simulate --seed $(SEED) --seeds $(SEEDS) --jobs $(JOBS) $(ARGS)

.PHONY: demo
demo: $(READY)
	$(BIN)/futago lab demo $(if $(filter 1 yes true,$(DETACH)),--detach)

.PHONY: bench
bench: $(READY)
	@for bench in $(filter-out tests/bench/failover.py tests/bench/faults.py tests/bench/calm.py tests/bench/intake_switch.py tests/bench/intake_senders.py $(wildcard tests/bench/jobs*.py),$(wildcard tests/bench/*.py)); do
	    $(BIN)/python $$bench
	done

.PHONY: bench-failover
bench-failover: $(READY)
	@$(BIN)/python tests/bench/failover.py $(ARGS)

# The figures of receiving and processing messages, and the peers on the same machine. The last one is a lab with 30 switches;
# SWITCHES=0 leaves it out.
SWITCHES := 30
.PHONY: bench-intake
bench-intake: $(READY)
	@$(BIN)/python tests/bench/intake_receive.py
	$(BIN)/python tests/bench/intake_process.py
	$(BIN)/python tests/bench/intake.py --rate 1000 --seconds 20
	$(BIN)/python tests/bench/intake_rules.py
	$(BIN)/python tests/bench/intake_search.py
	$(BIN)/python tests/bench/intake_peers.py
	if [ "$(SWITCHES)" != 0 ]; then $(BIN)/python tests/bench/intake_switch.py --switches $(SWITCHES); fi

.PHONY: bench-jobs
bench-jobs: $(READY)
	@$(BIN)/python tests/bench/jobs.py $(ARGS)

.PHONY: bench-calm
bench-calm: $(READY)
	@$(BIN)/python tests/bench/calm.py $(ARGS)

.PHONY: faults
faults: $(READY)
	@if [ ! -e tests/bench/faults.py ]; then
	    echo "make faults: the walk through all failure patterns is not built in this version yet" >&2; exit 2
	fi
	$(BIN)/python tests/bench/faults.py $(ARGS)

.PHONY: clean
clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +

.ONESHELL:
