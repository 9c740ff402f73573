#!/usr/bin/env bash
# Runs the tests in .venv, made if need be; arguments go to pytest: ./scripts/test.sh -m "not slow" tests/core
# TEST_PROCESSES (2) run at once, as most of the time goes into compiling, which takes one core; 0 is this one alone.
# A file's tests stay in one process, as its fixtures may take minutes; files begin in order, lest a long one be last.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
ensure_venv test
exec "$VENV/bin/python" -m pytest --numprocesses="${TEST_PROCESSES:-2}" --dist=loadfile --no-loadscope-reorder "$@"
