# The whole interface. `make run` and `make test` set up what they need themselves.
PY := .venv/bin/python

.PHONY: setup run test check bench test-clients clean

setup:
	@scripts/setup

run: setup
	@.venv/bin/rkllm-mqtt demo

test: setup
	@.venv/bin/pytest -q -m "not clients"

check: setup
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/codespell

bench: setup
	@$(PY) -m bench

test-clients: setup
	@scripts/setup-clients
	@.venv/bin/pytest -q -m clients

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .clients
