"""Every Python block of the README and the docs runs, and prints what the page says it prints.

A page is one program: its `python` blocks share a namespace, in order, in a process and a directory
of their own. The lines of an `output` block must appear in the page's output, in order; `…` stands
for anything. A block under `<!-- no-run: reason -->` is only compiled. `py` blocks are signatures,
which only the generated reference has.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from support.model_server import ModelServer
from support.pages import ANSWERS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
MAY_STAND_STILL = 6
"""Blocks of all pages together that may be marked as not run."""


class Block(NamedTuple):
    language: str
    line: int
    lines: list[str]
    runs: bool


def blocks_of(text: str) -> list[Block]:
    found: list[Block] = []
    open_block: Block | None = None
    above = ""
    for number, line in enumerate(text.splitlines(), 1):
        if open_block is not None and line.startswith("```"):
            found.append(open_block)
            open_block = None
        elif open_block is not None:
            open_block.lines.append(line)
        elif line.startswith("```"):
            runs = not re.fullmatch(r"<!-- no-run: .{10,} -->", above)
            open_block = Block(line.removeprefix("```").strip(), number + 1, [], runs)
        if line.strip():
            above = line.strip()
    assert open_block is None, "a block isn't closed"
    return found


def program_of(blocks: list[Block]) -> str:
    """Put every block at the line it has on its page, so that a traceback names that line."""
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (block.line - 1 - len(lines)) + block.lines
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def provider() -> Iterator[dict[str, str]]:
    """Where the SDKs of model providers find one that answers as the pages say."""
    with ModelServer(ANSWERS) as server:
        yield server.environment


def run_page(page: Path, where: Path, more: Mapping[str, str] = MappingProxyType({})) -> str:
    blocks = [b for b in blocks_of(page.read_text("utf-8")) if b.language == "python"]
    program = where / f"{page.stem}.py"
    program.write_text(program_of([block for block in blocks if block.runs]), "utf-8")
    environment = {
        **os.environ,
        **more,
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONWARNINGS": "error",
        "PYTHONIOENCODING": "utf-8",
    }
    done = subprocess.run(  # noqa: S603  our own pages
        [sys.executable, program.name],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{page.name} fails:\n{done.stdout}{done.stderr}"
    return done.stdout


def expected_lines(page: Path) -> list[str]:
    blocks = [b for b in blocks_of(page.read_text("utf-8")) if b.language == "output"]
    return [line for block in blocks for line in block.lines if line.strip()]


def as_pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in line.split("…")))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_runs_and_prints_what_it_says(name: str, tmp_path: Path, provider: dict[str, str]):
    page = ROOT / name
    expected = expected_lines(page)
    if not any(b.language == "python" for b in blocks_of(page.read_text("utf-8"))):
        assert not expected, "the page shows output of no program"
        return
    printed = iter(run_page(page, tmp_path, provider).splitlines())
    for line in expected:
        assert any(as_pattern(line).fullmatch(each) for each in printed), (
            f"{name} says it prints {line!r} there, and it doesn't"
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_block_that_is_not_run_is_python_all_the_same(name: str):
    for block in blocks_of((ROOT / name).read_text("utf-8")):
        if block.language == "python" and not block.runs:
            ast.parse("\n".join(block.lines))


def test_few_blocks_are_not_run():
    still = [
        f"{name}:{block.line}"
        for name, page in zip(NAMES, PAGES, strict=True)
        for block in blocks_of(page.read_text("utf-8"))
        if block.language == "python" and not block.runs
    ]
    assert len(still) <= MAY_STAND_STILL, still


def test_signatures_stand_only_in_the_generated_reference():
    for name, page in zip(NAMES, PAGES, strict=True):
        if not name.startswith("docs/reference/api/"):
            languages = {block.language for block in blocks_of(page.read_text("utf-8"))}
            assert not languages & {"py", "python3", "pycon"}, name


def test_a_block_stands_in_the_program_where_it_stands_on_its_page():
    page = "# A page\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n"
    assert program_of(blocks_of(page)).splitlines()[7] == "assert x == 2"


def test_a_page_whose_code_fails_is_noticed(tmp_path: Path):
    page = ROOT / "README.md"
    broken = tmp_path / "README.md"
    broken.write_text(page.read_text("utf-8").replace("@runner.task", "@runner.tusk"), "utf-8")
    with pytest.raises(AssertionError, match="tusk"):
        run_page(broken, tmp_path)


def test_dots_stand_for_anything_and_the_rest_for_itself():
    assert as_pattern("took … s").fullmatch("took 0.1 s")
    assert not as_pattern("took … s").fullmatch("took 0.1 ms.")
