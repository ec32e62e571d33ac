# Two commands, and a third: `make run` opens the console, `make test` runs the tests, `make demo` shows the whole road.
PYTHON ?= python3
BIN := .venv/bin
FOUND = command -v $(PYTHON) >/dev/null || { echo "corral: there is no $(PYTHON): install Python 3.11 or newer, or name \
one: make PYTHON=python3.12 …" >&2; exit 1; }

.PHONY: help run demo test soak check format bench shots clean setup setup-dev

help:
	@echo 'make run    install what is missing and open the console'
	@echo 'make demo   deploy the sample model in a home of its own, ask it a question, take all down'
	@echo 'make test   install what tests need and run them'
	@echo 'make test-engines  build the other two engines and run their journeys'
	@echo 'make test-compiled  build the compiled gateway and run its tests'
	@echo 'make test-pythons  the quick tests with every other Python that is found here, 3.11 to 3.13'
	@echo 'make soak   the long runs: 1,000 rounds of kill -9, 100,000 fuzzed requests, faults, a systemd of its own (an hour and more)'
	@echo 'make check  ruff, mypy (--strict but for tests) and the import contracts'
	@echo 'make bench  measure, and print figures with the machine named'
	@echo 'make shots  write every screen to screenshots/'
	@echo 'make clean  remove .venv and caches (no model and no state)'

setup:
	@$(FOUND); $(PYTHON) core/bootstrap.py

setup-dev:
	@$(FOUND); $(PYTHON) core/bootstrap.py --dev

run: setup
	@$(BIN)/corral

demo: setup
	@$(BIN)/python tests/journeys/demo.py

# Many tests wait for processes (two cores are a quarter idle with three of them): four at a time, those that measure one
# by one.
test: setup-dev
	@$(BIN)/python -m pytest -n 4 --dist loadgroup

# The gateway's tests once more with a gateway that is compiled; skipped by name without a C compiler.
.PHONY: test-compiled
test-compiled: setup-dev
	@$(BIN)/python tests/compiled.py

.PHONY: test-pythons
test-pythons: setup-dev
	@$(BIN)/python tests/pythons.py

soak: setup-dev
	@$(BIN)/python -m pytest -m soak -s

check: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file tests/mypy.ini tests
	@$(BIN)/lint-imports

format: setup-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup-dev
	@for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

shots: setup-dev
	@$(BIN)/python tests/journeys/shots.py

clean:
	rm -rf .venv .venv-3.* .venv-compiled .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info build

# Builds llama-server and llama-cpp-python from one source package (some 7 minutes, once, in the user's cache folder).
.PHONY: test-engines
test-engines: setup-dev
	@$(BIN)/python tests/engines/build.py
	@CORRAL_TEST_ENGINES=required $(BIN)/python -m pytest tests/engines
