# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the other scripts, which set `usage` before, and `details` if --help says more: errors, checked arguments,
# absolute paths, and which Python.
# Sets ROOT, the repository's folder, and PYTHON: the variable of that name, else .venv's, else python3.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
  echo "error: $*" >&2
  exit 2
}

# show_help "$@": if the first word is --help, prints the usage and the details, and ends. It needs no Python.
show_help() {
  case ${1:-} in
    -h | --help)
      echo "${usage:-}${details:+$'\n'$details}"
      exit 0
      ;;
  esac
}

# need LEAST MOST "$@": shows the help, or refuses a wrong Python or another number of arguments.
need() {
  local least=$1 most=$2
  shift 2
  show_help "$@"
  check_python
  if [ $# -lt "$least" ] || [ $# -gt "$most" ]; then
    fail "$# arguments given; ${usage:-}"
  fi
}

# absolute WHAT PATH: the absolute path of a file or folder that is there.
absolute() {
  [ -e "$2" ] || fail "$1 $2: no such file or folder; ${usage:-}"
  echo "$(cd "$(dirname "$2")" && pwd)/$(basename "$2")"
}

# whole_number WHAT VALUE LEAST: refuses what is no whole number of at least LEAST.
whole_number() {
  if ! [[ $2 =~ ^[0-9]+$ ]] || [ "$2" -lt "$3" ]; then
    fail "$1 is $2; a whole number of at least $3 is needed; ${usage:-}"
  fi
}

doctor="python3 -m src.tools.doctor says what this machine has"
outside=
if [ -z "${PYTHON:-}" ]; then
  PYTHON=$ROOT/.venv/bin/python
  [ -x "$PYTHON" ] || { PYTHON=python3 outside=1; }
fi

# check_python: refuses a PYTHON that is not there or too old, and says so if it is not .venv's though nobody chose
# another. What it has no package for, the doors say.
check_python() {
  local version
  version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null) \
    || fail "PYTHON is $PYTHON, which does not run; set PYTHON, or let scripts/quickstart.sh make .venv; $doctor"
  case $version in
    [12].* | 3.[0-9] | 3.10) fail "$PYTHON is Python $version, and 3.11 is needed; set PYTHON, or use .venv; $doctor" ;;
  esac
  [ -z "$outside" ] || echo "no .venv in $ROOT: starting with $(command -v "$PYTHON"), Python $version" >&2
}
