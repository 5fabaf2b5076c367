# SPDX-License-Identifier: Apache-2.0
"""The licence line of every code file: python -m tests.helpers.licence adds it where it is missing."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINE = "# SPDX-License-Identifier: Apache-2.0\n"


def code_files() -> list[Path]:
    """The Python and shell files of the repository, new ones too, but not what git ignores."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.sh", ".ci/run"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.splitlines() if (path := ROOT / name).is_file()]


def with_line(text: str) -> str:
    """The text with the line on top, or below a shebang; as it is where the line stands there."""
    first, rest = text.split("\n", 1) if text.startswith("#!") else ("", text)
    above = f"{first}\n" if first else ""
    return text if rest.startswith(LINE) else f"{above}{LINE}{rest}"


if __name__ == "__main__":
    for path in code_files():
        text = path.read_text(encoding="utf-8")
        if (new := with_line(text)) != text:
            path.write_text(new, encoding="utf-8")
