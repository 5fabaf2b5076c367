"""What a door answered: its last line as JSON, or its one line of error; and the classes of `pictures`."""

import json

import pytest

CLASSES = ("blue jays", "grass", "red")


def last_json(process):
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def error_of(process) -> str:
    """The one line of a refused call."""
    assert process.returncode == 2 and "Traceback" not in process.stderr, process.stderr
    errors = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, process.stderr
    return errors[0]


def check_same_answers(door, pictures, model, checkpoint) -> None:
    """infer.py says the same of 36 pictures by both files."""
    answers = [
        last_json(door("infer.py", pictures, "--json", model_path=path))["results"]
        for path in (model, checkpoint)
    ]
    assert len(answers[0]) == 36
    for exported, network in zip(*answers, strict=True):
        ours, theirs = ({p["class"]: p["probability"] for p in r["predictions"]} for r in (exported, network))
        assert ours.keys() == theirs.keys() and set(ours) <= set(CLASSES)
        assert all(ours[name] == pytest.approx(theirs[name], abs=1e-4) for name in ours)
