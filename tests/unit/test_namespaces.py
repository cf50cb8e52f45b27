from __future__ import annotations

import socket
from contextlib import closing, contextmanager

import pytest
from support.namespaces import Cable, Host, what_is_missing


@contextmanager
def _linked(lower, upper, cable):
    """Give each host a socket that sends to the other's, and says so when that can't be."""
    places = [(address, 5000) for address in cable.addresses]
    with lower.inside():
        one = socket.socket(type=socket.SOCK_DGRAM)
    with upper.inside():
        other = socket.socket(type=socket.SOCK_DGRAM)
    with one, other:
        for end, own in zip((one, other), places, strict=True):
            end.bind(own)
            end.settimeout(10)
        one.connect(places[1])
        other.connect(places[0])
        yield one, other


@pytest.mark.parametrize(
    ("up", "down"), [(True, True), (True, False), (False, True)],
    ids=["both ways", "up", "down"],
)  # fmt: skip
def test_a_cut_cable_loses_what_is_sent_into_it_and_tells_nobody(up, down):
    if reason := what_is_missing():
        pytest.skip(f"NO NETWORK NAMESPACES: {reason}")
    with closing(Host()) as lower, closing(Host()) as upper:
        cable = Cable(lower, upper, 1)
        with _linked(lower, upper, cable) as ends:
            cable.cut(up=up, down=down)
            for end in ends:
                end.send(b"while it is cut")
            cable.heal()
            for end in ends:
                end.send(b"after that")
            for end, lost in zip(ends, (down, up), strict=True):
                assert end.recv(100) == (b"after that" if lost else b"while it is cut")


def test_a_host_reaches_nothing_but_what_a_cable_leads_to():
    if reason := what_is_missing():
        pytest.skip(f"NO NETWORK NAMESPACES: {reason}")
    with socket.create_server(("127.0.0.1", 0)) as outside, closing(Host()) as host:
        with host.inside(), pytest.raises(ConnectionRefusedError):
            socket.create_connection(outside.getsockname())
        socket.create_connection(outside.getsockname()).close()
