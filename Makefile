# One command does all the set-up that it needs; a second time it does none. `make` alone lists the commands.

PYTHON ?= python3
VENV ?= .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
RUN := $(BIN)/python -m
BENCH ?= build/bench
CONTAINER ?= podman

# Nothing needs a model hub; KDCOURSE_ASSETS=hub asks for it.
ifneq ($(KDCOURSE_ASSETS),hub)
export HF_HUB_OFFLINE := 1
export HF_EVALUATE_OFFLINE := 1
endif
export PYTHONUTF8 := 1
# glibc gives freed memory back at once and asks for it again in the next training step; keeping it is faster.
export MALLOC_TRIM_THRESHOLD_ := 4294967296
export MALLOC_MMAP_THRESHOLD_ := 1073741824

# The most that one cell may take in a test, beside other work: a lesson should not keep anybody waiting.
CELL_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help setup course site full lab test test-quick test-deep census test-faults test-versions notebooks results rehearsal teacher bench dist container lock clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

course: setup ## Run every lesson on real data and build the site from it: build/site/index.html
	$(RUN) kdcourse run --out build/course
	$(BIN)/python docs/make_site.py

site: $(VENV)/.ready ## Build build/site/index.html from the notebooks as they are and docs/, without running any
	$(BIN)/python docs/make_site.py

full: setup ## Run every lesson in the full profile on a GPU and write build/full
	$(RUN) kdcourse run --profile full --device cuda --out build/full

lab: setup ## Open JupyterLab on a copy of the lessons that is yours: kd-course/, which git ignores
	$(RUN) kdcourse start
	$(RUN) kdcourse lab

test: test-quick ## Check everything: style, types, tests, and every notebook through papermill and nbval
	$(RUN) pytest -n 2 --dist loadfile -m slow --junitxml build/slow_tests.xml
	$(MAKE) --jobs 2 executed compared

# Side by side, so each keeps to one thread: kernels that fight for cores wait for each other.
.PHONY: executed compared
executed compared: export OMP_NUM_THREADS := 1

executed:
	$(RUN) kdcourse run --out build/executed --cell-seconds $(CELL_SECONDS)
	$(RUN) kdcourse list --not-compared

compared:
	$(RUN) pytest -p no:cacheprovider -c tests/nbval.ini --rootdir . --nbval --nbval-current-env \
		--nbval-cell-timeout 900 --nbval-sanitize-with tests/nbval_sanitize.cfg --junitxml build/nbval.xml notebooks

test-quick: $(VENV)/.test-ready assets ## Check everything but the notebooks
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(BIN)/lint-imports --no-logo
	$(RUN) pytest -n 2 --dist loadfile -m "not slow" --junitxml build/tests.xml

test-deep: $(VENV)/.test-ready assets ## Try fifty thousand random cases, every architecture, every lesson twice and interrupted, and three ports (about an hour)
	KDCOURSE_DEEP=1 $(RUN) pytest -n 2 --dist loadfile tests/test_properties.py \
		tests/settings/test_drawn_settings.py tests/notebooks/test_twice.py \
		tests/course/test_run.py tests/course/test_editions.py tests/attacks/test_attacks_on_files.py tests/ports \
		tests/census/test_census.py tests/attacks/test_attacks_on_the_cache.py tests/course/test_diagnose_search.py \
		tests/course/test_diagnose_catalogue.py tests/course/test_diagnose.py \
		tests/course/exercises/test_hostile.py tests/course/exercises/test_search.py \
		tests/course/exercises/test_pairs.py tests/course/exercises/test_diagnosis.py \
		tests/course/bundle/test_bundle_made.py

census: $(VENV)/.test-ready assets ## Take one step of every architecture of transformers, and write docs/census.md (about 20 minutes)
	PYTHONPATH=tests $(RUN) census

test-faults: $(VENV)/.test-ready assets ## Break the course in thirty ways, and see that the lessons find each (about 10 minutes)
	$(RUN) pytest -n 2 tests/faults/faults.py

