# The whole interface. `make run` and `make test` set up what they need themselves.
PY := .venv/bin/python
# Tests wait for processes, brokers and clocks longer than they compute: there are more of them than cores.
JOBS := $(shell expr $$(nproc) + 4)

.PHONY: setup run test check chaos soak bench fuzz licenses test-clients test-ha e2e homeassistant-release clean

setup:
	@scripts/setup

run: setup
	@.venv/bin/rkllm-mqtt demo

test: setup
	@.venv/bin/pytest -q -m "not clients" -n $(JOBS) --dist worksteal

check: setup
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/codespell

# SEED=7 draws the same faults and prompts again; about a quarter of an hour.
chaos: setup
	@PYTHONPATH=tests/support $(PY) -m chaos $(if $(SEED),--seed $(SEED)) --json chaos.json

# MINUTES=5 SPEED=10 for less.
soak: setup
	@$(PY) -m soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SPEED),--speed $(SPEED))

bench: setup
	@$(PY) -m bench $(foreach row,$(ROW),--only $(row))

# FUZZ_S seconds for each target; an environment of its own.
fuzz:
	@scripts/fuzz $(or $(FUZZ_S),600)

# Each call on the disk fails in each way, and the power fails after each: five minutes.
faults: setup
	@RKLLM_MQTT_EVERY_FAULT=1 .venv/bin/pytest -q -n $(JOBS) tests/store/test_faulty_disk.py tests/store/test_power_cut.py

licenses: setup
	@$(PY) scripts/licenses.py

test-clients: setup
	@scripts/setup-clients
	@.venv/bin/pytest -q -m clients tests/clients

# The integration, in Home Assistant's own Python. Where there is none they say so and fail.
test-ha: setup
	@scripts/test-homeassistant unit

e2e: setup
	@scripts/test-homeassistant live

homeassistant-release:
	@scripts/homeassistant-release

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .clients .fuzz .homeassistant
