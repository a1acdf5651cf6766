# shellcheck shell=bash
# Sourced, never run: puts the shell into the virtual environment that holds vae_rd in its tested versions.
#
# An active environment (VIRTUAL_ENV) is used as it is; else .venv in the project's root is made and entered.
# Installs only if setup.cfg or launch/constraints.txt have changed since the last time: a second start takes no time.
# Parameters: PYTHON (python3) makes the environment; INSTALL=no enters it and installs nothing.

enter_environment() { # enter_environment <root of the project> [extra of setup.cfg]
  local root=$1 extra=${2:-}
  if [[ -z ${VIRTUAL_ENV:-} ]]; then
    [[ -f $root/.venv/bin/activate ]] || make_environment "$root/.venv"
    # shellcheck disable=SC1091
    source "$root/.venv/bin/activate"
  fi
  [[ ${INSTALL:-yes} == no ]] || install_once "$root" "$extra"
}

make_environment() { # make_environment <folder>
  local python=${PYTHON:-python3}
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$python is missing or older than 3.11. Install Python 3.11 or newer, or name one: PYTHON=/path/to/python." >&2
    return 1
  fi
  echo "Making a virtual environment in $1"
  if ! "$python" -m venv "$1"; then
    rm -rf "$1"
    echo "$python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv." >&2
    return 1
  fi
}

install_once() { # install_once <root of the project> [extra of setup.cfg]
  local root=$1 extras=$2 stamp=$VIRTUAL_ENV/vae_rd-installed.txt version
  if nvidia-smi -L >/dev/null 2>&1; then extras+=${extras:+,}cuda; fi
  version=$(cd "$root" && cat pyproject.toml setup.cfg launch/constraints.txt <(pwd) | sha256sum | cut -c1-64)
  if grep -Eqs "^$version .*\b$2\b" "$stamp"; then return; fi # with or without further extras
  echo "Installing vae_rd${extras:+ with extras $extras} into $VIRTUAL_ENV: about 2 GB and a few minutes, once"
  python -m pip install --constraint "$root/launch/constraints.txt" --editable "$root${extras:+[$extras]}"
  echo "$version installed,$extras" >>"$stamp"
}
