"""What a model may do in a workspace is done; whatever else it asks for is refused and harmless."""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from holdfast import Effect, Tool, errors
from holdfast.agents.files import WorkspaceFiles
from holdfast.agents.permissions import Permissions
from holdfast.agents.refusals import Refusal
from holdfast.agents.workspace_tools import READ, WRITE, WorkspaceTools
from holdfast.store import open_store
from holdfast.workspace import Workspace

EVERYTHING = Permissions(change_files=True, run_commands=True)


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "root"
    (place / "src").mkdir(parents=True)
    (place / "src" / "a.py").write_text("one\ntwo\nthree\n")
    (tmp_path / "secret").write_text("outside")
    return place


@pytest.fixture
def refused():
    return []


@pytest.fixture
def tools(root, refused):
    return WorkspaceTools(
        root, EVERYTHING, sandbox="off", on_refusal=lambda *told: refused.append(told)
    )


def everything_in(place):
    """Return all that is in a directory, links as such; Holdfast's own files aside."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.is_symlink():
            found[name] = path.readlink()
        elif path.is_file() and not name.startswith(".holdfast"):
            found[name] = path.read_bytes()
    return found


# -- ordinary work --------------------------------------------------------------------------------


def test_a_file_is_written_read_and_edited(tools, root):
    told = tools.write_file("new/deep/file.txt", "a\nb\n")
    assert hashlib.sha256(b"a\nb\n").hexdigest() in told
    assert tools.read_file("new/deep/file.txt") == "a\nb\n"
    tools.edit_file("new/deep/file.txt", "a\n", "")
    assert (root / "new" / "deep" / "file.txt").read_bytes() == b"b\n"


def test_parts_of_a_file_are_read_by_lines(tools, root):
    assert tools.read_file("src/a.py", 2, 1) == "two\n\n[lines 2 to 2 of 3]"
    assert tools.read_file("src/a.py", 3) == "three\n"
    assert tools.read_file("src/a.py", -5, 1) == "one\n\n[lines 1 to 1 of 3]"
    (root / "odd").write_bytes(b"1\x0b1\r\n2\xe2\x80\xa82\n3")
    assert tools.read_file("odd", 2, 1) == "2\u20282\n\n[lines 2 to 2 of 3]"


def test_an_edit_keeps_every_other_byte_and_the_permissions(tools, root):
    file = root / "odd"
    file.write_bytes(b"\xff\xfe\r\nwas\r\n\x00tail")
    file.chmod(0o751)
    tools.edit_file("odd", "was", "is — now")
    assert file.read_bytes() == b"\xff\xfe\r\nis \xe2\x80\x94 now\r\n\x00tail"
    assert stat.S_IMODE(file.stat().st_mode) == 0o751


@pytest.mark.parametrize(
    ("old", "told"),
    [
        ("four", "isn't in"),
        ("o", "more than once"),
        ("", "nothing to replace"),
        ("x", "nothing to replace"),
        ("One", "isn't in"),
        ("two\r\n", "isn't in"),
    ],
)
def test_an_edit_that_is_not_clear_changes_nothing(tools, root, refused, old, told):
    before = everything_in(root)
    answer = tools.edit_file("src/a.py", old, "x")
    assert answer.startswith("Failed: ")
    assert told in answer
    assert everything_in(root) == before
    assert refused == []


def test_edits_of_one_file_at_the_same_time_are_all_made(tools, root):
    (root / "f").write_text("".join(f"<{number}>" for number in range(12)))
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(lambda number: tools.edit_file("f", f"<{number}>", "."), range(12)))
    assert (root / "f").read_text() == "." * 12


def test_texts_that_overlap_themselves_are_not_unique(tools, root):
    (root / "f").write_text("aaa")
    assert "more than once" in tools.edit_file("f", "aa", "b")


def test_directories_are_listed_without_what_is_not_the_models_business(tools, root):
    Workspace.at(root)
    (root / ".git").mkdir()
    (root / "link").symlink_to("src")
    os.mkfifo(root / "fifo")
    (root / "line\nbreak").write_text("x")
    assert tools.list_files().splitlines() == [
        "fifo (no file)",
        "line\\nbreak 1 bytes",
        "link@",
        "src/",
    ]
    assert tools.list_files("src") == "a.py 14 bytes"
    assert tools.list_files("gone").startswith("Failed: ")


def test_a_listing_shows_nothing_that_has_no_part_in_the_fingerprint(tools, root):
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)  # noqa: S607
    (root / ".gitignore").write_text("build\n*.pyc\n")
    (root / "build").mkdir()
    (root / "build" / "out").write_text("x")
    (root / "src" / "a.pyc").write_text("x")
    (root / "empty").mkdir()
    before = tools.list_files()
    with open_store(f"sqlite:///{root}/holdfast.db"):
        assert tools.list_files() == before == ".gitignore 12 bytes\nsrc/"
    assert tools.list_files("src") == "a.py 14 bytes"


def test_files_are_searched_for_texts_and_expressions(tools, root):
    (root / "b.txt").write_text("t.o\ntwo\n")
    (root / "binary").write_bytes(b"two\0")
    assert tools.search_files("t.o") == "b.txt:1: t.o"
    assert tools.search_files("t.o", regex=True) == "b.txt:1: t.o\nb.txt:2: two\nsrc/a.py:2: two"
    assert tools.search_files("two", "src") == "src/a.py:2: two"
    assert tools.search_files("two", "b.txt") == "b.txt:2: two"
    assert tools.search_files("four") == "[nothing found]"


def test_a_search_stops_after_some_lines(tools, root):
    (root / "many").write_text("x\n" * 500)
    for regex in (False, True):
        assert len(tools.search_files("x", regex=regex).splitlines()) == 201


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(?P<x>a)(?P<x>b)", "[", "*"])
def test_what_is_no_expression_is_said_to_be_none(tools, pattern):
    assert "can't be searched for: it is no regular expression" in tools.search_files(
        pattern, regex=True
    )


def test_an_expression_that_would_take_for_ever_is_given_up(tools, root, monkeypatch):
    import holdfast.agents.searching as searching  # noqa: PLR0402  the module's own limits
    from holdfast.processes import Limits

    monkeypatch.setattr(searching, "_LIMITS", Limits(0.3, 1000))
    (root / "a").write_text("a" * 60 + "b")
    started = time.monotonic()
    assert "took longer" in tools.search_files("(a|a)*$", regex=True)
    assert time.monotonic() - started < 5


# -- hostile paths --------------------------------------------------------------------------------

OUTSIDE = [
    "../secret",
    "src/../../secret",
    "/etc/passwd",
    "",
    "a\0b",
    "src/a.py\0",
    "x" * 5000,
    "src/\u202egnp.exe",
    "a\u200bb",
    "line\nbreak",
    "\x1b[2Jscreen",
    "half\ud800",
    ".git/config",
    ".git",
    ".GIT/config",
    "src/.git/hooks/post-commit",
    "\uff0egit/config",
    ".holdfast/workspace",
    ".Holdfast/x",
    ".holdfast-0123",
]


@pytest.mark.parametrize("path", OUTSIDE, ids=ascii)
def test_a_path_out_of_reach_is_refused_and_nothing_happens(tools, root, refused, path, tmp_path):
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]")
    Workspace.at(root)
    before = everything_in(tmp_path)
    answers = [
        tools.read_file(path),
        tools.write_file(path, "owned"),
        tools.edit_file(path, "o", "owned"),
        tools.list_files(path),
        tools.search_files("o", path),
    ]
    assert [answer for answer in answers if not answer.startswith("Refused: ")] == []
    assert everything_in(tmp_path) == before
    assert len(refused) == 5


LINKS = {"a file outside": "../secret", "a directory outside": "..", "inside": "src/a.py"}


@pytest.mark.parametrize("target", [*LINKS.values(), "/etc/passwd", "nowhere", "link"])
def test_a_link_is_neither_read_nor_written_through(tools, root, tmp_path, target):
    (root / "link").symlink_to(target)
    before = everything_in(tmp_path)
    for answer in (
        tools.read_file("link"),
        tools.write_file("link", "owned"),
        tools.edit_file("link", "o", "owned"),
        tools.write_file("link/new", "owned"),
        tools.read_file("link/secret"),
        tools.list_files("link"),
    ):
        assert answer.startswith("Refused: ")
        assert "outside" not in answer
    assert everything_in(tmp_path) == before


def test_a_link_planted_between_two_looks_is_not_followed(root, tmp_path, monkeypatch):
    """The directory becomes a link out of the workspace at the last moment before the write."""
    files = WorkspaceFiles(str(root))
    (tmp_path / "out").mkdir()
    rename = os.rename

    def race(*args, **kwargs):
        monkeypatch.setattr(os, "rename", rename)
        (root / "src").rename(root / "moved")
        (root / "src").symlink_to(tmp_path / "out")
        return rename(*args, **kwargs)

    monkeypatch.setattr(os, "rename", race)
    files.write("src/a.py", b"new")
    assert list((tmp_path / "out").iterdir()) == []
    assert (root / "moved" / "a.py").read_bytes() == b"new"


def test_a_link_swapped_in_and_out_all_the_while_leads_nowhere(root, tmp_path):
    files, out, done = WorkspaceFiles(str(root)), tmp_path / "out", threading.Event()
    out.mkdir()
    (out / "a.py").write_text("outside")

    def swap():
        for number in itertools.count():
            for step in (
                lambda: (root / "src").rename(root / f"kept{number}"),  # noqa: B023  called at once
                lambda: (root / "src").symlink_to(out),
                (root / "src").unlink,
            ):
                with suppress(OSError):
                    step()
            if done.wait(0.02):
                return

    swapping, written = threading.Thread(target=swap), 0
    swapping.start()
    try:
        for attempt in range(2000):
            if attempt > 50 and written > 2:
                break
            with suppress(Refusal):
                files.write("src/a.py", b"inside")
                written += 1
            with suppress(Refusal):
                assert files.read("src/a.py", 100).data != b"outside"
    finally:
        done.set()
        swapping.join()
    assert (out / "a.py").read_text() == "outside"
    assert [path.name for path in out.iterdir()] == ["a.py"]
    assert written > 0


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_refused_without_waiting(tools, root, monkeypatch):
    monkeypatch.chdir(root)
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path in ("fifo", "socket", "src"):
            assert tools.read_file(path).startswith("Refused: ")
            assert tools.write_file(path, "x").startswith("Refused: ")
    assert stat.S_ISFIFO((root / "fifo").stat().st_mode)


def test_a_hard_link_to_a_file_outside_is_replaced_not_written_through(tools, root, tmp_path):
    os.link(tmp_path / "secret", root / "hard")
    tools.write_file("hard", "inside")
    assert (tmp_path / "secret").read_text() == "outside"
    assert (root / "hard").read_text() == "inside"


def test_a_database_of_holdfast_is_neither_written_nor_even_opened(tools, root):
    with open_store(f"sqlite:///{root}/h.db") as store:
        assert store.engine.hold_slot(0)
        os.link(root / "h.db-lock", root / "innocent")
        for name in ("h.db", "h.db-wal", "h.db-shm", "h.db-lock", "h.db-key", "innocent"):
            assert tools.read_file(name).startswith("Refused: "), name
            assert tools.write_file(name, "x").startswith("Refused: "), name
        assert tools.search_files("SQLite format") == "[nothing found]"
        assert is_locked_for_others(root / "h.db-lock")


def is_locked_for_others(path):
    """Ask from another process: closing a descriptor here would drop the lock."""
    import subprocess
    import sys

    code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    asked = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False)  # noqa: S603
    return asked.returncode != 0


# -- hostile contents -----------------------------------------------------------------------------


def test_contents_that_are_too_large_are_refused(tools, root):
    before = everything_in(root)
    assert tools.write_file("big", "x" * (WRITE + 1)).startswith("Refused: ")
    assert tools.edit_file("src/a.py", "one", "x" * (WRITE + 1)).startswith("Refused: ")
    assert everything_in(root) == before
    with (root / "huge").open("wb") as file:
        file.truncate(READ + 1)
    assert tools.read_file("huge").startswith("Failed: ")
    assert tools.edit_file("huge", "a", "b").startswith("Failed: ")


def test_contents_that_no_file_can_hold_are_refused(tools, root):
    before = everything_in(root)
    assert tools.write_file("f", "half \ud800").startswith("Refused: ")
    assert tools.edit_file("src/a.py", "\udcff", "x").startswith("Refused: ")
    assert everything_in(root) == before


def test_a_file_that_is_no_text_is_not_shown(tools, root):
    (root / "binary").write_bytes(b"MZ\0\1")
    assert tools.read_file("binary") == "Failed: 'binary' is no text: 4 bytes."
    (root / "latin").write_bytes(b"caf\xe9\n")
    assert tools.read_file("latin") == "caf\ufffd\n\n[some bytes are not UTF-8 and are not shown]"


def test_a_line_without_end_is_cut(tools, root):
    (root / "line").write_text("x" * 1_000_000)
    assert len(tools.read_file("line")) < 200_000


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tools, root, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = everything_in(root)
    monkeypatch.setattr(os, "write", full)
    assert "No space left" in tools.write_file("src/a.py", "new")
    monkeypatch.undo()
    assert everything_in(root) == before
    assert list((root / ".holdfast" / "drafts").iterdir()) == []


def test_what_a_crash_left_behind_is_removed_later(tools, root):
    drafts = root / ".holdfast" / "drafts"
    drafts.mkdir(parents=True)
    (drafts / "old").write_text("half")
    (drafts / "young").write_text("half")
    os.utime(drafts / "old", (1, 1))
    tools.write_file("f", "x")
    assert [path.name for path in drafts.iterdir()] == ["young"]


# -- permissions ----------------------------------------------------------------------------------


def test_what_is_not_permitted_is_refused_where_the_tool_runs(root, refused):
    tools = WorkspaceTools(root, mode="planning", on_refusal=lambda *told: refused.append(told))
    before = everything_in(root)
    assert tools.write_file("f", "x") == "Refused: planning may not change files."
    assert tools.edit_file("src/a.py", "one", "x") == "Refused: planning may not change files."
    assert tools.read_file("src/a.py").startswith("one")
    assert everything_in(root) == before
    assert [name for name, _ in refused] == ["write_file", "edit_file"]


def test_a_model_is_shown_only_the_tools_that_are_permitted(root):
    def names(permissions=None):
        return {tool.name for tool in WorkspaceTools(root, permissions, sandbox="off").permitted}

    reading = {"read_file", "list_files", "search_files"}
    assert names() == reading
    assert names(Permissions(change_files=True)) == reading | {"write_file", "edit_file"}
    assert names(Permissions(run_commands=True)) == reading | {"run_command"}


def test_the_effect_of_each_tool_is_declared(tools):
    effects = {tool.name: tool.effect for tool in tools.all}
    assert all(isinstance(tool, Tool) for tool in tools.all)
    assert effects == {
        "read_file": Effect.READ,
        "list_files": Effect.READ,
        "search_files": Effect.READ,
        "write_file": Effect.ONCE,
        "edit_file": Effect.ONCE,
        "run_command": Effect.ONCE,
    }


def test_a_workspace_that_is_gone_is_told_not_raised(tmp_path):
    tools = WorkspaceTools(tmp_path / "gone", EVERYTHING, sandbox="off")
    assert tools.read_file("f").startswith("Failed: ")
    assert tools.write_file("f", "x").startswith("Failed: ")
    with pytest.raises(errors.EvidenceUnavailableError):
        Workspace.at(tmp_path / "gone")
