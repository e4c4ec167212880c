"""How far a large transfer is, for a person at a terminal: what the `confonnx` command shows."""

from __future__ import annotations

import os
import sys
import time

WIDTH = 24
LARGE = 1 << 20
PAUSE = 0.05
CLEAR = "\r\x1b[K"
"""Returns to the beginning of the terminal's line and erases the line."""


class Bar:
    """A bar on standard error while a request or an answer of 1 MiB or more is on its way."""

    def __init__(self) -> None:
        self._drawn: float | None = None

    def __call__(self, sending: bool, done: int, total: int | None) -> None:
        """Draws the bar, at most every 50 ms; erases it once the answer is there."""
        if total is None or total < LARGE:
            return
        through, now = done >= total, time.monotonic()
        if through and not sending:
            self.erase()
        elif through or self._drawn is None or now - self._drawn >= PAUSE:
            _show(CLEAR + line(sending, done, total))
            self._drawn = now

    def erase(self) -> None:
        """Erases the bar, if it is there."""
        if self._drawn is not None:
            self._drawn = None
            _show(CLEAR)


def bar() -> Bar | None:
    """A bar, if standard error is a terminal."""
    return Bar() if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else None


def line(sending: bool, done: int, total: int) -> str:
    """A bar such as `sending   [=======>            ]  38%  25.6 of 67.2 MB`."""
    done = min(done, total)
    full = done * WIDTH // total
    head = "=" * full + (">" if full < WIDTH else "")
    # Once the request is sent, the model runs.
    what = ("sent" if done >= total else "sending") if sending else "receiving"
    return f"{what:9} [{head:{WIDTH}}] {done * 100 // total:3}%  {done / 1e6:.1f} of {total / 1e6:.1f} MB"


def _show(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
