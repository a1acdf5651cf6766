#!/usr/bin/env bash
# Installs vae_rd with the test extras and runs the whole test suite.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

usage() {
  cat <<HELP
Usage: bash launch/test.sh [arguments of pytest]

  bash launch/test.sh                     the whole suite
  bash launch/test.sh -m "not slow"       what to run while working: without the tests that take over 2 seconds
  bash launch/test.sh -n 0 tests/storage  one folder, in one process

Two processes share the files, each file whole in one of them, so that its runs are trained once; 2 GB of memory each.

$(environment_parameters)

Tests that need a program which is not there (Slurm, a browser, shellcheck) are skipped and say so; .ci/run installs
those programs.
HELP
}

if [[ ${1:-} == --help ]]; then usage; exit 0; fi

enter_environment "$PWD" test

exec python -m pytest -p no:cacheprovider -ra --durations=15 -n 2 --dist loadfile --no-loadscope-reorder "$@"
