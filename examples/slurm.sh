#!/usr/bin/env bash
# A data set and a model on a Slurm cluster; the work folder lies on a disk that all nodes share.
#
#   export RECIPE=white-background-256 METADATA=/shared/danbooru/metadata
#   export IMAGES='https://HOST/512px/{bucket}/{id}.jpg' WORK=/shared/white-background-256
#   bash examples/slurm.sh submit
#
# submits two arrays and a training, one after the other, from the folder that holds cli.py. A step
# that was cut off goes on when it is submitted again:
#
#   sbatch --array=0-7 examples/slurm.sh fetch
#
# Ranks share source.rate and source.connections: more of them ask a server no faster.
#SBATCH --job-name=nurie
#SBATCH --output=%x-%j.log
#SBATCH --requeue
set -euo pipefail

: "${RECIPE:=white-background-256}" "${WORK:=data/$RECIPE}" "${PYTHON:=python}"
: "${RANKS:=8}" "${NODES:=2}" "${GPUS:=gpu}" "${PORT:=29500}"
export RECIPE WORK PYTHON RANKS NODES GPUS PORT

# One rank of an array does its share of the shards, with a worker for each of its cores.
share=(--rank "${SLURM_ARRAY_TASK_ID:-0}" --world-size "${SLURM_ARRAY_TASK_COUNT:-1}")
share+=(--workers "${SLURM_CPUS_PER_TASK:-1}")

case "${1:?submit, fetch, prepare or train}" in
submit)
  ranks="0-$((RANKS - 1))"
  fetch=$(sbatch --parsable --array="$ranks" --cpus-per-task=1 "$0" fetch)
  # After any end of the fetch: some pictures always fail, and prepare refuses if a shard is missing.
  prepare=$(sbatch --parsable --array="$ranks" --cpus-per-task=8 --dependency="afterany:$fetch" \
    "$0" prepare)
  sbatch --nodes="$NODES" --ntasks-per-node=1 --gpus-per-node=4 --cpus-per-task=16 \
    --dependency="afterok:$prepare" "$0" train
  ;;
fetch)
  "$PYTHON" cli.py fetch "$RECIPE" --work "$WORK" --metadata "$METADATA" --images "$IMAGES" \
    --retry-failed "${share[@]}"
  ;;
prepare)
  "$PYTHON" cli.py prepare "$RECIPE" --work "$WORK" "${share[@]}"
  ;;
train)
  # One torchrun on each node starts one process for each of its GPUs.
  read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # from 22.05 on srun does not take it over
  srun "$PYTHON" -m torch.distributed.run --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$GPUS" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:$PORT" \
    -- cli.py train "$RECIPE" --work "$WORK" --resume
  ;;
*)
  echo "no step $1: submit, fetch, prepare or train" >&2
  exit 2
  ;;
esac
