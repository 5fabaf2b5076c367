#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to a trained, evaluated, exported CIFAR-10 classifier in minutes, on a CPU.
# --help says on which data.
[ -n "${BASH_VERSION:-}" ] || { echo "error: start it with bash: bash $0" >&2; exit 2; }
set -euo pipefail

usage="usage: bash scripts/quickstart.sh [--data_path DIR]"
details="
DIR holds the CIFAR-10 binary files. Without it: data/cifar-10-batches-bin if it is there, else the official archive is
downloaded, else (no network) a data set of drawn shapes takes its place. The run is written to runs/."
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
show_help "$@"
case $#:${1:-} in
  0:) data= ;;
  2:--data_path) data=$(absolute --data_path "$2") ;;
  *) fail "$* given; $usage" ;;
esac

# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh" requirements.txt
began=$SECONDS

if [ -z "$data" ]; then
  if [ -d data/cifar-10-batches-bin ]; then
    data=data/cifar-10-batches-bin
  elif [ -d data/shapes ]; then
    data=data/shapes
    echo "Using the drawn shapes of an earlier call; delete data/shapes to try the CIFAR-10 download again."
  elif "$PYTHON" -m src.data.prepare cifar10 --output_path data; then
    data=data/cifar-10-batches-bin
  else
    echo "CIFAR-10 cannot be downloaded here, so a data set of drawn shapes takes its place."
    "$PYTHON" -m src.data.prepare shapes --output_path data/shapes
    data=data/shapes
  fi
fi

name=quickstart-$(date +%Y%m%d-%H%M%S)
run=runs/$name
"$PYTHON" train.py --config_path configs/resnet9/quickstart.yaml --data_path "$data" --output_path runs \
  --run_name "$name"
best=$run/checkpoints/best.ckpt
result=$("$PYTHON" eval.py --checkpoint_path "$best" | tail -n 1)
report=$("$PYTHON" export.py --checkpoint_path "$best" --file_format MINDIR | tail -n 1)
"$PYTHON" -m src.data.prepare samples --data_path "$data" --output_path "$run/samples" > /dev/null
echo
"$PYTHON" infer.py --model_path "$run/resnet9_mindir" "$run/samples" --top 2
echo
"$PYTHON" - "$result" "$report" << 'PYTHON'
import json
import sys

result, report = map(json.loads, sys.argv[1:])
print(f"accuracy   {result['top1']:.2f} % top-1 on {result['count']} test images")
print(f"export     differs from the network by {report['file']['relative_difference']:.1e} of its largest logit")
PYTHON
cat << SUMMARY
time       $((SECONDS - began)) s
run        $run
report     $run/report.html
pictures   $run/learning_curves.png  $run/confusion_matrix.png  $run/worst_mistakes.png
model      $run/resnet9_mindir
SUMMARY
