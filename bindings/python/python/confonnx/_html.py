"""Verdicts as notebooks show them."""

from __future__ import annotations

import html
from typing import Protocol, Sequence

_MARKS = {
    "passed": ("✓", "#1a7f37"),
    "failed": ("✗", "#cf222e"),
    "undecided": ("?", "#9a6700"),
    "info": ("·", "#6e7781"),
    "notable": ("!", "#9a6700"),
}


class Checked(Protocol):
    """`confonnx.client.Check`."""

    @property
    def name(self) -> str: ...
    @property
    def expected(self) -> str: ...
    @property
    def found(self) -> str: ...
    @property
    def outcome(self) -> str: ...


def verdict(tee: str, checks_: Sequence[Checked]) -> str:
    """What a server proved: one line, and the checks below it. The insecure TEE gets no green."""
    if tee == "insecure":
        line = '<b style="color:#9a6700">⚠ Insecure TEE: for development, proves nothing</b>'
    else:
        line = f'<b style="color:#1a7f37">✓ Verified: {html.escape(tee)}</b>'
    return f"<div>{line}{checks(checks_)}</div>"


def checks(checks_: Sequence[Checked]) -> str:
    """A table with a row for each check; colours say nothing that marks do not."""
    rows = "".join(map(_row, checks_))
    head = "".join(f'<th style="text-align:left">{title}</th>' for title in ("", "check", "expected", "found"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(check: Checked) -> str:
    mark, colour = _MARKS.get(check.outcome, ("", "inherit"))
    expected = "" if check.outcome in ("info", "notable") else check.expected
    cells = (
        f'<td style="color:{colour};font-weight:bold" title="{html.escape(check.outcome)}">{mark}</td>',
        f'<td style="text-align:left">{html.escape(check.name)}</td>',
        *(
            f'<td style="text-align:left;word-break:break-all"><code>{html.escape(text)}</code></td>'
            if text
            else "<td></td>"
            for text in (expected, check.found)
        ),
    )
    return f"<tr>{''.join(cells)}</tr>"
