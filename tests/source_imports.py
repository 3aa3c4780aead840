"""What the source files import, read from their syntax: imports inside functions count as well."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OWN = ("hypercut_core", "components", "pipelines")


def sources(*folders: str) -> list[Path]:
    """All source files below the folders, relative to the repository."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def imported(path: Path) -> frozenset[str]:
    """Dotted names that a file imports, absolute; `from a import b` gives both a and a.b. Imports for type
    checking alone count too: they are a dependency in thought."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    package = list(path.with_suffix("").parts[:-1])
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[:len(package) - node.level + 1] if node.level else [])
            module = ".".join(part for part in (base, node.module or "") if part)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("__import__", "import_module")):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return frozenset(names)


def tops(path: Path) -> set[str]:
    """Top-level packages that a file imports."""
    return {name.split(".")[0] for name in imported(path)}


def file_of(module: str) -> Path | None:
    """The repository's file of a dotted name, if it is a module of ours."""
    if module.split(".")[0] not in OWN:
        return None
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path.relative_to(ROOT)
    return None


def closure(start: Path) -> set[Path]:
    """Every file of ours that runs when `start` does, itself and the packages' __init__ files included."""
    seen: set[Path] = set()
    queue = [start]
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        inits = [parent / "__init__.py" for parent in path.parents]
        queue += [init for init in inits if (ROOT / init).is_file()]
        queue += [file for name in imported(path) if (file := file_of(name))]
    return seen
