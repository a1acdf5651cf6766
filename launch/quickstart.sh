#!/usr/bin/env bash
# From a clean clone to the paper's surprise: installs, makes a small data set, trains ten models, draws the figure.
set -euo pipefail

# What is trained, and where it goes: any of these can be given in the environment.
SPLIT=${SPLIT:-cv_500}
IMAGE_SIZE=${IMAGE_SIZE:-16}
LAYERS=${LAYERS:-1 3}
BETAS=${BETAS:-0.003,0.03,0.3,1,4}
TRAIN_STEPS=${TRAIN_STEPS:-2500}
DATA_DIR=${DATA_DIR:-data}
RUNS_DIR=${RUNS_DIR:-runs}
FIGURES_DIR=${FIGURES_DIR:-figures}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

usage() {
  cat <<HELP
Usage: [NAME=value ...] bash launch/quickstart.sh

Makes a virtual environment in .venv (if none is active), installs vae_rd there, generates the split, trains one
beta-VAE per beta and depth, and draws the rate-distortion curves of training and test set. Finished parts are not
repeated.

  SPLIT=$SPLIT              pair of training and test set: 500 training images, so that there is something to memorise
  IMAGE_SIZE=$IMAGE_SIZE             height and width in pixels: 32 in the paper, and four times the work
  LAYERS="$LAYERS"              hidden layers of encoder and decoder
  BETAS=$BETAS   weights of the rate, trained together
  TRAIN_STEPS=$TRAIN_STEPS         optimizer steps of each run
  DATA_DIR=$DATA_DIR  RUNS_DIR=$RUNS_DIR  FIGURES_DIR=$FIGURES_DIR   where things go, relative to the project's root
$(environment_parameters)
HELP
}

if [[ ${1:-} == --help ]]; then usage; exit 0; fi
if (($# > 0)); then usage >&2; exit 2; fi

enter_environment "$PWD"

python -m data_gen.main --split="$SPLIT" --image_size="$IMAGE_SIZE" --data_dir="$DATA_DIR"
for layers in $LAYERS; do
  python -m vae_rd.main --beta="$BETAS" --num_layers="$layers" --split="$SPLIT" --image_size="$IMAGE_SIZE" \
    --train_steps="$TRAIN_STEPS" --eval_images=2048 --data_dir="$DATA_DIR" --runs_dir="$RUNS_DIR"
done
python -m vae_rd.export --runs_dir="$RUNS_DIR" --out_dir="$FIGURES_DIR"
cat <<TEXT
Look at $FIGURES_DIR/rd.png, from the left (large beta) to the right (small beta): both training curves fall all the way;
with 1 layer the test curve soon turns up again, a U, and with 3 layers it falls for longer: there, less weight on the
rate helps to generalise.
TEXT
