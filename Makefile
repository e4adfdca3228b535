# What one does here, by name; each is one command that can also be typed. On Windows type the commands.
PYTHON = .venv/bin/python

setup: ## an environment with everything that the tests need
	python3 -m venv .venv && .venv/bin/pip install -q -e ".[dev]"
test: ## the quick tests
	$(PYTHON) -m pytest -q
slow: ## the long ones too
	$(PYTHON) -m pytest -q -m "slow or not slow"
lint: ## style
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .
types: ## types
	$(PYTHON) -m mypy
format: ## put the style right
	$(PYTHON) -m ruff check --fix . && $(PYTHON) -m ruff format .
hooks: ## check before every commit
	$(PYTHON) -m pre_commit install
ci: ## what decides whether a change lands
	.ci/run
full: ## every supported Python and the oldest dependencies, with every extra
	.ci/full
help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile

.PHONY: setup test slow lint types format hooks ci full help
.DEFAULT_GOAL := help
