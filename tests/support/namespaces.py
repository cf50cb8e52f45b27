"""Hosts on one machine, with a network between them that can be cut: Linux network namespaces.

They have no names. So none is in another's way, and none is left behind, whoever is killed: a
namespace ends, and its cables with it, when no process is in it and nobody holds it open.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import NamedTuple

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of <sched.h>
_HERE = "/proc/thread-self/ns/net"
_NOBODY = "02:00:00:00:ff:ff"
"""A hardware address that no cable's end has."""


def what_is_missing() -> str | None:
    """Return why there can be no hosts here; None when there can."""
    if sys.platform != "linux":
        return "this system isn't Linux"
    if shutil.which("ip") is None:
        return "there is no command `ip`, which iproute2 brings"
    try:
        with closing(Host()) as host:
            host.ip("link", "add", "type", "veth")
    except PermissionError as error:
        return f"it takes CAP_SYS_ADMIN, as root has it ({error.strerror})"
    except (OSError, RuntimeError) as error:
        return f"{error} (it takes CAP_NET_ADMIN, as root has it, and veth in the kernel)"
    return None


class Host:
    """A machine of its own as far as the network goes: it reaches what a cable leads to, only.

    Raises:
        OSError: it can't be made here.
        RuntimeError: its network can't be set up.
    """

    def __init__(self) -> None:
        outside = os.open(_HERE, os.O_RDONLY)
        try:
            _ask("unshare", _NEW_NETWORK)
            self._descriptor = os.open(_HERE, os.O_RDONLY)
            _ask("setns", outside, _NEW_NETWORK)
        finally:
            os.close(outside)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        try:
            self.ip("link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    @contextmanager
    def inside(self):
        """Be on this host within the block, with this thread.

        The processes and threads that it starts there stay there, as do its connections.
        """
        outside = os.open(_HERE, os.O_RDONLY)
        try:
            _ask("setns", self._descriptor, _NEW_NETWORK)
            yield
        finally:
            _ask("setns", outside, _NEW_NETWORK)
            os.close(outside)

    def ip(self, *arguments: str) -> None:
        """Run `ip` here."""
        with self.inside():
            done = subprocess.run(  # noqa: S603  the system's own command
                ["ip", *arguments],  # noqa: S607  wherever it is
                check=False,
                capture_output=True,
                text=True,
            )
        if done.returncode:
            raise RuntimeError(f"`ip {' '.join(arguments)}` fails: {done.stderr.strip()}")

    def close(self) -> None:
        """Let go of it: it is gone when no process is on it."""
        os.close(self._descriptor)


class _End(NamedTuple):
    host: Host
    address: str
    hardware: str


class Cable:
    """Joins two hosts. What is sent into it while it is cut is lost, and nobody is told.

    Args:
        lower: one host.
        upper: the other one.
        number: another one for each cable of a host, at most 254.
    """

    def __init__(self, lower: Host, upper: Host, number: int) -> None:
        self._name = f"cable{number}"
        self._lower, self._upper = (
            _End(host, f"10.0.{number}.{which}", f"02:00:00:00:{number:02x}:{which:02x}")
            for which, host in ((1, lower), (2, upper))
        )
        lower.ip(
            *("link", "add", self._name, "address", self._lower.hardware, "type", "veth"),
            *("peer", "name", self._name, "address", self._upper.hardware, "netns", upper.path),
        )
        for host, address, _ in (self._lower, self._upper):
            host.ip("address", "add", f"{address}/24", "dev", self._name)
            host.ip("link", "set", self._name, "up")
        self.heal()

    @property
    def addresses(self) -> tuple[str, str]:
        """Where the lower host is, and the upper one."""
        return self._lower.address, self._upper.address

    def cut(self, *, up: bool, down: bool) -> None:
        """Lose everything in one direction or both until `heal`."""
        if up:
            self._lead(self._lower, self._upper, _NOBODY)
        if down:
            self._lead(self._upper, self._lower, _NOBODY)

    def heal(self) -> None:
        """Let everything through again."""
        self._lead(self._lower, self._upper, self._upper.hardware)
        self._lead(self._upper, self._lower, self._lower.hardware)

    def _lead(self, sender: _End, receiver: _End, hardware: str) -> None:
        # Whoever gets a packet that is for another's hardware drops it without a word. Where a
        # host is has to be fixed for that: one that asks and hears nothing tells its programs that
        # the other can't be reached, which a host behind a router is not told.
        to = ("neighbour", "replace", receiver.address, "lladdr", hardware)
        sender.host.ip(*to, "dev", self._name, "nud", "permanent")


def _ask(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # `os` has these from Python 3.12 on
    if getattr(libc, function)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
