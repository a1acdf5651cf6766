"""Ports for servers that a test starts."""

import contextlib
import os
import socket

LOWEST, NUMBER = 24_000, 8_000  # below those that the system gives to outgoing connections, as of a browser


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, each process looking in a place of its own."""
    found: list[int] = []
    first = os.getpid() * 37 % NUMBER
    with contextlib.ExitStack() as stack:
        for step in range(NUMBER):
            listener = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", LOWEST + (first + step) % NUMBER))
                found.append(listener.getsockname()[1])
            if len(found) == count:
                return found
    raise RuntimeError(f"there must be {count} free ports (got {len(found)}).")
