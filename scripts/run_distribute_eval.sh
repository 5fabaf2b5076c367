#!/usr/bin/env bash
# Evaluate a checkpoint on several cards, every image once; the last line is one JSON object. --help lists what
# can be set.
set -euo pipefail
usage="usage: bash scripts/$(basename "$0") CHECKPOINT DATA [DEVICE_NUM=8] [--key value ...]"
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

take_words 2 3 Ascend "$@"
checkpoint=$(absolute CHECKPOINT "${GIVEN[0]}")
data=$(absolute DATA "${GIVEN[1]}")
count=${GIVEN[2]:-8}
whole_number DEVICE_NUM "$count" 1
launch --workers "$count" eval.py --checkpoint_path "$checkpoint" --data_path "$data"
