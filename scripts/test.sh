#!/usr/bin/env bash
# Runs the tests in .venv, made if need be; arguments go to pytest: ./scripts/test.sh -m "not slow" tests/core
# TEST_PROCESSES (2) run at once, as most of the time goes into compiling, which takes one core; 0 is this one alone.
# Tests of one xdist_group share fixtures that take long, so they stay in one process.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
ensure_venv test
exec "$VENV/bin/python" -m pytest --numprocesses="${TEST_PROCESSES:-2}" --dist=loadgroup "$@"
