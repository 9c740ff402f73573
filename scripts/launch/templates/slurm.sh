#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=$gpus
#SBATCH --time=$time
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=$name-%j.log
#SBATCH --signal=B:TERM@120
# SLURM says TERM two minutes before the time is over; jaxlab saves, ends with 75, and the job goes back into the queue.
set -uo pipefail
cd $folder || exit 1
srun --kill-on-bad-exit=0 $command &
step=$$!
trap 'kill -TERM "$$step"' TERM
wait "$$step"
code=$$?
while kill -0 "$$step" 2>/dev/null; do # the trap ended the first wait
  wait "$$step"
  code=$$?
done
if [ "$$code" -eq 75 ]; then
  scontrol requeue "$$SLURM_JOB_ID"
fi
exit "$$code"
