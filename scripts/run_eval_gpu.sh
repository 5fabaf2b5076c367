#!/usr/bin/env bash
# run_eval.sh on a GPU.
set -euo pipefail
default_target=GPU
# shellcheck source=scripts/run_eval.sh
source "$(dirname "${BASH_SOURCE[0]}")/run_eval.sh"
