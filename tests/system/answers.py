"""What a door answered: its last line as JSON, or its one line of error; and the classes of `pictures`."""

import json

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
