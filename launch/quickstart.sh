#!/usr/bin/env bash
# From a clean clone to a rate-distortion curve: installs, makes the data, trains a few betas, draws the figure.
set -euo pipefail

# What is trained, and where it goes: any of these can be given in the environment.
SPLIT=${SPLIT:-cd_8k}
BETAS=${BETAS:-0.01,0.1,0.5,1,3}
TRAIN_STEPS=${TRAIN_STEPS:-1500}
DATA_DIR=${DATA_DIR:-data}
RUNS_DIR=${RUNS_DIR:-runs}
FIGURES_DIR=${FIGURES_DIR:-figures}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

usage() {
  cat <<HELP
Usage: [NAME=value ...] bash launch/quickstart.sh

Makes a virtual environment in .venv (if none is active), installs vae_rd there, generates the split, trains one
beta-VAE per beta and draws the rate-distortion curve of training and test set. Finished parts are not repeated.

  SPLIT=$SPLIT              pair of training and test set
  BETAS=$BETAS   weights of the rate, trained together
  TRAIN_STEPS=$TRAIN_STEPS         optimizer steps of each run
  DATA_DIR=$DATA_DIR  RUNS_DIR=$RUNS_DIR  FIGURES_DIR=$FIGURES_DIR   where things go, relative to the project's root
$(environment_parameters)
HELP
}

if [[ ${1:-} == --help ]]; then usage; exit 0; fi
if (($# > 0)); then usage >&2; exit 2; fi

enter_environment "$PWD"

python -m data_gen.main --split="$SPLIT" --data_dir="$DATA_DIR"
python -m vae_rd.main --beta="$BETAS" --split="$SPLIT" --train_steps="$TRAIN_STEPS" \
  --eval_images=2048 --data_dir="$DATA_DIR" --runs_dir="$RUNS_DIR"
python -m vae_rd.export --runs_dir="$RUNS_DIR" --out_dir="$FIGURES_DIR"
