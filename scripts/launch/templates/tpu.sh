#!/usr/bin/env bash
# Makes a TPU VM if there is none of that name, and trains on all of its hosts; again for as long as jaxlab ends with 75.
set -euo pipefail
place=(--project=$project --zone=$zone)
if ! gcloud compute tpus tpu-vm describe $name "$${place[@]}" >/dev/null 2>&1; then
  gcloud compute tpus tpu-vm create $name "$${place[@]}" --accelerator-type=$accelerator --version=$runtime$spot
fi
remote=$remote
while true; do
  code=0
  gcloud compute tpus tpu-vm ssh $name "$${place[@]}" --worker=all --command="$$remote" || code=$$?
  if [ "$$code" -ne 75 ]; then
    exit "$$code"
  fi
done
