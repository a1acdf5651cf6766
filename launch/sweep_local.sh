#!/usr/bin/env bash
# An experiment of the paper on this machine: one process per GPU, or per group of cores, then its figures.
set -euo pipefail

EXPERIMENT=${EXPERIMENT:-figure3}
SCALE=${SCALE:-laptop}
RUNS_PER_GPU=${RUNS_PER_GPU:-1}
CORES_PER_RUN=${CORES_PER_RUN:-2}
DATA_DIR=${DATA_DIR:-data}
RUNS_DIR=${RUNS_DIR:-runs}
FIGURES_DIR=${FIGURES_DIR:-figures}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

usage() {
  cat <<HELP
Usage: [NAME=value ...] bash launch/sweep_local.sh [flags of vae_rd.sweep]

Trains what is not finished of an experiment and draws its figures. May be stopped at any moment; the same command
continues.

  EXPERIMENT=figure3    one of those that  python -m vae_rd.sweep --help  lists
  SCALE=laptop          smoke, laptop, tenth or paper
  RUNS_PER_GPU=1        processes on each GPU, where there are any
  CORES_PER_RUN=2       cores for each process, where there is no GPU
  DATA_DIR=data  RUNS_DIR=runs  FIGURES_DIR=figures   relative to the project's root
$(environment_parameters)
HELP
}

workers() {
  local gpus cores
  gpus=$(python -c 'from vae_rd.training import gpus; print(len(gpus.visible()))')
  cores=$(nproc)
  if ((gpus > 0)); then
    echo $((gpus * RUNS_PER_GPU))
  else
    echo $((cores < CORES_PER_RUN ? 1 : cores / CORES_PER_RUN))
  fi
}

if [[ ${1:-} == --help ]]; then usage; exit 0; fi
refuse_flags "$@"

enter_environment "$PWD"
status=0
python -m vae_rd.sweep --experiment="$EXPERIMENT" --scale="$SCALE" --data_dir="$DATA_DIR" --runs_dir="$RUNS_DIR" \
  --workers="$(workers)" "$@" || status=$?
# Some runs may have failed; the figure is drawn from the others. Not so after an interruption: Ctrl-C (130), or SIGTERM
# and SIGUSR1 (85; 143 while Python is still starting).
case $status in 85 | 130 | 143) exit "$status" ;; esac
python -m vae_rd.export --experiment="$EXPERIMENT" --scale="$SCALE" --runs_dir="$RUNS_DIR" --out_dir="$FIGURES_DIR"
exit "$status"
