"""Links lead somewhere, and no text names the machine it was written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
HOME_DIRECTORIES = re.compile(r"(?<![\w.])/(?:work|home|root|Users)/\w")
HOSTS = re.compile(r"pypi\.(?:org|python)|pythonhosted\.|npmjs\.|docker\.io")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def anchors_of(page: Path) -> set[str]:
    """Return what headings are called in links, as code hosts name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set(re.findall(r'<a id="([\w-]+)">', text))
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return found


def links_of(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [target for target in LINK.findall(text) if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path):
    for target in links_of(page):
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{target} leads nowhere"
        assert to.is_relative_to(ROOT), f"{target} leads out of the project"
        if anchor and to.suffix == ".md":
            assert anchor in anchors_of(to), f"{target}: there is no such heading"


def test_every_page_can_be_reached_from_the_readme():
    seen: set[Path] = set()
    left = [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        left += [
            (page.parent / t.partition("#")[0]).resolve() for t in links_of(page) if t[0] != "#"
        ]
    assert not [str(page.relative_to(ROOT)) for page in PAGES if page not in seen]


def tracked_texts() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)  # noqa: S603
    if done.returncode == 0:
        files = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    else:  # a source distribution
        files = [page for page in ROOT.rglob("*") if ".venv" not in page.parts]
    texts = [file for file in files if file.is_file() and b"\0" not in file.read_bytes()]
    assert len(texts) > 50
    return texts


def test_no_text_names_a_directory_of_the_machine_it_was_written_on():
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in tracked_texts()
        for match in HOME_DIRECTORIES.finditer(file.read_text("utf-8", errors="replace"))
    ]
    assert not found


def test_no_text_names_a_package_registry():
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in tracked_texts()
        for match in HOSTS.finditer(file.read_text("utf-8", errors="replace"))
    ]
    assert not found


def test_prose_paths_under_tmp_are_not_examples_of_ours():
    for page in PAGES:
        assert "/" + "tmp/" not in page.read_text("utf-8"), page
