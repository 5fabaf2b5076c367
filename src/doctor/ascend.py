# SPDX-License-Identifier: Apache-2.0
"""An Ascend card's device files, driver and CANN toolkit."""

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..parallel.launch import checks
from .commands import ask
from .finding import Finding, failure, ok, warning

# Of mindspore/run_check/_check_version.py in MindSpore 2.10.
CANN_VERSIONS = ("8.2", "8.3", "8.5", "9.0", "9.1")
DRIVER = Path("/usr/local/Ascend/driver")
SMI_FOLDERS = ("/usr/local/bin", "/usr/local/sbin")
TOOLKITS = ("/usr/local/Ascend/cann", "/usr/local/Ascend/ascend-toolkit/latest")
HELPERS = ("davinci_manager", "devmm_svm", "hisi_hdc")  # device files that every card needs
_CONTAINER = (
    "in a container: docker run --device /dev/davinci0 (one for each card) "
    + " ".join(f"--device /dev/{name}" for name in HELPERS)
    + "".join(f" -v {path}:{path}" for path in (DRIVER, "/usr/local/dcmi", "/usr/local/bin/npu-smi"))
)
_HEALTH = re.compile(r"^\|\s*(\d+)\s+(\S+)\s*\|\s*([A-Za-z]+)\s*\|", re.MULTILINE)


def check_ascend(asked: bool) -> Iterator[Finding]:
    """The lines for Ascend; without a card one line, unless one is asked for.

    Args:
        asked: whether the training is to run on Ascend: what is missing is then a failure.
    """
    cards = checks.visible_cards("Ascend")
    if not cards:
        what = f"no card ({checks.DEVICES}/davinci* shows none)"
        if asked:
            yield failure("Ascend", what, f"{_CONTAINER}; else install the driver, and restart")
        else:
            yield ok("Ascend", what)
            return
    else:
        yield check_device_files(len(cards))
        yield check_driver(cards)
    yield check_cann()


def check_device_files(cards: int) -> Finding:
    """Whether this user may open the files of the cards."""
    devices = checks.DEVICES
    missing = [name for name in HELPERS if not (devices / name).exists()]
    if missing:
        return failure("Ascend", f"{cards} cards, but no {devices}/{missing[0]}", _CONTAINER)
    names = [path.name for path in devices.glob("davinci*")]
    closed = [name for name in (*sorted(names), *HELPERS) if not os.access(devices / name, os.R_OK | os.W_OK)]
    if closed:
        return failure(
            "Ascend",
            f"{cards} cards, but this user may not open {devices}/{closed[0]}",
            "usermod -a -G HwHiAiUser USER as root, then log in again",
        )
    return ok("Ascend", f"{cards} {'card' if cards == 1 else 'cards'}")


def check_driver(cards: Sequence[str], driver: Path = DRIVER) -> Finding:
    """Its version, and what npu-smi says of each of the cards that may be used."""
    version = read_version(driver / "version.info") or "unknown version"
    answer = ask(["npu-smi", "info"], also_in=SMI_FOLDERS)
    if answer is None:
        return warning("driver", f"{version}; no npu-smi, so the cards' health is unknown", _CONTAINER)
    if answer.error:
        mend = "npu-smi info must list the cards: install the driver again, or restart the server"
        return failure("driver", f"{version}; {answer.error}", mend)
    found = [row for row in _HEALTH.findall(answer.output) if row[0] in cards]
    sick = [(card, f"card {card} ({name}) is {health}") for card, name, health in found if health != "OK"]
    if sick:
        what = f"{version}; {', '.join(text for _, text in sick)}"
        mend = f"npu-smi info -t health -i {sick[0][0]} says why; ASCEND_RT_VISIBLE_DEVICES leaves a card out"
        return failure("driver", what, mend)
    if len(found) < len(cards):
        what = f"{version}; npu-smi lists {len(found) or 'no card'} of {len(cards)}"
        return warning("driver", what, "npu-smi info must list each card; restart the server")
    names = ", ".join(sorted({name for _, name, _ in found}))
    return ok("driver", f"{version}; npu-smi: {names}, healthy")


def check_cann(environment: Mapping[str, str] = os.environ) -> Finding:
    """The toolkit, its version, and whether its set_env.sh was called."""
    home = environment.get("ASCEND_HOME_PATH") or environment.get("ASCEND_TOOLKIT_HOME")
    if not home:
        there = next((path for path in TOOLKITS if os.path.isdir(path)), None)
        if there is None:
            what = f"no toolkit ({' and '.join(TOOLKITS)} are not there)"
            mend = f"install toolkit and operator package (ops or kernels) of CANN {', '.join(CANN_VERSIONS)}"
            return failure("CANN", what, f"{mend} (www.hiascend.com), then source set_env.sh")
        return failure("CANN", f"{there}: its variables are not set", f"source {_set_env(there)}")
    if not os.path.isdir(home):
        mend = "source the set_env.sh of a toolkit that is there"
        return failure("CANN", f"ASCEND_HOME_PATH is {home}, which is not there", mend)
    if "ASCEND_OPP_PATH" not in environment or not importlib.util.find_spec("te"):
        what = f"{home}: ASCEND_OPP_PATH or the Python package te is missing"
        package = "the operator package (ops or kernels) of the same version"
        return failure("CANN", what, f"source {_set_env(home)}, and install {package}")
    version = read_version(Path(home) / "compiler" / "version.info")
    if version is None:
        return ok("CANN", f"{home}, of an unknown version")
    if ".".join(version.split(".")[:2]) not in CANN_VERSIONS:
        what = f"{version} ({home}): MindSpore 2.10 expects {', '.join(CANN_VERSIONS)}"
        return warning("CANN", what, "install one of these, with the driver that belongs to it")
    return ok("CANN", f"{version} ({home})")


def read_version(path: Path) -> str | None:
    """What stands behind Version= in a version.info."""
    try:
        found = re.search(r"^Version=(\S+)", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None


def _set_env(home: str) -> Path:
    """ascend-toolkit/set_env.sh stands beside ascend-toolkit/latest, cann/set_env.sh inside of it."""
    inside = Path(home) / "set_env.sh"
    return inside if os.path.isfile(inside) else Path(home).parent / "set_env.sh"
