"""The input of the demo: modules of the installed Python's standard library, and their facts."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from holdfast import errors

SMALLEST = 2000
"""Bytes of source below which a module isn't worth an audit."""

SECTIONS = 6
"""How many of a module's largest definitions are looked at one by one."""

EXCERPT = 300
"""Characters of a docstring that a prompt quotes: prompts stay small enough to be journaled."""

_TODO = re.compile(r"#.*\b(?:TODO|FIXME|XXX)\b")


def choose_modules(count: int) -> list[str]:
    """Return the names of so many modules, the same ones each time, spread over the alphabet.

    Raises:
        UsageError: the installed Python doesn't come with that many in source form.
    """
    found = [name for name in sorted(sys.stdlib_module_names) if _is_worth_it(name)]
    if count > len(found):
        message = (
            f"This Python's standard library has {len(found)} modules in source form; "
            f"{count} can't be audited. Ask for fewer."
        )
        raise errors.UsageError(message)
    return [found[i * len(found) // count] for i in range(count)]


def _is_worth_it(name: str) -> bool:
    path = None if name.startswith("_") else source_path(name)
    return path is not None and path.stat().st_size >= SMALLEST


def source_path(module: str) -> Path | None:
    """Return where the source of a top-level module is; it is not imported."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin)
    return path if path.is_file() else None


def extract_facts(module: str, source: str) -> dict[str, Any]:
    """Return what can be counted in a module's source, and its largest public definitions."""
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    classes = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    public = [n for n in (*functions, *classes) if not n.name.startswith("_")]
    return {
        "module": module,
        "lines": source.count("\n") + 1,
        "functions": len(functions),
        "classes": len(classes),
        "public": len(public),
        "documented": sum(ast.get_docstring(node) is not None for node in public),
        "todos": len(_TODO.findall(source)),
        "imports": _imports(tree),
        "about": _excerpt(tree),
        "sections": [
            {"name": node.name, "kind": type(node).__name__, "about": _excerpt(node)}
            for node in _largest(tree)
        ],
    }


def _imports(tree: ast.Module) -> list[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return sorted(names)


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _largest(tree: ast.Module) -> list[_Definition]:
    found = [node for node in tree.body if isinstance(node, _Definition)]
    return sorted(found, key=lambda n: (n.lineno - (n.end_lineno or n.lineno), n.name))[:SECTIONS]


def _excerpt(node: ast.Module | _Definition) -> str:
    paragraph = (ast.get_docstring(node) or "").strip().partition("\n\n")[0]
    return " ".join(paragraph.split())[:EXCERPT]
