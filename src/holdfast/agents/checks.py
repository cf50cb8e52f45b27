"""What the gates `doctor` and `smoke` run: `python -I checks.py doctor|smoke`, in a workspace.

A program by itself, of the standard library only: it starts in a few hundredths of a second, and
`-I` keeps whatever lies in the workspace out of it. It reads, and writes nothing.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

MANIFESTS: dict[str, Callable[[str], Any]] = {
    "pyproject.toml": tomllib.loads,
    "Cargo.toml": tomllib.loads,
    "package.json": json.loads,
}
"""The manifests that are read, in the workspace's root, and what reads each."""

_LARGEST = 4 * 1024 * 1024
"""Bytes. Larger files are no source code."""

_SKIPPED = frozenset({".git", ".holdfast", ".venv", "venv", "node_modules", "__pycache__"})
# A repository's own configuration may name programs to run; here none of them is.
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")


def main(words: list[str]) -> int:
    """Run one check in the working directory; prints a line for each problem."""
    found = list({"doctor": doctor, "smoke": smoke}[words[0]]())
    text = "".join(f"{line}\n" for line in found or ["ok"])
    sys.stdout.buffer.write(text.encode(errors="surrogateescape"))  # as git printed the names
    return 1 if found else 0


def doctor() -> Iterator[str]:
    """Yield what is wrong with the workspace itself."""
    for name, parse in MANIFESTS.items():
        try:
            text = read(name)
        except OSError as error:
            yield f"{name}: can't be read: {error}"
            continue
        try:
            if text is not None:
                parse(text)
        except (ValueError, RecursionError) as error:
            yield f"{name}: doesn't parse: {error}"
    if os.path.lexists(".git"):
        yield from _unmerged()


def _unmerged() -> Iterator[str]:
    unmerged = {line.partition("\t")[2] for line in git("ls-files", "--unmerged", "-z")}
    yield from (f"{name}: not merged" for name in sorted(unmerged))
    # Only what isn't committed: a committed file with markers in it is meant to have them.
    changed = {*git("diff", "--name-only", "-z", *_head()), *untracked()}
    for name in sorted(changed - unmerged):
        line = _conflict(read_or_nothing(name))
        if line:
            yield f"{name}:{line}: a conflict marker"


def _head() -> tuple[str, ...]:
    return ("HEAD", "--") if git("rev-parse", "--verify", "--quiet", "HEAD") else ("--",)


def _conflict(text: str) -> int:
    """Return the line where a whole conflict begins, counted from 1, or 0."""
    begun, halved = 0, False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("<<<<<<< "):
            begun, halved = number, False
        elif begun and line.rstrip() == "=======":
            halved = True
        elif halved and line.startswith(">>>>>>> "):
            return begun
    return 0


def smoke() -> Iterator[str]:
    """Yield which code doesn't load."""
    warnings.simplefilter("ignore")
    for name in python_files():
        try:
            compile(read_or_nothing(name), name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError) as error:
            where = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            yield f"{name}{where}: {getattr(error, 'msg', None) or error}"
    for name in node_entries():
        ended = subprocess.run(  # noqa: S603
            ["node", "--check", name],  # noqa: S607  whichever the workspace's owner uses
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if ended.returncode:
            yield f"{name}: {ended.stderr.strip()}"


def python_files() -> list[str]:
    """Return the Python files: what git knows or would, otherwise all below the directory."""
    return sorted(name for name in files() if name.endswith(".py"))


def node_entries() -> list[str]:
    """Return the entry points that package.json declares, or index.js, as far as they exist."""
    declared = table(read_or_nothing("package.json"), json.loads)
    programs = declared.get("bin")
    named = [declared.get("main", "index.js"), programs, *as_table(programs).values()]
    found = {os.path.normpath(name) for name in named if isinstance(name, str)}
    return sorted(
        name for name in found if name.endswith((".js", ".mjs", ".cjs")) and _is_ours(name)
    )


def _is_ours(name: str) -> bool:
    return not name.startswith(("/", "..")) and bool(read_or_nothing(name))


def files() -> list[str]:
    """Return the files of the workspace, without what git ignores."""
    if os.path.lexists(".git"):
        return [*git("ls-files", "-z"), *untracked()]
    found = list[str]()
    for folder, folders, names in os.walk("."):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        found += (os.path.relpath(os.path.join(folder, name)) for name in names)  # noqa: PTH118
    return found


def untracked() -> list[str]:
    """Return files that git doesn't know and doesn't ignore."""
    return git("ls-files", "--others", "--exclude-standard", "-z")


def git(*words: str) -> list[str]:
    """Return what git prints, split at NUL characters; nothing where it fails."""
    ended = subprocess.run(  # noqa: S603
        [*_GIT, *words], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    if ended.returncode:
        return []
    return [name for name in ended.stdout.decode(errors="surrogateescape").split("\0") if name]


def table(text: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Return what a manifest says; nothing where it doesn't parse, which the doctor says."""
    try:
        return as_table(parse(text or "null"))
    except (ValueError, RecursionError):
        return {}


def as_table(value: object) -> dict[str, Any]:
    """Return a value if it is a table, otherwise an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def read(name: str) -> str | None:
    """Return a regular file's text, or None where there is none.

    Raises:
        OSError: it is something else, or too large.
    """
    try:
        found = os.lstat(name)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
        message = "no regular file of a sensible size"
        raise OSError(message)
    with open(name, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        return file.read()


def read_or_nothing(name: str) -> str:
    """Return a file's text, or none where it can't be read."""
    try:
        return read(name) or ""
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