test-versions: $(VENV)/.test-ready assets ## Run tests and lessons on the oldest and newest transformers and datasets (about 40 minutes)
	$(RUN) kdcourse run --out build/versions/pinned --resume
	$(RUN) nox --noxfile tests/noxfile.py $(if $(SESSION),--session $(SESSION))

notebooks: setup ## Run every lesson and store its outputs in notebooks/
	$(RUN) kdcourse run --out build/notebooks --store

results: setup ## Run lab 07 whole, all arms and seeds, and store what it measured (about half an hour of one core)
	$(RUN) kdcourse run 07 --profile full --out build/full
	cp build/07_capstone_sst2/embedded/results.json kdcourse/labs/resources/lab07.json

rehearsal: setup ## Play a class of forty, run every lesson with a stopwatch, and write the instructor's guide (about 25 minutes)
	$(RUN) kdcourse rehearse --people 40 --timed all --out build/rehearsal
	cp build/rehearsal/rehearsal.json kdcourse/course/rehearsal/rehearsal.json
	$(RUN) kdcourse guide --out docs/instructor

teacher: setup ## Train the review teacher anew and report its accuracy (about 15 minutes on 2 cores)
	$(RUN) kdcourse.labs.train_teacher

bench: $(BENCH)/.ready ## Measure the fused loss beside other libraries, and write docs/fused.md (about 7 minutes; FULL=1 for all)
	PYTHONPATH=. $(BENCH)/$(notdir $(BIN))/python benchmarks/fused_loss.py $(if $(FULL),--full)

# Other libraries in an environment of their own, with the torch of the course.
$(BENCH)/.ready: pyproject.toml constraints.txt benchmarks/constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/$(notdir $(BIN))/python -m pip install --constraint constraints.txt --constraint benchmarks/constraints.txt \
		--editable ".[bench]"
	$(BENCH)/$(notdir $(BIN))/python -m pip install --constraint benchmarks/constraints.txt --no-deps torchdistill
	@touch $@

dist: $(VENV)/.test-ready ## Build the sdist, and from it the wheel, which holds the lessons, into dist/
	$(RUN) build --no-isolation --outdir dist

container: ## Build the image that docs/rooms.md describes, and run a lesson in it without a network (CONTAINER=docker)
	$(CONTAINER) build --file .devcontainer/Containerfile --tag kdcourse .
	$(CONTAINER) run --rm --network none kdcourse sh -c "kdcourse start && kdcourse run 00"

setup: $(VENV)/.ready assets ## Make the virtual environment and fetch the assets

.PHONY: assets
assets: $(VENV)/.ready
	@$(RUN) kdcourse assets

# Everything is held to the hashes of requirements.lock, but for torch: which build fits is a matter of the machine.
$(VENV)/.ready: pyproject.toml constraints.txt requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --requirement requirements.lock
	$(RUN) pip install --constraint constraints.txt --no-build-isolation --editable ".[test]"
	@touch $@

$(VENV)/.test-ready: $(VENV)/.ready tests/node/package-lock.json
	mkdir -p $(VENV)/node && cp tests/node/package.json tests/node/package-lock.json $(VENV)/node
	npm ci --silent --ignore-scripts --prefix $(VENV)/node || echo "No npm: the workflow files are not linted, and axe does not look at the site."
	@touch $@

lock: ## Write requirements.lock and tests/node/package-lock.json anew, after a change of constraints.txt or package.json
	$(PYTHON) -m venv build/uv
	build/uv/$(notdir $(BIN))/python -m pip install --quiet uv==0.13.9
	build/uv/$(notdir $(BIN))/python -m uv pip compile --quiet --universal --python-version 3.11.5 --no-deps --generate-hashes \
		--no-header --no-annotate --no-emit-package torch --output-file requirements.lock constraints.txt
	npm install --silent --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --prefix tests/node

clean: ## Delete what was built; the environment and the fetched assets stay
	rm -rf build .mypy_cache .pytest_cache .ruff_cache
