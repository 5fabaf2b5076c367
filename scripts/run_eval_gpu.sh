#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run_eval.sh on a GPU.
[ -n "${BASH_VERSION:-}" ] || { echo "error: start it with bash: bash $0" >&2; exit 2; }
set -euo pipefail
default_target=GPU
# shellcheck source=scripts/run_eval.sh
source "$(dirname "${BASH_SOURCE[0]}")/run_eval.sh"
