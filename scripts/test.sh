#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Lint and test. --help lists what can be set.
[ -n "${BASH_VERSION:-}" ] || { echo "error: start it with bash: bash $0" >&2; exit 2; }
set -euo pipefail

usage="usage: bash scripts/test.sh [pytest arguments]"
details="
  bash scripts/test.sh                     the default suite
  bash scripts/test.sh --slow              the tests that train for minutes too
  bash scripts/test.sh -n 0                in one process, as a debugger wants it
  bash scripts/test.sh --durations 40      the 40 slowest tests and files, 20 without it
  QUARTET_DATA=DIR bash scripts/test.sh    the tests on real images too; DIR holds cifar-10-batches-bin"
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
show_help "$@"
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh" requirements-dev.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
.venv/bin/shellcheck --external-sources scripts/*.sh
# A file of tests stays in one process. Two keep two cores busy; more would wait for each other's threads.
# Files go in the order of tests/conftest.py, the long ones first.
exec "$PYTHON" -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20 "$@"
