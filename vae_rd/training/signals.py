"""Signals: Ctrl-C, SIGTERM and SIGUSR1 ask the loop to save its state and to stop at the next safe place."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

from vae_rd import cli

TO_BE_CONTINUED = 85  # exit status after SIGTERM or SIGUSR1: the scheduler may start the same command again
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def led_by_a_chief() -> Iterator[None]:
    """Within the block, SIGTERM ends a worker with status 1, except while it is `listening`.

    srun sends it to the others when the chief has failed, and a worker that looked killed would put the whole job back
    into the queue. If the chief was killed, the job goes back anyway: srun returns the highest status of all workers.
    """
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Interrupted(Exception):
    """Training was asked to stop, and its state is saved."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command continues")
        self.exit_status = cli.INTERRUPTED if number == signal.SIGINT else TO_BE_CONTINUED


class Request:
    """The first signal received, if any."""

    number: int | None = None

    def raise_if_received(self) -> None:
        """Raises Interrupted once a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)


@contextlib.contextmanager
def listening() -> Iterator[Request]:
    """Within the block, notes signals instead of ending the program; a second Ctrl-C ends it at once."""
    request = Request()

    def receive(number: int, frame: Any) -> None:
        if request.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.number = number

    before = {number: signal.signal(number, receive) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
