#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on one card; the last line names the run's folder. --help lists what can be set.
[ -n "${BASH_VERSION:-}" ] || { echo "error: start it with bash: bash $0" >&2; exit 2; }
set -euo pipefail
usage="usage: bash scripts/$(basename "$0") CONFIG DATA [DEVICE_ID=0] [--key value ...]"
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

start_door train.py CONFIG config_path DEVICE_ID "$@"
