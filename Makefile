PYTHON ?= python3
BOOTSTRAP = $(PYTHON) tools/bootstrap.py
BIN = .venv/bin
TEST ?=
ARGS ?=
SEED ?= 1
FILE ?= ../shared/data/online-retail.csv.gz

.DEFAULT_GOAL := help
.PHONY: run test check bench chaos chaos-cluster simulate replay lock clean help runtime dev

run: runtime ## Set up what is missing and serve on 127.0.0.1:8080; Ctrl-C stops everything
	@RINGFENCE_EXIT_WITH_PARENT=1 exec $(BIN)/ringfence up $(ARGS)

test: dev ## Set up what is missing and run the whole suite (TEST=path or ARGS=... narrow it)
	@exec $(BIN)/python -m pytest $(ARGS) $(TEST)

check: dev ## Formatting, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache

bench: runtime ## Run the benchmarks (ARGS=... is passed on)
	@exec $(BIN)/ringfence bench $(ARGS)

chaos: dev ## Break what three services stand on, and check what came of it (SEED=1, ARGS=...)
	@PYTHONPATH=tests exec $(BIN)/python -m chaos run --seed $(SEED) $(ARGS)

chaos-cluster: dev ## The same on a Redis Cluster, with carts over eight shards (SEED=1, ARGS=...)
	@PYTHONPATH=tests exec $(BIN)/python -m cluster_chaos run --seed $(SEED) $(ARGS)

simulate: dev ## Run many seeds of the simulated engine (ARGS="FIRST --count N")
	@PYTHONPATH=tests exec $(BIN)/python -m simulation $(or $(ARGS),0 --count 20000)

replay: runtime ## Sell a year of real orders, then audit what came of it (FILE=..., ARGS=... is passed on)
	@exec $(BIN)/ringfence replay $(FILE) $(ARGS)

lock: dev ## Write both lock files anew from pyproject.toml
	@$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group build \
		--universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade \
		--output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --group build --group dev --constraint requirements.lock \
		--universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade \
		--output-file requirements-dev.lock

clean: ## Remove .venv and caches; the data folder .ringfence stays
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .coverage htmlcov dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-13s %s\n' "$$name" "$$text"; done

runtime dev:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
		echo "ringfence: $(PYTHON) was not found; Python 3.11 or newer is needed." >&2; exit 1; }
	@$(BOOTSTRAP) $@
