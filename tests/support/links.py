"""What lies between workers and their database: links that can be cut one way, or both ways.

There are two kinds, which differ in what a cut is. Between namespaces packets are lost, as on a
real network, and each kernel sends its own again until it gives the connection up. A proxy, which
needs no rights, keeps what it is sent: all of it arrives when the link is healed.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import count
from pathlib import Path

import psycopg
from support.namespaces import Cable, Host
from support.proxy import Proxy

from holdfast.testing import PostgresServer
from holdfast.testing.fleet import until
from holdfast.testing.postgres import USER


class ProxyNetwork:
    """All are on this host. Each worker has a proxy of its own before the server."""

    def __init__(self, *settings: str) -> None:
        self._server = PostgresServer(*settings)
        self.url = self._server.url
        """Where the server is for a test, whatever becomes of the links."""

    def link(self) -> ProxyLink:
        return ProxyLink(self._server.port)

    def close(self) -> None:
        self._server.stop()


class ProxyLink(Proxy):
    """One worker's way to the server."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def inside(self):
        """Be where the worker is to be started."""
        return nullcontext()


class NamespaceNetwork:
    """The server has a host of its own, and so has each worker; see `support.namespaces`."""

    def __init__(self, *settings: str) -> None:
        self._host = Host()
        self._numbers = count(1)
        try:
            with self._host.inside():
                self._server = PostgresServer(*settings, "listen_addresses=*")
                with Path(self._server.data, "pg_hba.conf").open("a") as rules:
                    rules.write("host all all samenet trust\n")
                self._server.ask("SELECT pg_reload_conf()")
        except BaseException:
            self._host.close()
            raise
        # By its socket in the file system: no network has a part in that.
        self.url = (
            f"postgresql://{USER}@/postgres?host={self._server.root}&port={self._server.port}"
        )

    def link(self) -> NamespaceLink:
        return NamespaceLink(self._host, self._server.port, next(self._numbers))

    def close(self) -> None:
        self._server.stop()
        self._host.close()


class NamespaceLink:
    """One worker's host, and its cable to the server's."""

    def __init__(self, server: Host, port: int, number: int) -> None:
        self._host = Host()
        try:
            self._cable = Cable(self._host, server, number)
            self.url = f"postgresql://{USER}@{self._cable.addresses[1]}:{port}/postgres"
            with self.inside():
                assert until(self._answers, 10)  # once it has read whom to let in
        except BaseException:
            self._host.close()
            raise

    def cut(self, *, up: bool, down: bool) -> None:
        self._cable.cut(up=up, down=down)

    def heal(self) -> None:
        self._cable.heal()

    def inside(self):
        return self._host.inside()

    def close(self) -> None:
        self._host.close()

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
