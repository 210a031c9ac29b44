# Everything a newcomer needs: `make demo` shows the tool at work, `make test` checks it.
# Set-up (own virtual environment, pinned dependencies) happens by itself on first use.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-slow check docs setup sandbox clean

demo: $(STAMP)
	$(BIN)/layerpick suggest --out demo
	$(BIN)/layerpick auto --with-full --out demo

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --durations=10

test-slow: $(STAMP) sandbox
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

check: $(STAMP) sandbox
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p layerpick

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Written: build/docs/index.html"

setup: $(STAMP) sandbox

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "layerpick needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.11"; exit 1; }
	@echo "Setting up $(VENV): PyTorch and what else is needed, a few minutes, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Generated code runs in a bubblewrap sandbox; without it the code task refuses to run.
sandbox:
	@command -v bwrap >/dev/null || { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] \
	  && { apt-get install -y -qq bubblewrap || { apt-get update -qq && apt-get install -y -qq bubblewrap; }; } >/dev/null 2>&1; } \
	  || echo "bubblewrap is not installed; the code task will refuse to run programs (try: sudo apt-get install bubblewrap)"

clean:
	rm -rf build demo dist *.egg-info
