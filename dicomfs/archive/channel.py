"""Messages between the writer and a worker: plain values through a socket, each after its length.

`multiprocessing` has the same, at 25 ms of start-up for each process; `marshal` writes plain tuples, lists,
dictionaries, texts, bytes and numbers alone, and both ends are the same interpreter.
"""

import marshal
import select
import socket
from collections.abc import Sequence
from struct import Struct
from typing import Final

_LENGTH: Final = Struct("<Q")


class Channel:
    """One end of a connection. Belongs to one thread."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._socket.fileno()

    def send(self, message: object) -> None:
        """Send a message; raise ConnectionError where nobody is at the other end."""
        data = marshal.dumps(message)  # type: ignore[arg-type]  # typeshed has no public name for what it takes
        self._socket.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self) -> object:
        """Wait for a message; raise EOFError or ConnectionError where none will come any more."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        return marshal.loads(self._exactly(length))  # noqa: S302 - it comes from our own other process

    def _exactly(self, length: int) -> bytearray:
        data = bytearray(length)
        rest = memoryview(data)
        while rest:
            got = self._socket.recv_into(rest)
            if not got:
                raise EOFError
            rest = rest[got:]
        return data

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def wait(channels: Sequence[Channel]) -> list[Channel]:
    """Wait until there is something to receive, or an end to hear of; return where."""
    waiting = select.poll()
    by_number = {channel.fileno(): channel for channel in channels}
    for number in by_number:
        waiting.register(number, select.POLLIN)
    return [by_number[number] for number, _ in waiting.poll()]
