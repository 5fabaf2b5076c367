#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Classify images on an Ascend 310 by MindSpore Lite: preparation, inference and accuracy in one go.
# --help lists what can be set.
[ -n "${BASH_VERSION:-}" ] || { echo "error: start it with bash: bash $0" >&2; exit 2; }
set -euo pipefail

usage="usage: bash scripts/run_infer_310.sh MODEL DATA [DEVICE_ID]"
details="
MODEL is what export.py wrote: the folder, or one of its .mindir files. DATA is an image, a folder of images, of class
folders, or of CIFAR's binary files; of the last two the accuracy is printed. Variables of the environment:
  DEVICE_TARGET     Ascend, or CPU: by MindSpore Lite where it is installed, otherwise by MindSpore (Ascend)
  DEVICE_ID         the device, when it is not the third argument (0)
  LABELS            file with a line IMAGE,CLASS for each image of other folders, to know the accuracy (none)
  BATCH_SIZE        images a call: one of the sizes that MODEL was exported for (the largest)
  ANSWERS           file for every answer and all figures, as JSON (answers-date-time.json)
  PYTHON            the interpreter, which has mindspore_lite (.venv/bin/python, else python3)
The exit status is 2 for a mistake in the call, and for an image that cannot be read; the others are answered then."
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

need 2 3 "$@"
model=$(absolute MODEL "$1")
data=$(absolute DATA "$2")
device=${3:-${DEVICE_ID:-0}}
whole_number DEVICE_ID "$device" 0
case $model in
  *.mindir) ;;
  *) [ -f "$model/card.json" ] || fail "MODEL $model: the folder of an export or a .mindir in it is needed" ;;
esac
labels=auto
[ -z "${LABELS:-}" ] || labels=$(absolute LABELS "$LABELS")
batch=()
[ -z "${BATCH_SIZE:-}" ] || batch=(--batch_size "$BATCH_SIZE")

target=${DEVICE_TARGET:-Ascend}
backend=lite
case $target in
  Ascend) ;;
  CPU)
    if ! "$PYTHON" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("mindspore_lite"))'; then
      backend=mindspore
      echo "mindspore_lite is not installed: MindSpore itself runs the file on the CPU"
    fi
    ;;
  *) fail "DEVICE_TARGET is $target; Ascend or CPU is needed; $usage" ;;
esac

export DEVICE_ID=$device
exec "$PYTHON" "$ROOT/infer.py" --model_path "$model" "$data" --backend "$backend" --device_target "$target" \
  --labels "$labels" --summary --output "${ANSWERS:-answers-$(date +%Y%m%d-%H%M%S).json}" ${batch[@]+"${batch[@]}"}
