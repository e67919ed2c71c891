"""Channels: whole messages, in order, whatever their length; an end that is gone is told."""

from __future__ import annotations

import socket
import threading

import pytest

from dicomfs.archive.channel import Channel, wait

MESSAGES = [
    (),
    ("files", ["/a/b", "M\u00fcller", "not \udcff UTF-8"]),
    (True, [(0, b"\0" * 32, "1.2.3"), (3, 1 << 40, {"Rows": 512, "PatientName": "A^B"})], False),
    (False, [bytes(5_000_000)], True),
    None,
]


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    sending = threading.Thread(target=lambda: [one.send(message) for message in MESSAGES])
    sending.start()
    assert [other.receive() for _ in MESSAGES] == MESSAGES
    sending.join()


def test_waiting_tells_who_has_something(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send("one")
    assert wait([one, other]) == [other]
    other.send("other")
    assert set(wait([one, other])) == {one, other}
    assert (one.receive(), other.receive()) == ("other", "one")


def test_an_end_that_is_gone(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send("last")
    one.close()
    assert wait([other]) == [other]
    assert other.receive() == "last"
    assert wait([other]) == [other]
    with pytest.raises(EOFError):
        other.receive()
    with pytest.raises(ConnectionError):
        other.send("too late")


def test_a_message_that_breaks_off() -> None:
    one, other = socket.socketpair()
    one.sendall(bytes([200, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]))
    one.close()
    channel = Channel(other)
    with pytest.raises(EOFError):
        channel.receive()
    channel.close()


def test_only_plain_values_are_sent(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        ends[0].send(object())
