# SPDX-License-Identifier: Apache-2.0
"""Who imports whom in src, read from the source: python -m tests.helpers.imports draws it for Graphviz."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def name_of(path: Path) -> str:
    """src/data/folders.py -> data.folders; a package has the name of its folder."""
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in SOURCES}


def part_of(path: Path) -> str:
    """The package of src that a file belongs to, or its own name: src/data/folders.py -> data."""
    return name_of(path).partition(".")[0]


def _statements(tree: ast.AST, *, when_imported: bool) -> Iterator[ast.ImportFrom]:
    """All `from` imports; `when_imported`: without those in functions and those for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom):
            yield node
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        later |= isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not (later and when_imported):
            yield from _statements(node, when_imported=when_imported)


def imported(path: Path, *, when_imported: bool = False) -> set[str]:
    """The modules of src that a file of it imports, wherever in it the import stands."""
    package = ["src", *path.relative_to(ROOT / "src").parts[:-1]]
    found = set()
    for node in _statements(ast.parse(path.read_text()), when_imported=when_imported):
        if node.level:
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            module = ".".join(filter(None, base[1:]))
            for alias in node.names:
                inner = f"{module}.{alias.name}".lstrip(".")
                found.add(inner if inner in MODULES else module)
    return found & MODULES - {name_of(path), ""}


def arrows() -> dict[str, set[str]]:
    """Of each part the other parts that it imports."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        part = part_of(path)
        others = {module.partition(".")[0] for module in imported(path)} - {part}
        found[part] = found.get(part, set()) | others
    return {part: others for part, others in found.items() if part}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Nodes that lead back to the first of them, or [] where there is no circle."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return path[path.index(node) :]
        if node in done:
            return []
        for other in sorted(graph.get(node, ())):
            if found := walk(other, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


if __name__ == "__main__":
    print("digraph src {\n  rankdir=BT;")
    for part, others in sorted(arrows().items()):
        print("".join(f'  "{part}" -> "{other}";\n' for other in sorted(others)), end="")
    print("}")
