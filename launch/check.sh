#!/usr/bin/env bash
# What can be said of the code without running it: style (ruff), types (mypy), directions of imports (import-linter).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

usage() {
  cat <<HELP
Usage: bash launch/check.sh

Installs vae_rd with the test extras and runs ruff, mypy and lint-imports, as pyproject.toml configures them. Each
runs whatever the others find; the status is 1 if any of them found something.

$(environment_parameters)
HELP
}

if [[ ${1:-} == --help ]]; then usage; exit 0; fi
if (($# > 0)); then usage >&2; exit 2; fi

enter_environment "$PWD" test

status=0
ruff check . || status=1
mypy || status=1
lint-imports --no-logo pyproject.toml || status=1
exit "$status"
