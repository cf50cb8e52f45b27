"""HTTP: an address answers with the status that was claimed."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urljoin, urlsplit

from holdfast.errors import EvidenceInputError
from holdfast.evidence import Evidence, Verdict
from holdfast.evidence.inputs import http_address
from holdfast.verifiers.site import Site, could_not_tell, failed, verified

_BODY_CAP = 4096
_REDIRECTS = 5
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})


def check_http(evidence: Evidence, _previous: Verdict | None, site: Site) -> Verdict:
    """Send a GET request and compare the status.

    Redirects are followed on the same host only, and never from https to http. A refused
    connection fails the claim; no answer at all proves nothing either way and is an error.
    """
    expected: int = evidence.params["status"]
    address = http_address(evidence.params["url"])
    deadline = site.clock.boottime() + evidence.params["timeout"]
    for _ in range(_REDIRECTS + 1):
        try:
            status, location, body = _get(address, deadline - site.clock.boottime())
        except (OSError, http.client.HTTPException) as error:
            return _no_answer(error)
        captured: dict[str, Any] = {"status": status, "url": address, "body": body}
        if status == expected:
            return verified(f"status {status}", captured)
        if status not in _REDIRECT_STATUSES or not location:
            return failed(f"status {status}, not {expected}", captured)
        following = _following(address, location)
        if following is None:
            return failed(f"status {status} leads to another place; it isn't followed", captured)
        address = following
    return failed(f"more than {_REDIRECTS} redirects")


def _get(address: str, seconds: float) -> tuple[int, str | None, str]:
    if seconds <= 0:
        raise TimeoutError("timed out")
    watch = _Watch(seconds)
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), _Plain(watch), _Encrypted(watch)):
        opener.add_handler(handler)
    headers = {"User-Agent": "holdfast", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310  http_address checked
    with watch:
        response: http.client.HTTPResponse = opener.open(request, timeout=seconds)
        with response:
            body = response.read(_BODY_CAP).decode("utf-8", errors="replace")
            return response.status, response.headers.get("Location"), body


def _following(address: str, location: str) -> str | None:
    """Return where a redirect leads, or None if it isn't to be followed."""
    try:
        following = http_address(urljoin(address, location))
    except EvidenceInputError:
        return None
    before, after = urlsplit(address), urlsplit(following)
    same_place = (before.scheme, before.port) == (after.scheme, after.port)
    if before.hostname != after.hostname or not (same_place or after.scheme == "https"):
        return None
    return following


def _no_answer(error: Exception) -> Verdict:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ConnectionRefusedError):
        return failed("connection refused")
    if isinstance(reason, TimeoutError):
        return could_not_tell("no answer in time")
    return could_not_tell(f"no answer: {type(reason).__name__}: {reason}")


class _Watch:
    """Ends the exchange when its time is up.

    A socket's own timeout starts again with every byte, so a server that answers one byte at a
    time could hold a check for hours.
    """

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._expired = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._sockets.clear()
        if self._expired:
            raise TimeoutError("timed out")

    def opened(self, connection: socket.socket) -> None:
        """Watch a connection, or refuse it for where it leads."""
        # A cloud machine's metadata service hands out its credentials at a link-local address.
        # The peer is looked at, not the name, so that no second name lookup can change it.
        host = str(connection.getpeername()[0]).partition("%")[0]
        peer = ipaddress.ip_address(host)
        if (getattr(peer, "ipv4_mapped", None) or peer).is_link_local:
            connection.close()
            raise EvidenceInputError(f"{host} is link-local; evidence isn't fetched from there.")
        with self._lock:
            if self._expired:
                connection.close()
                raise TimeoutError("timed out")
            self._sockets.append(connection)

    def _end(self) -> None:
        with self._lock:
            self._expired = True
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        watch = self._watch

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                watch.opened(self.sock)

        return self.do_open(Connection, req)


class _Encrypted(urllib.request.HTTPSHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        watch = self._watch

        class Connection(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                watch.opened(self.sock)

        return self.do_open(Connection, req)
