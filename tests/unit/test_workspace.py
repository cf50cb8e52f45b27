"""A workspace has one id, whoever asks first, and another directory has another."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from holdfast.errors import EvidencePathError, EvidenceUnavailableError
from holdfast.workspace import Workspace, identify

ASK = "import sys; from holdfast.workspace import Workspace; print(Workspace.at(sys.argv[1]).id)"


def test_the_id_stays_and_is_written_beside_the_work(tmp_path):
    first = Workspace.at(tmp_path)
    assert Workspace.at(str(tmp_path)) == first
    assert identify(tmp_path) == first.id
    assert first.ref.id == first.id
    assert first.ref.root == str(tmp_path)


def test_another_directory_is_another_workspace(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert Workspace.at(tmp_path / "a").id != Workspace.at(tmp_path / "b").id


def test_identifying_writes_nothing(tmp_path):
    assert identify(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_processes_that_ask_at_the_same_time_get_the_same_id(tmp_path):
    asking = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", ASK, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    answers = {process.communicate(timeout=30)[0] for process in asking}
    assert answers == {f"{identify(tmp_path)}\n"}
    left = {path.name for path in (tmp_path / ".holdfast").iterdir()}
    assert left == {"workspace", ".gitignore"}


def test_threads_that_ask_at_the_same_moment_get_the_same_id(tmp_path):
    def ask(root, together):
        together.wait()
        return Workspace.at(root).id

    with ThreadPoolExecutor(6) as threads:
        for number in range(15):
            root = tmp_path / str(number)
            root.mkdir()
            answers = set(threads.map(ask, [root] * 6, [Barrier(6)] * 6))
            assert answers == {identify(root)}


def test_a_clone_is_another_workspace_because_git_does_not_take_the_id_along(tmp_path):
    Workspace.at(tmp_path)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)  # noqa: S603, S607
    status = ["git", "-C", tmp_path, "status", "--porcelain"]
    assert subprocess.run(status, check=True, capture_output=True).stdout == b""  # noqa: S603


def test_a_directory_that_is_not_there_is_made_only_on_request(tmp_path):
    with pytest.raises(EvidenceUnavailableError, match="create=True"):
        Workspace.at(tmp_path / "new" / "place")
    assert Workspace.at(tmp_path / "new" / "place", create=True).root.is_dir()


@pytest.mark.parametrize("text", ["", "ws-1", "ws-" + "0" * 32 + "\nmore"])
def test_a_marker_that_holdfast_did_not_write_is_refused_and_kept(tmp_path, text):
    (tmp_path / ".holdfast").mkdir()
    marker = tmp_path / ".holdfast" / "workspace"
    marker.write_text(text)
    with pytest.raises(EvidencePathError, match="isn't a marker"):
        Workspace.at(tmp_path)
    assert marker.read_text() == text


def test_a_marker_that_is_a_link_is_refused(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Workspace.at(other)
    (tmp_path / ".holdfast").symlink_to(other / ".holdfast")
    with pytest.raises(EvidencePathError, match="symbolic link"):
        Workspace.at(tmp_path)


def test_a_path_stays_in_the_workspace(tmp_path):
    workspace = Workspace.at(tmp_path / "w", create=True)
    assert workspace.path("new/file.txt") == tmp_path / "w" / "new" / "file.txt"
    assert workspace.path(".") == tmp_path / "w"
    (tmp_path / "w" / "link").symlink_to(tmp_path)
    for path in ("../x", "/etc/passwd", "link/x", "link"):
        with pytest.raises(EvidencePathError):
            workspace.path(path)
