# SPDX-License-Identifier: Apache-2.0
"""Every command of README.md and docs: done on small data, or up to its work where the page has a mark."""

import re
import time
from collections import Counter

import pytest

from tests.helpers.commands import LANGUAGES, Command, commands_of, fences, inline_commands_of, named, pages
from tests.helpers.page_folder import PageFolder

PAGES = pages()
COMMANDS = [one for page in PAGES for one in (*commands_of(page), *inline_commands_of(page))]


@pytest.fixture(scope="module")
def folder(data_path, trained, tmp_path_factory):
    return PageFolder(tmp_path_factory.mktemp("pages"), data_path=data_path, trained=trained)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_says_its_language_and_every_line_of_a_shell_is_a_command(page):
    for language, line, _ in fences(page):
        assert language in LANGUAGES, f"{page.name}:{line}: say {', '.join(LANGUAGES)} behind ```"
    assert page.read_text().count("\n```") == 2 * len(list(fences(page)))
    for command in commands_of(page):
        assert re.match(r"([A-Z_]+=\S+ )*(python|bash|wget|pip|git)\b", command.text), str(command)


PAGE = """# A page
In a sentence `python -m src.tools.find_lr A.yaml
--lr_max 2` and `python -m src.tools.NAME`, but `python` alone is none.

```bash
python train.py --note "a # b"   # a comment
A=1 bash scripts/run_eval.sh C D [E]   # needs a card; more
python eval.py \\
    --task retrieval
# takes hours: all of these
python -m src.tools.ablate *.yaml
python - <<'PY'
print(1)
PY
```

```text
python none.py
```

```python
import src  # needs a network
```
"""


def test_the_commands_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert [(one.line, one.text, one.mark, one.code) for one in commands_of(page)] == [
        (6, 'python train.py --note "a # b"', "", ""),
        (7, "A=1 bash scripts/run_eval.sh C D [E]", "needs a card", ""),
        (8, "python eval.py --task retrieval", "", ""),
        (11, "python -m src.tools.ablate *.yaml", "takes hours", ""),
        (12, "python -", "takes hours", "print(1)\n"),
        (22, "python", "needs a network", "import src  # needs a network\n"),
    ]
    (inline,) = inline_commands_of(page)
    assert (inline.line, inline.text) == (2, "python -m src.tools.find_lr A.yaml --lr_max 2")
    assert commands_of(page)[1].words == ["A=1", "bash", "scripts/run_eval.sh", "C", "D"]


def do_all(folder) -> None:
    """Prints what each took, and how many there are of each kind."""
    failed = []
    for command in COMMANDS:
        began = time.process_time()
        try:
            folder.do(command)
        except Exception as error:
            failed.append(f"{command}: {error}")
        print(f"{time.process_time() - began:.1f} s  {command.kind:8}{command}")
    counts = Counter(command.kind for command in COMMANDS)
    print(len(COMMANDS), "commands:", ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    assert not failed, "\n".join(failed)


def test_every_command(folder, request):
    """Trainings, and exports of a format that was exported before, end where they would begin to compute."""
    if request.config.getoption("--slow"):
        pytest.skip("the next test does the same commands to their ends")
    do_all(folder)


@pytest.mark.slow
def test_every_command_to_its_end(data_path, trained, tmp_path):
    do_all(PageFolder(tmp_path, data_path=data_path, trained=trained, whole=True))


@pytest.mark.parametrize(
    ("text", "mark", "said"),
    [
        ("python train.py --config_path configs/none.yaml", "takes hours", "configs/none.yaml"),
        (
            "python train.py --config_path configs/bit/r50x1_folder.yaml --lrr 1",
            "takes hours",
            "lrr: 1 given",
        ),
        ("python eval.py --checkpoint runs/RUN", "needs a card", "--checkpoint_path"),
        ("python -m src.data.prepare cifar11 --output_path data", "needs a network", "cifar11"),
        ("python -m src.tools.none", "", "src.tools.none"),
        ("python -m src.tools.doctor --crads 8", "", "--crads given, --cards is the nearest"),
        ("python -m benchmarks.quickstart --data_path DIR --nmae x", "", "unrecognized arguments: --nmae x"),
        ("bash scripts/run_eval.sh nowhere data", "needs a card", "nowhere: no such file or folder"),
        ("bash scripts/none.sh", "", "none.sh"),
        ("wget https://example.com/file", "", ""),
        ("rm file", "", "rm is not known here"),
    ],
)
def test_a_wrong_command_is_found(folder, text, mark, said):
    with pytest.raises((AssertionError, ImportError), match=said or None):
        folder.do(Command("README.md", 1, text, mark))
