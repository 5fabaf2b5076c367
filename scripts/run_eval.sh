#!/usr/bin/env bash
# Evaluate a checkpoint on one card; the last line is one JSON object. --help lists what can be set.
set -euo pipefail
usage="usage: bash scripts/$(basename "$0") CHECKPOINT DATA [DEVICE_ID=0] [--key value ...]"
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

take_words 2 3 "${default_target:-Ascend}" "$@"
checkpoint=$(absolute CHECKPOINT "${GIVEN[0]}")
data=$(absolute DATA "${GIVEN[1]}")
device=${GIVEN[2]:-${DEVICE_ID:-0}}
whole_number DEVICE_ID "$device" 0
launch --standalone "$device" eval.py --checkpoint_path "$checkpoint" --data_path "$data"
