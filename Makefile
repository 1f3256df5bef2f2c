# Two commands do everything on a fresh Debian 12 machine: make demo, make test.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := build/stamps
export OBD_TEST_BUILD := 1
C_FILES = $(shell git ls-files -co --exclude-standard 'csrc/*.[ch]' 'csrc/*/*.[ch]' 'tests/native/*.[ch]' 'tests/fuzz/*.[ch]' 'benchmarks/*.c')

help:
	@sed -n 's/^## //p' Makefile

## make demo    the main job on real input, told as a story
demo: build
	$(BIN)/python -m demo $(DEMO_ARGS)

## make quick   lint-free subset without the long state machine, about 2 minutes
quick: build
	$(MAKE) -C tests/native SAN=address run
	$(BIN)/python -m pytest -q -n 2 -m "not soak and not vm" tests/unit tests/golden tests/property \
		--deselect tests/property/test_image_machine.py

## make test    everything that CI runs, under 30 minutes
test: build $(STAMPS)/tcmu-runner
	bash tests/run-all

## make soak    the long versions of the same tests
soak: build $(STAMPS)/tcmu-runner
	OBD_SOAK=1 bash tests/run-all

## make bench   ratios against bare loops: JSON and plots in build/bench
bench: build
	-$(BIN)/python packaging/install-requirements.py plots
	bash benchmarks/run $(BENCH_ARGS)

## make lint    ruff, mypy --strict, clang-format, warnings as errors
lint: $(STAMPS)/venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	clang-format --dry-run -Werror $(C_FILES)
	$(MAKE) -C tests/native SAN=address all

## make man     man pages in build/man, from the command line itself
man: build
	$(BIN)/python packaging/make-man.py build/man

## make completion    for bash, zsh and fish in build/completion, likewise
completion: build
	$(BIN)/python packaging/make-completion.py build/completion

## make install-files [DESTDIR=]   man pages, completion, units, udev rules: what pip does not install
install-files: man completion
	bash packaging/install-files.sh "$(DESTDIR)"

## make build   the package in .venv, with the test build of the extension
build: $(STAMPS)/ext

$(STAMPS)/apt: packaging/apt-packages.txt packaging/install-apt.sh
	bash packaging/install-apt.sh
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/venv: $(STAMPS)/apt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -U "pip>=24" "setuptools>=75" wheel "cffi>=1.16"
	$(BIN)/python packaging/install-requirements.py test lint
	@touch $@

# Rebuilt when any C source, header, or the build description changes.
$(STAMPS)/ext: $(STAMPS)/venv setup.py tcmu_overlaybd/native/build.py $(shell find csrc -name '*.[ch]')
	OBD_WERROR=1 PYTHONWARNINGS="ignore:Editable installation" $(BIN)/python -m pip install -q --no-build-isolation --no-deps -e .
	@touch $@

# Unpacked, not installed; where it is not to be had, the tests beside it are skipped.
$(STAMPS)/tcmu-runner: packaging/fetch-tcmu-runner.sh
	bash packaging/fetch-tcmu-runner.sh build/tcmu-runner
	@touch $@

clean:
	rm -rf build tcmu_overlaybd/native/_obd* tcmu_overlaybd/lio/obd-lio-helper* *.egg-info

.PHONY: help demo quick test soak bench lint man completion install-files build clean
