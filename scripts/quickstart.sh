#!/usr/bin/env bash
# From a fresh clone to a trained and tested CNN: ./scripts/quickstart.sh [RUN_DIRECTORY]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
ensure_venv ""
run="${1:-runs/quickstart}"
"$VENV/bin/jaxlab" train --config=configs/digits_cnn.py --workdir="$run" >/dev/null
result="$("$VENV/bin/jaxlab" evaluate --workdir="$run" --split=test --step=best)"
"$VENV/bin/python" - "$run" "$VENV" "$result" <<'PYTHON'
import json
import sys

run, venv, result = sys.argv[1], sys.argv[2], json.loads(sys.argv[3].splitlines()[-1])
print(f"""
Test accuracy {result["metrics"]["test/accuracy"]:.4f} on {result["n"]} digits that training never saw (step {result["step"]}, chosen on validation).
The run is in {run}, its pictures in {run}/plots

Next:
  {venv}/bin/jaxlab train --config=configs/digits_cnn.py --workdir=runs/wider --config.model.channels=64,128
  {venv}/bin/jaxlab check --config=configs/digits_cnn.py:mlp
  {venv}/bin/python scripts/prepare_data.py fashion_mnist && {venv}/bin/jaxlab train --config=configs/fashion_mnist_cnn.py --workdir=runs/fashion""")
PYTHON
