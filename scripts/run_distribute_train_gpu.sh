#!/usr/bin/env bash
# run_distribute_train.sh on GPUs, joined by NCCL.
set -euo pipefail
default_target=GPU
# shellcheck source=scripts/run_distribute_train.sh
source "$(dirname "${BASH_SOURCE[0]}")/run_distribute_train.sh"
