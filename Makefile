# Everything from a bare checkout with Python (3.11 or newer) and make. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := runs/demo
VRP := runs/vrp
MODELS := tiny-llava tiny-paligemma tiny-qwen2-vl

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo test test-all lint format docs notebooks vrp circuits bench fuzz clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mechvrp needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(DEMO)/report.html ## a small reliability study of the embedded models, and its report
	@echo "The report: $(DEMO)/report.html (make clean to run it anew)"

$(DEMO)/report.html: | $(STAMP)
	$(BIN)/mechvrp study $(addprefix --model ,$(MODELS)) --data scenes --n 600 --out $(DEMO)

test: $(STAMP) ## the test suite, without the slow tests
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: $(STAMP) ## all tests
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(STAMP) ## style, types, and the order of the folders
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## the documentation as a site, in site/, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The site: site/index.html (for its search: $(BIN)/python -m http.server -d site)"

SPLITS := adversarial popular random mixed

vrp: $(STAMP) ## the whole VRP study of the embedded models, compared (132 minutes of processor time)
	for split in $(SPLITS); do for model in $(MODELS); do \
	  $(BIN)/mechvrp study --config docs/vrp/$$split.yaml --model $$model --out $(VRP)/$$split-$$model || exit 1; \
	done; done
	$(BIN)/mechvrp compare $(foreach split,$(SPLITS),$(addprefix $(VRP)/$(split)-,$(MODELS))) --out $(VRP)/compared

SEEDS := $(wildcard checkpoints/*-seed*)

circuits: $(STAMP) ## the circuits of existence answers in the embedded models and their further seeds: found, proven, compared (an hour of processor time)
	OMP_NUM_THREADS=1 $(BIN)/python docs/circuits/study.py --out runs/circuits $(foreach seed,$(SEEDS),--also $(firstword $(subst -seed, ,$(notdir $(seed))))=$(seed))

notebooks: $(STAMP) ## run the notebooks at full size and keep what they show (needs Chrome or Chromium)
	OMP_NUM_THREADS=1 $(BIN)/python notebooks/run.py

bench: $(STAMP) ## benchmarks; the table is benchmarks/RESULTS.md
	MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 $(BIN)/python -m benchmarks

READERS := records image ranking circuit curve monitor recalibration header summary pieces settings
SECONDS := 60

fuzz: $(STAMP) ## fuzz every reader for a minute; what is found is in runs/fuzz (pip install "mechvrp[fuzz]" first)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || { echo "make fuzz needs atheris: $(BIN)/pip install -e '.[fuzz]'"; exit 1; }
	for reader in $(READERS); do $(BIN)/python -m tests.fuzz.fuzz $$reader $(SECONDS) || exit 1; done

clean: ## remove the demo run
	rm -rf $(DEMO)
