#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Evaluate a checkpoint on several cards, every image once; the last line is one JSON object. --help lists what
# can be set.
[ -n "${BASH_VERSION:-}" ] || { echo "error: start it with bash: bash $0" >&2; exit 2; }
set -euo pipefail
usage="usage: bash scripts/$(basename "$0") CHECKPOINT DATA [DEVICE_NUM=8] [--key value ...]"
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

start_door eval.py CHECKPOINT checkpoint_path DEVICE_NUM "$@"
