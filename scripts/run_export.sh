#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Export a checkpoint for inference; the last line is one JSON object. `python export.py --help` has the formats.
# --help lists what can be set.
[ -n "${BASH_VERSION:-}" ] || { echo "error: start it with bash: bash $0" >&2; exit 2; }
set -euo pipefail
usage="usage: bash scripts/$(basename "$0") CHECKPOINT [FORMAT=MINDIR] [FOLDER] [--key value ...]"
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

take_words 1 3 "$@"
checkpoint=$(absolute CHECKPOINT "${GIVEN[0]}")
format=${GIVEN[1]:-MINDIR}
out=()
if [ -n "${GIVEN[2]:-}" ]; then
  name=$(realpath -m "${GIVEN[2]}")
  case ${GIVEN[2]} in */) name=$name/ ;; esac  # a folder to have the export in
  out=(--file_name "$name")
fi
launch --standalone "${DEVICE_ID:-0}" export.py --checkpoint_path "$checkpoint" --file_format "$format" \
  ${out[@]+"${out[@]}"}
