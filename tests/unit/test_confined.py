"""What lies beneath a root is opened, and nothing else is, whatever stands in its way."""

from __future__ import annotations

import os
import socket

import pytest

from holdfast.confined import ConfinedRoot
from holdfast.errors import EvidencePathError, EvidenceUnavailableError


@pytest.fixture
def beneath(tmp_path):
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    with ConfinedRoot(str(root)) as confined:
        yield confined


def read(beneath, path):
    with beneath.open_file(path) as fd:
        return os.read(fd, 100)


def test_a_regular_file_is_opened(beneath):
    assert read(beneath, "a/b/file") == b"inside"
    assert beneath.stat_file("a/b/file").st_size == 6


@pytest.mark.parametrize(
    "path", ["../secret", "a/../../secret", "/etc/passwd", "a//b", "./a", "a/"]
)
def test_a_path_that_could_lead_out_is_refused(beneath, path):
    with pytest.raises(EvidencePathError):
        read(beneath, path)
    with pytest.raises(EvidencePathError):
        beneath.stat_file(path)


@pytest.mark.parametrize("target", ["../secret", "a/b/file", "nowhere"])
def test_a_symbolic_link_is_refused_wherever_it_leads(beneath, target):
    os.symlink(target, os.path.join(beneath.root, "link"))  # noqa: PTH118, PTH211
    with pytest.raises(EvidencePathError, match="symbolic link"):
        read(beneath, "link")
    with pytest.raises(EvidencePathError, match="symbolic link"):
        beneath.stat_file("link")


def test_a_link_among_the_directories_is_refused(beneath):
    os.symlink("a", os.path.join(beneath.root, "link"))  # noqa: PTH118, PTH211
    with pytest.raises(EvidencePathError, match="symbolic link"):
        read(beneath, "link/b/file")
    with pytest.raises(EvidencePathError, match="symbolic link"):
        beneath.directory("link/b")


@pytest.mark.timeout(10)
def test_fifos_sockets_devices_and_directories_are_refused_without_blocking(beneath, monkeypatch):
    monkeypatch.chdir(beneath.root)
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path, name in (("fifo", "a fifo"), ("socket", "a socket"), ("a", "a directory")):
            with pytest.raises(EvidencePathError, match=name):
                read(beneath, path)
            with pytest.raises(EvidencePathError, match=name):
                beneath.stat_file(path)
    with ConfinedRoot("/dev") as devices, pytest.raises(EvidencePathError, match="a device"):
        read(devices, "null")


def test_a_missing_file_is_missing_and_not_refused(beneath):
    for path in ("gone", "gone/file", "a/gone"):
        with pytest.raises(FileNotFoundError):
            beneath.stat_file(path)
    with pytest.raises(NotADirectoryError):
        beneath.stat_file("a/b/file/below")


def test_a_directory_is_given_as_an_absolute_path(beneath):
    assert beneath.directory(".") == beneath.root
    assert beneath.directory("a/b") == f"{beneath.root}/a/b"
    with pytest.raises(NotADirectoryError):
        beneath.directory("a/b/file")


def test_a_root_that_is_not_there_is_unavailable(tmp_path):
    with ConfinedRoot(str(tmp_path / "gone")) as gone, pytest.raises(EvidenceUnavailableError):
        gone.stat_file("file")


def test_no_descriptor_stays_open(beneath, tmp_path):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    (tmp_path / "root" / "link").symlink_to("a")
    with ConfinedRoot(beneath.root) as confined:
        read(confined, "a/b/file")
        for path in ("a/gone", "link/b/file", "a/b", "a/b/file/below"):
            with pytest.raises((OSError, EvidencePathError)):
                read(confined, path)
        confined.directory("a/b")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
