# SPDX-License-Identifier: Apache-2.0
"""What a page of HTML holds, as a browser would read it."""

import re
from html.parser import HTMLParser
from pathlib import Path

# Names that end in the middle of what they stand in, wherever that is.
HOSTILE = (
    "<img src=x onerror=alert(1)>", "\"><svg onload=alert(2)>", "</style></script><script>alert(3)</script>",
    "{{ 7 * 7 }}{% raw %}", "a & b <!-- --> ]]>", "猫 $x_{1$ ' fill: #22272e",
)  # fmt: skip
_VOID = ("meta", "img", "br")


class Page(HTMLParser):
    """A page of a file.

    Attributes:
        tags: every element's name.
        texts: every text, without blanks at its ends.
        alerts: attributes that run a program, and elements that hold one.
        addresses: what the page asks for outside of itself.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.texts, self.alerts, self.addresses, self._open = [], [], [], [], []
        self.size = path.stat().st_size
        text = path.read_text(encoding="utf-8")
        self.feed(text)
        self.close()
        self.addresses += re.findall(r"url\((?!#)[^)]*\)|@import[^;]*", text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.alerts += [name for name, _ in attributes if name.startswith("on")]
        self.alerts += [tag] if tag in ("script", "iframe", "object", "embed") else []
        self.addresses += [
            value
            for name, value in attributes
            if name in ("src", "href", "xlink:href") and not value.startswith(("#", "data:image/"))
        ]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(" ".join(data.split()))
