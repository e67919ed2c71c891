"""What several tests of the importer share."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """Return both ends of a channel."""
    one, other = map(Channel, socket.socketpair())
    yield one, other
    one.close()
    other.close()
