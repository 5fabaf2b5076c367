#!/usr/bin/env bash
# Train on one card; the last line names the run's folder. --help lists what can be set.
set -euo pipefail
usage="usage: bash scripts/$(basename "$0") CONFIG DATA [DEVICE_ID=0] [--key value ...]"
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

take_words 2 3 "${default_target:-Ascend}" "$@"
config=$(absolute CONFIG "${GIVEN[0]}")
data=$(absolute DATA "${GIVEN[1]}")
device=${GIVEN[2]:-${DEVICE_ID:-0}}
whole_number DEVICE_ID "$device" 0
launch --standalone "$device" train.py --config_path "$config" --data_path "$data"
