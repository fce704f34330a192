# Nothing but python3 (3.11 or newer) and make is needed: every target makes .venv if it is missing.

PROFILE ?= tiny
PYTHON  ?= python3
DEVICE  ?= cpu

BIN       := .venv/bin
READY     := .venv/.ready
RUNS       = data/runs/$(PROFILE)
NOTEBOOKS := $(basename $(notdir $(sort $(wildcard notebooks/[0-9]*.py))))
DRAW      := $(addprefix draw-,$(NOTEBOOKS))
EXECUTE   := $(addprefix execute-,$(NOTEBOOKS))

export TOKENIZERS_PARALLELISM := true
export HF_HUB_DISABLE_TELEMETRY := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

# Notebooks are drawn two at a time, unless -j says otherwise; sub-makes take part in that.
ifeq ($(MAKELEVEL)$(findstring j,$(firstword -$(MAKEFLAGS))),0)
MAKEFLAGS += --jobs=2
endif

.DELETE_ON_ERROR:
.PHONY: help env all measure figures report smoke test lint bench verify notebooks lab clean \
        $(DRAW) $(EXECUTE)

help:  ## list the targets
	@echo "make <target> [PROFILE=smoke|tiny|gpu|paper]   (now: $(PROFILE))"; echo
	@sed -n 's/^\([a-z]*\):.*##/  \1 —/p' $(MAKEFILE_LIST)

env: $(READY)  ## make .venv from requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation --editable .
	@touch $@

all: $(READY)  ## measure everything at PROFILE from scratch, draw it, report
	$(MAKE) measure
	$(MAKE) figures
	$(MAKE) report

measure: $(READY)  ## train what is missing, measure every figure, store the frames
	$(BIN)/python -m linlib.experiments --profile $(PROFILE)

figures: $(DRAW)  ## redraw every figure from the stored measurements; measure what is missing

$(DRAW): draw-%: $(READY)
	@mkdir -p $(RUNS)
	$(BIN)/jupytext --quiet --to ipynb --output $(RUNS)/.$*.ipynb notebooks/$*.py
	$(BIN)/papermill --no-progress-bar $(RUNS)/.$*.ipynb $(RUNS)/$*.ipynb -p profile $(PROFILE)

report: $(READY)  ## write figures/PROFILE/README.md: figures and provenance
	$(BIN)/python -m linlib.report --profile $(PROFILE)

smoke: $(READY)  ## the whole pipeline at the smallest scale, in a folder of its own
	LINLIB_ROOT=$(CURDIR)/build/smoke $(MAKE) all PROFILE=smoke

test: $(READY)  ## all tests, the committed notebooks among them
	$(BIN)/python -m pytest tests
	rm -rf build/nbval && mkdir -p build/nbval/data && cp -R data/results build/nbval/data/
	LINLIB_ROOT=$(CURDIR)/build/nbval $(BIN)/python -m pytest --nbval-lax notebooks

lint: $(READY)  ## ruff and the format check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(READY)  ## speed, memory and error beside the official code; DEVICE=cpu|cuda
	$(BIN)/python benchmarks/bench.py --device $(DEVICE)
	$(BIN)/python benchmarks/pruning.py

verify: $(READY)  ## measure afresh and print what moved against the stored frames
	$(BIN)/python -m linlib.verify --profile $(PROFILE)

notebooks: $(EXECUTE)  ## execute the committed notebooks again, from the stored measurements

$(EXECUTE): execute-%: $(READY)
	$(BIN)/jupytext --quiet --to ipynb --update notebooks/$*.py
	$(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False notebooks/$*.ipynb

lab: $(READY)  ## open the notebooks
	$(BIN)/jupyter lab notebooks

clean:  ## remove caches and scratch results; stored measurements and figures stay
	rm -rf data/cache data/runs build
