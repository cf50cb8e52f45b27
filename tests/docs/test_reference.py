"""What is public is documented: names, errors, commands, states."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import click
import pytest

import holdfast
from holdfast import errors
from holdfast.states import ItemStatus, TaskStatus

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
COMMAND_PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "cli.md"),
]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return generator()


@pytest.fixture(scope="module")
def pages(reference: ModuleType) -> dict[str, str]:
    return reference.pages()


@pytest.fixture(scope="module")
def commands(reference: ModuleType) -> dict[str, click.Command]:
    from holdfast.cli.group import holdfast as group

    return dict(reference.commands(group))


def test_the_generated_pages_are_what_the_code_says(pages: dict[str, str]):
    stale = [
        name
        for name, text in pages.items()
        if not (REFERENCE / name).exists() or (REFERENCE / name).read_text("utf-8") != text
    ]
    assert not stale, f"run `make docs`: {', '.join(stale)}"


def test_no_generated_page_is_left_over(pages: dict[str, str]):
    there = {f"api/{page.name}" for page in (REFERENCE / "api").glob("*.md")}
    assert there == {name for name in pages if name.startswith("api/")}


@pytest.mark.parametrize("name", sorted(holdfast.__all__))
def test_a_public_name_is_documented(name: str):
    if name == "__version__":
        assert "__version__" in (REFERENCE / "glossary.md").read_text("utf-8")
        return
    headings = [
        page.name
        for page in (REFERENCE / "api").glob("*.md")
        if f"## `{name}`\n" in page.read_text("utf-8")
    ]
    assert len(headings) == 1, f"{name} has {len(headings)} sections in docs/reference/api"


def error_classes() -> list[str]:
    return [
        name
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, Exception) and cls.__module__ == errors.__name__
    ]


@pytest.mark.parametrize("name", error_classes())
def test_an_error_says_what_it_means_and_what_to_do(name: str):
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (REFERENCE / "errors.md").read_text("utf-8").splitlines()
        if line.startswith(f"| `{name}` ")
    ]
    assert len(rows) == 1, f"{name} has {len(rows)} rows in docs/reference/errors.md"
    _, meaning, remedy = rows[0]
    assert len(meaning) > 15
    assert len(remedy) > 10


def test_no_error_is_documented_that_is_not_there():
    text = (REFERENCE / "errors.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `(\w+)` ", text, re.MULTILINE))
    assert documented == set(error_classes())


@pytest.mark.parametrize("status", [*ItemStatus, *TaskStatus])
def test_a_state_is_documented(status: ItemStatus | TaskStatus):
    assert f"- `{status.value}`: " in (REFERENCE / "states.md").read_text("utf-8")


def test_every_command_has_its_section(commands: dict[str, click.Command]):
    text = (REFERENCE / "cli.md").read_text("utf-8")
    missing = [name for name in commands if f"\n## `{name}`\n" not in text]
    assert commands
    assert not missing


def test_every_command_and_option_says_what_it_does(commands: dict[str, click.Command]):
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, f"{name} {parameter.opts}"


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"^```(?:console|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?holdfast ", line)]


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_shows_only_commands_and_options_that_exist(
    page: Path, commands: dict[str, click.Command]
):
    from holdfast.cli.group import holdfast as group

    everywhere = {option for each in group.params for option in (*each.opts, *each.secondary_opts)}
    for line in shell_lines(page.read_text("utf-8")):
        words = line.split(" #")[0].split()[1:]
        name = next((word for word in words if word in commands), None)
        if name is None:
            assert words[0].startswith("--"), f"{line!r} names no command"
            continue
        known = everywhere | {"-h", "--help"}
        for each in commands[name].params:
            known |= {*each.opts, *each.secondary_opts}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known, f"{line!r} uses {used - known}"
