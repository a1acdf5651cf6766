# shellcheck shell=bash
# Sourced, never run: puts the shell into the virtual environment that holds vae_rd in its tested versions.
#
# An active environment (VIRTUAL_ENV) is used as it is; else .venv in the project's root is made and entered. Installs
# only if setup.cfg, pyproject.toml or launch/constraints.txt have changed since the last time: a second start takes no
# time.

environment_parameters() { # for --help
  cat <<HELP
  PYTHON=python3        makes the environment
  EXTRAS=cuda           further extras of setup.cfg, with commas; default: ${default_extras:-cuda where nvidia-smi finds a GPU}
  INSTALL=yes           "no": take the environment as it is, and the python on PATH where there is none
HELP
}

# What a script needs more than once, it takes as a variable: a flag would reach the sweep alone, not the figures.
refuse_flags() { # refuse_flags <arguments of the script>
  local flag name variable
  for flag in "$@"; do
    for name in experiment scale data_dir runs_dir out_dir; do
      if [[ $flag =~ ^--?$name(=|$) ]]; then
        variable=${name^^}
        echo "error: $flag must be given as a variable, before the command: ${variable/OUT/FIGURES}=..." >&2
        return 2
      fi
    done
  done
}

enter_environment() { # enter_environment <root of the project> [extra of setup.cfg that the caller needs]
  if [[ -z ${VIRTUAL_ENV:-} ]]; then
    if [[ ! -f $1/.venv/bin/activate ]]; then
      if [[ ${INSTALL:-yes} == no ]]; then return; fi
      make_environment "$1/.venv"
    fi
    # shellcheck disable=SC1091
    source "$1/.venv/bin/activate"
  fi
  if [[ ${INSTALL:-yes} != no ]]; then install_once "$@"; fi
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

install_once() { # install_once <root of the project> [extra]
  local root=$1 needed=${2:-} stamp=$VIRTUAL_ENV/vae_rd-installed.txt further version extras
  further=${EXTRAS-$(if nvidia-smi -L >/dev/null 2>&1; then echo cuda; fi)}
  extras=$needed${needed:+${further:+,}}$further
  version=$(cd "$root" && cat pyproject.toml setup.cfg launch/constraints.txt <(pwd) | sha256sum | cut -c1-64)
  if [[ -f $stamp ]] && installed "$version" "$extras" <"$stamp"; then return; fi
  echo "Installing vae_rd${extras:+ with the extras $extras} into $VIRTUAL_ENV: some gigabytes and minutes, once"
  grep -qs "^$version," "$stamp" || rm -f "$stamp" # lines of another version say nothing about what is there now
  python -m pip install --constraint "$root/launch/constraints.txt" --editable "$root${extras:+[$extras]}"
  echo "$version,$extras," >>"$stamp"
}

installed() { # installed <version> <extras>: does a line of standard input have them all?
  local line extra
  while read -r line; do
    for extra in "$1" ${2//,/ }; do [[ ,$line == *,$extra,* ]] || continue 2; done
    return 0
  done
  return 1
}
