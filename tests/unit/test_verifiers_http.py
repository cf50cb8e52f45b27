"""An address claim holds if the address answers with its status; redirects stay on one host."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from holdfast.errors import EvidenceInputError
from holdfast.evidence import Evidence, EvidencePack, VerdictStatus, WorkspaceRef
from holdfast.verifiers import EvidenceVerifier
from holdfast.verifiers import http as http_module

REDIRECTS = {
    "/moved": "/ok",
    "/loop": "/loop",
    "/elsewhere": "http://localhost:{port}/ok",
    "/port": "http://127.0.0.1:9/ok",
    "/scheme": "file:///etc/passwd",
}


class Handler(BaseHTTPRequestHandler):
    """Answers as the path says."""

    def do_GET(self):
        if self.path in REDIRECTS:
            self.send_response(302)
            port = self.server.server_address[1]
            self.send_header("Location", REDIRECTS[self.path].format(port=port))
            self.end_headers()
        elif self.path == "/drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(30):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
                time.sleep(0.1)
        else:
            status = {"/ok": 200, "/made": 201}.get(self.path, 404)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"y" * 100_000)

    def log_message(self, *_args):
        """Keep quiet."""


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def check(url, status=200, timeout=5.0):
    pack = EvidencePack((Evidence.http(url, status, timeout=timeout),))
    return EvidenceVerifier().verify_now(pack, WorkspaceRef("ws", "/nowhere")).verdicts[0]


def test_the_status_decides(address):
    assert check(f"{address}/ok").holds
    assert check(f"{address}/made", 201).holds
    assert check(f"{address}/missing", 404).holds
    verdict = check(f"{address}/missing")
    assert verdict.status is VerdictStatus.FAILED
    assert verdict.detail == "status 404, not 200"


def test_only_the_beginning_of_the_body_is_kept(address):
    assert len(check(f"{address}/ok").captured["body"]) <= 4096


def test_a_redirect_on_the_same_host_is_followed(address):
    verdict = check(f"{address}/moved")
    assert verdict.holds
    assert verdict.captured["url"] == f"{address}/ok"
    assert check(f"{address}/moved", 302).captured["url"] == f"{address}/moved"


@pytest.mark.parametrize("path", ["/elsewhere", "/port", "/scheme"])
def test_a_redirect_to_another_host_port_or_scheme_is_not_followed(address, path):
    verdict = check(address + path)
    assert verdict.status is VerdictStatus.FAILED
    assert "isn't followed" in verdict.detail


def test_a_redirect_in_circles_fails(address):
    assert "redirects" in check(f"{address}/loop").detail


def test_an_answer_that_drips_is_cut_off_by_the_time_limit(address):
    started = time.monotonic()
    verdict = check(f"{address}/drip", timeout=0.4)
    assert time.monotonic() - started < 2
    assert verdict.status is VerdictStatus.ERROR
    assert verdict.detail == "no answer in time"


def test_a_server_that_never_answers_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        verdict = check(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.3)
    assert verdict.status is VerdictStatus.ERROR


def test_a_refused_connection_fails(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert check(f"http://127.0.0.1:{port}/").status is VerdictStatus.FAILED


@pytest.mark.parametrize("peer", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0"])
def test_the_metadata_service_of_a_cloud_machine_is_never_asked(address, monkeypatch, peer):
    class Peer(socket.socket):
        def getpeername(self):
            return (peer, 80)

    def connect(*args, **kwargs):
        return Peer(fileno=original(*args, **kwargs).detach())

    original = socket.create_connection
    monkeypatch.setattr(http_module.socket, "create_connection", connect)
    with pytest.raises(EvidenceInputError, match="link-local"):
        check(f"{address}/ok")
