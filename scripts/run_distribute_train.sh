#!/usr/bin/env bash
# Train on the cards of a server, or of several: a process a card. The last line names the run's folder.
# --help lists what can be set.
set -euo pipefail
usage="usage: bash scripts/$(basename "$0") CONFIG DATA [DEVICE_NUM=8] [--key value ...]"
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

take_words 2 3 "${default_target:-Ascend}" "$@"
config=$(absolute CONFIG "${GIVEN[0]}")
data=$(absolute DATA "${GIVEN[1]}")
count=${GIVEN[2]:-8}
whole_number DEVICE_NUM "$count" 1
launch --workers "$count" train.py --config_path "$config" --data_path "$data"
