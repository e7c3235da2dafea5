# SPDX-License-Identifier: Apache-2.0
# Each target first installs what it lacks, and says so: packages of Debian or Ubuntu (as root),
# Python packages into .venv, the simulator. Once that is done, no target needs the network.

# The system's own: bcc is made for it, and a Python from elsewhere may lack what a venv needs.
PYTHON = /usr/bin/python3
SHELL_SCRIPTS = $(wildcard .ci/run scripts/*.sh tests/*/*.sh deploy/*/*.sh)
PROMTOOL = $(or $(shell command -v promtool 2>/dev/null),.venv/bin/promtool)

# Tools of other releases of Debian, extracted: tests/fleet/tools.py finds them there.
DEBIAN = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hmm-exporter/debian
# What judges manifests; tests/fleet/kubernetes.py finds it there.
KUBERNETES_MODELS = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hmm-exporter/kubernetes-models

export PIP_DISABLE_PIP_VERSION_CHECK = 1

help:
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile

demo: setup ## the exporter on the simulator, at http://127.0.0.1:10466/metrics
	@scripts/demo.sh

run: setup ## the exporter on this machine's kernel, with the defaults
	@.venv/bin/hmm-exporter --config.file config.example.yaml

install: install-packages ## below PREFIX (/usr/local), with units for systemd; DESTDIR as usual. Starts nothing
	@PYTHON="$(PYTHON)" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" UNITDIR="$(UNITDIR)" scripts/install.sh install

uninstall: ## takes that away again, but for /etc/hmm-exporter
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" UNITDIR="$(UNITDIR)" scripts/install.sh uninstall

test: setup $(PROMTOOL) .venv/fuzz ## the tests that need no other kernel than this machine's: a few minutes
	@PATH="$(CURDIR)/.venv/bin:$$PATH" pytest tests/unit tests/fuzz tests/bpf

fuzz: RUNS ?= 1000000
fuzz: setup .venv/fuzz ## RUNS inputs (a million) for each fuzzer, or for TARGET: an hour or two on one CPU
	@.venv/bin/python -m tests.fuzz --runs $(RUNS) $(TARGET)

test-bcc: setup bcc-packages ## the versions of bcc, as Debian's releases have them
	@.venv/bin/pytest tests/bcc

test-fleet: setup fleet-packages .venv/fleet ## units, image, manifests, rules and dashboards, each judged by its own tool
	@.venv/bin/pytest tests/fleet

test-lab: setup lab-packages ## the tests on a real HMM driver, in an emulated machine: KERNEL=6.1, 6.12 or 7.3 (default)
	@.venv/bin/pytest tests/lab

test-matrix: setup lab-packages ## test-lab on each of its kernels; the last lines say how each ended
	@scripts/test-matrix.sh

bench: KERNEL ?= 6.12
bench: setup lab-packages ## writes docs/benchmark.md: some fifteen minutes, on a machine that does nothing else
	@KERNEL=$(KERNEL) .venv/bin/python -m tests.bench

soak: DURATION ?= 20m
soak: setup .venv/soak ## a daemon under all that the simulator can do for DURATION (20m; 90s, 8h): does it grow, does it lose? Draws build/soak/soak.svg
	@.venv/bin/python -m tests.soak $(DURATION)

dashboards: .venv/fleet ## writes dashboards/grafana/*.json, as dashboards/grafana/generate has them
	@.venv/bin/python -m dashboards.grafana.generate

pictures: setup fleet-packages .venv/fleet ## draws the status page, and the dashboards after ten minutes of the simulator, which is how long it takes; writes build/pictures and docs/images
	@scripts/debian.sh install chromium-headless-shell fonts-dejavu-core pngquant
	@.venv/bin/python -m tests.fleet.status_page
	@.venv/bin/python -m tests.fleet.pictures

lint: setup lint-packages .venv/lint .venv/fleet .venv/soak ## ruff, mypy, shellcheck
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy --strict hmm_exporter tests
	@.venv/bin/mypy --strict --python-version 3.11 dashboards
	@shellcheck --severity=warning $(SHELL_SCRIPTS)

format: .venv/lint ## ruff's fixes and format
	@.venv/bin/ruff check --fix
	@.venv/bin/ruff format

clean: ## removes all of this again, but for packages and what is in ~/.cache
	@rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -prune -exec rm -r {} +
	@$(MAKE) -s -C tests/simulator clean

setup: packages .venv/package
	@$(MAKE) -s -C tests/simulator

packages:
	@scripts/debian.sh install python3-venv python3-bpfcc gcc libc6-dev binutils openssl curl

install-packages:
	@scripts/debian.sh install python3-bpfcc python3-prometheus-client python3-yaml python3-bcrypt python3-venv

lab-packages:
	@scripts/debian.sh install qemu-system-x86 mmdebstrap e2fsprogs util-linux debian-archive-keyring buildah gcc
	@scripts/debian.sh extract trixie $(DEBIAN)/trixie containerd

bcc-packages:
	@scripts/debian.sh install mmdebstrap debian-archive-keyring

fleet-packages: install-packages
	@scripts/debian.sh install openssl systemd
	-@scripts/debian.sh install chromium-headless-shell fonts-dejavu-core # Ubuntu has none; its tests then say so
	@scripts/debian.sh extract sid $(DEBIAN)/sid prometheus promtool kustomize
	@scripts/debian.sh extract bookworm $(DEBIAN)/bookworm prometheus
	@scripts/kubernetes-models.sh $(KUBERNETES_MODELS)

lint-packages:
	@scripts/debian.sh install shellcheck

.venv/bin/pip: | packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "$(PYTHON) is older than 3.10")'
	@$(PYTHON) -m venv .venv

.venv/package: pyproject.toml | .venv/bin/pip
	@echo "installing into .venv: hmm-exporter (editable), what it needs, and what its tests need"
	@.venv/bin/pip install --quiet --editable '.[test]'
	@touch $@

.venv/fuzz: pyproject.toml | .venv/package
	@echo "installing into .venv: what make fuzz needs, where there is a wheel"
	@.venv/bin/pip install --quiet --editable '.[fuzz]'
	@touch $@

.venv/lint: pyproject.toml | .venv/package
	@echo "installing into .venv: what make lint needs"
	@.venv/bin/pip install --quiet --editable '.[lint]'
	@touch $@

.venv/fleet: pyproject.toml | .venv/package
	@echo "installing into .venv: what make test-fleet needs"
	@.venv/bin/pip install --quiet --editable '.[fleet]'
	@touch $@

.venv/soak: pyproject.toml | .venv/package
	@echo "installing into .venv: what make soak needs"
	@.venv/bin/pip install --quiet --editable '.[soak]'
	@touch $@

# Unpacked, because to install Debian 12's package of it would start a Prometheus.
.venv/bin/promtool: | .venv/bin/pip
	@scripts/debian.sh unpack usr/bin/promtool $@ promtool prometheus

.PHONY: help demo run install uninstall test test-bcc test-lab test-matrix test-fleet fuzz soak dashboards pictures bench lint format clean setup packages bcc-packages fleet-packages install-packages lab-packages lint-packages
# apt-get and pip take one caller at a time.
.NOTPARALLEL:
