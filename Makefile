# Each target is one command that can also be typed. On Windows type the commands.
PYTHON = .venv/bin/python

setup: ## make an environment with everything that the tests need
	python3 -m venv .venv && .venv/bin/pip install -q -e ".[dev]"
test: ## run the quick tests
	$(PYTHON) -m pytest -q
slow: ## run all tests
	$(PYTHON) -m pytest -q -m "slow or not slow"
lint: ## check the style
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .
types: ## check the types
	$(PYTHON) -m mypy
format: ## correct the style
	$(PYTHON) -m ruff check --fix . && $(PYTHON) -m ruff format .
hooks: ## check before every commit
	$(PYTHON) -m pre_commit install
ci: ## run the checks that a change has to pass
	.ci/run
full: ## run all tests on every supported Python, with the oldest dependencies and every extra
	.ci/full
help: ## show this list
	@grep -E '^[a-z]+:.*##' Makefile

.PHONY: setup test slow lint types format hooks ci full help
.DEFAULT_GOAL := help
