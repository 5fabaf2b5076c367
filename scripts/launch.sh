# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the scripts that start a door through src/parallel/launch, which set `usage` before, and
# `default_target` where it is not Ascend, and call
#   start_door DOOR NAME KEY DEVICE_ID|DEVICE_NUM "$@"    for the words NAME DATA [DEVICE_ID|DEVICE_NUM] [--key value ...]
# or, for other words,
#   take_words LEAST MOST "$@"     the words before the first --key: the array GIVEN; the rest: KEYS
#   launch --workers N|--standalone DEVICE_ID DOOR WORD ...

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

details="
Further keys go to the program. Everything else is set by variables of the environment:
  DEVICE_TARGET     Ascend, GPU or CPU: CPU runs the same on CPU processes
  LOG_DIR           new folder for the logs, one worker_R.log a process (logs/PROGRAM-date-time)
  MAX_RESTARTS      how often to start again after a failure; a training continues from its newest checkpoint (0)
  HANG_TIMEOUT      seconds without a sign of life of a process, after which all end (600)
  PROGRESS_TIMEOUT  seconds without a batch of any process, after which all end (3600)
  STOP_TIMEOUT      after a signal, seconds without a batch before all are killed (300)
  PYTHON            the interpreter (.venv/bin/python, else python3)
Several processes:
  NODE_NUM          servers; DEVICE_NUM is the number of cards of each (1)
  NODE_RANK         which of the servers this is; 0 is that of MASTER_ADDR
  MASTER_ADDR       its address
  MASTER_PORT       one of its ports (8118 for several servers, else a free one)
  CLUSTER_TIMEOUT   seconds for all processes to meet (600)
  BIND_CORES        0: a process may use all cores, not only its share of them (1)
  RANK_TABLE_FILE   start from this rank table, without msrun (Ascend)
SIGTERM, SIGINT (Ctrl-C), SIGHUP and SIGUSR1 let all processes save and stop; a second SIGTERM or SIGINT kills.
The exit status is the processes' own: 2 for a mistake in the call, 143 after such a signal (state saved),
124 for a hang, 128 and the signal's number for a killed process."

take_words() {
  local least=$1 most=$2
  DEVICE_TARGET=${DEVICE_TARGET:-${default_target:-Ascend}}
  shift 2
  GIVEN=()
  while [ $# -gt 0 ] && { [[ $1 != --* ]] || [ "$1" = --help ]; }; do
    GIVEN+=("$1")
    shift
  done
  KEYS=("$@")
  need "$least" "$most" ${GIVEN[@]+"${GIVEN[@]}"}
  case $DEVICE_TARGET in
    Ascend | GPU | CPU) ;;
    *) fail "DEVICE_TARGET is $DEVICE_TARGET; Ascend, GPU or CPU is needed; $usage" ;;
  esac
}

start_door() {
  local door=$1 name=$2 key=$3 devices=$4 file data number
  shift 4
  take_words 2 3 "$@"
  file=$(absolute "$name" "${GIVEN[0]}") || exit
  data=$(absolute DATA "${GIVEN[1]}") || exit
  if [ "$devices" = DEVICE_ID ]; then
    number=${GIVEN[2]:-${DEVICE_ID:-0}}
    whole_number DEVICE_ID "$number" 0
    set -- --standalone "$number"
  else
    number=${GIVEN[2]:-8}
    whole_number DEVICE_NUM "$number" 1
    set -- --workers "$number"
  fi
  launch "$@" "$door" "--$key" "$file" --data_path "$data"
}

# Takes this process's place: its exit status is the door's, and signals reach it.
launch() {
  local flag=$1 value=$2 door=$3
  shift 3
  export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
  exec "$PYTHON" -m src.tools.launch "$flag" "$value" --device_target "$DEVICE_TARGET" -- \
    "$ROOT/$door" "$@" --device_target "$DEVICE_TARGET" ${KEYS[@]+"${KEYS[@]}"}
}
