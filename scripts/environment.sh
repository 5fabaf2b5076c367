# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the other scripts: goes to the repository's root and makes .venv with the pinned requirements.
#   source scripts/environment.sh requirements.txt
# Sets PYTHON. A .venv whose requirements have not changed is taken as it is.

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT" || exit 2
requirements=$1

if [ ! -x .venv/bin/python ]; then
  base=
  for candidate in python3.11 python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      base=$candidate
      break
    fi
  done
  [ -n "$base" ] || fail "Python 3.11 with venv is needed (python3.11 or python3 on the PATH); $doctor"
  echo "making .venv with $("$base" --version)"
  rm -rf .venv
  "$base" -m venv .venv || fail "cannot make .venv here; check free space and write permission; $doctor"
fi

PYTHON=$PWD/.venv/bin/python
stamp=.venv/.installed-$requirements
if ! cat requirements.txt "$requirements" | cmp -s - "$stamp"; then
  echo "installing $requirements (about 1.5 GB, once)"
  # A making of .venv that was interrupted leaves a Python without pip.
  "$PYTHON" -m pip --version > /dev/null 2>&1 || "$PYTHON" -m ensurepip > /dev/null \
    || fail "$PYTHON has no pip; remove .venv, then call this again; $doctor"
  "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$requirements" \
    || fail "pip could not install $requirements; check the network, then call this again; $doctor"
  cat requirements.txt "$requirements" > "$stamp.new"
  mv "$stamp.new" "$stamp"
fi
