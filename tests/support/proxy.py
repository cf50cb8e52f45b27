"""A TCP proxy before a database: passes on, and cuts, delays or swallows what a test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

PASS = "pass"  # noqa: S105  it lets bytes pass
DROP = "drop"
"""Cut the connection; the server never sees these bytes."""
DELIVER = "deliver"
"""Let the server have them, wait for its answer, and cut the connection without passing it on."""
DELAY = "delay"
"""Cut the client's side; the server gets the bytes when `release` is called."""
SWALLOW = "swallow"
"""Neither passes anything on from now on, nor closes: packets are lost."""


class Proxy:
    """Listens on a port of its own and forwards to another one of this machine."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.rule: Callable[[bytes], str] = lambda data: PASS
        self.hits = 0
        self.connections = 0
        """How many were made."""
        self._release = threading.Event()
        self._up, self._down = threading.Event(), threading.Event()
        self.heal()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def once(self, action: str, *words: bytes) -> None:
        """Do something to the first bytes that contain one of these words."""
        self.hits = 0

        def rule(data: bytes) -> str:
            if self.hits or not any(word in data for word in words):
                return PASS
            self.hits += 1
            return action

        self.rule = rule

    def release(self) -> None:
        """Let the server have what was delayed."""
        self._release.set()

    def cut(self, *, up: bool, down: bool) -> None:
        """Let nothing through in one direction or both, connections' ends included, until `heal`.

        What is sent meanwhile arrives then, as packets do that are sent again.
        """
        for held, way in ((up, self._up), (down, self._down)):
            if held:
                way.clear()

    def heal(self) -> None:
        """Let everything through again."""
        self._up.set()
        self._down.set()

    def close(self) -> None:
        self._release.set()
        self.heal()
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def _spawn(self, function, *args) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._target))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            mute = threading.Event()
            self._spawn(self._upstream, client, server, mute)
            self._spawn(self._downstream, server, client, mute)

    def _upstream(self, client, server, mute) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                action = self.rule(data)
                if action == SWALLOW:
                    mute.set()
                if mute.is_set():
                    continue
                if action in {DROP, DELAY, DELIVER}:
                    mute.set()
                    self._cut(action, data, client, server)
                    return
                self._up.wait()
                server.sendall(data)
        self._up.wait()
        _close(server)

    def _cut(self, action, data, client, server) -> None:
        if action == DELIVER:
            server.sendall(data)
            threading.Event().wait(0.3)
        _close(client)
        if action == DELAY:
            self._release.wait(30)
            with suppress(OSError):
                server.sendall(data)
                threading.Event().wait(0.3)
        _close(server)

    def _downstream(self, server, client, mute) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                self._down.wait()
                if not mute.is_set():
                    client.sendall(data)
        self._down.wait()
        if not mute.is_set():
            _close(client)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
