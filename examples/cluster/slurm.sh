#!/bin/bash
# A study on Slurm: sbatch slurm.sh. Submit it again when its time is over: it goes on with the study.
#SBATCH --job-name=raylr
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

SPEC=/shared/specs/study.yaml
OUT=/shared/runs/study          # on storage that all nodes share
source /shared/venv/bin/activate

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')
export RAY_ADDRESS=$address:6379

srun --nodes=1 --ntasks=1 -w "$head" \
    ray start --head --node-ip-address="$address" --port=6379 --dashboard-host=127.0.0.1 --disable-usage-stats --block &
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        ray start --address="$RAY_ADDRESS" --disable-usage-stats --block &
    sleep 10
fi

raylr search "$SPEC" --out "$OUT" &
study=$!
trap 'kill -TERM "$study"; wait "$study"' TERM      # two minutes before the end: raylr stops, everything is kept
wait "$study"
