#!/usr/bin/env bash
# run_standalone_train.sh on GPU.
set -euo pipefail
default_target=GPU
# shellcheck source=scripts/run_standalone_train.sh
source "$(dirname "${BASH_SOURCE[0]}")/run_standalone_train.sh"
