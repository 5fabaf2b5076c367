# SPDX-License-Identifier: Apache-2.0
"""What this machine has, and whether Quartet will work on it. Needs no package, and changes nothing.

python -m src.tools.doctor
python -m src.tools.doctor --data_path data --output_path /big/disk/runs
python -m src.tools.doctor --device_target Ascend --cards 8

Each line is ok, a warning (it works, but slower or untested) or a failure (it will not work), with the mend
below it. The exit code is 2 if there is a failure. RANK_TABLE_FILE, NODE_NUM, NODE_RANK, MASTER_ADDR and
MASTER_PORT are read from the environment, as the scripts do.
"""

import sys

TARGETS = ("auto", "Ascend", "GPU", "CPU")


def main(arguments):
    from dataclasses import asdict
    from pathlib import Path

    from ..common.cli import as_called_here, parser
    from ..common.errors import UserError
    from ..common.files import to_json
    from ..doctor.examine import examine
    from ..doctor.finding import in_words

    flags = parser(__doc__)
    flags.add_argument("--data_path", help="the data of a training: can it be opened? (not looked at)")
    flags.add_argument("--output_path", default="runs", help="the folder of the runs: is there space? (runs)")
    flags.add_argument("--device_target", choices=TARGETS, default="auto", help="where to train (auto)")
    flags.add_argument("--cards", type=int, default=0, help="cards of this server to train on (all)")
    flags.add_argument("--json", action="store_true", help="one JSON object on the last line")
    own = flags.parse_args(arguments)
    if own.cards < 0:
        raise UserError(f"cards: {own.cards} given, allowed: a whole number >= 0")
    findings = examine(
        device_target=own.device_target,
        cards=own.cards,
        output_path=Path(own.output_path),
        data_path=None if own.data_path is None else Path(own.data_path),
    )
    print(as_called_here(in_words(findings)))
    failures = [finding.name for finding in findings if finding.state == "failure"]
    if own.json:
        facts = {"works": not failures, "findings": [asdict(finding) for finding in findings]}
        print(as_called_here(to_json(facts)))
    if failures:
        raise UserError(f"this will not work yet: {', '.join(failures)}; the mend stands below each failure")
    return 0


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - the other modules cannot even be imported
        version = ".".join(map(str, sys.version_info[:3]))
        mend = "install it; scripts/quickstart.sh then makes .venv"
        print(f"error: {sys.executable} is Python {version}, and 3.11 is needed; {mend}", file=sys.stderr)
        sys.exit(2)
    from ..common.cli import run

    run(main)
