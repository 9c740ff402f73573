#!/usr/bin/env bash
# Runs the tests in .venv, made if need be; arguments go to pytest: ./scripts/test.sh -m "not slow" tests/core
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
ensure_venv test
exec "$VENV/bin/python" -m pytest "$@"
