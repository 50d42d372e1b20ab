"""
A whole HTTP response of the relay's own (RFC 9110, RFC 9112), in the form that
the client prefers.

What is in it is said in L{relaytunnel.arrival.answers} and
L{relaytunnel.arrival.choosing}.
"""

from __future__ import annotations

import re
from enum import Enum
from http import HTTPStatus

__all__ = ["Form", "preferred_form", "response"]


class Form(Enum):
    """
    What a body may be, by its media type.
    """

    HTML = "text/html; charset=utf-8"
    JSON = "application/json"
    TEXT = "text/plain; charset=utf-8"


_FORMS = {
    "text/html": Form.HTML,
    "application/xhtml+xml": Form.HTML,
    "application/json": Form.JSON,
    "text/plain": Form.TEXT,
}
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")

_HTML_ONLY = (
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline';"
    " base-uri 'none'; frame-ancestors 'none'"
)
"""No other page shows this one in a frame, where its visitor would click unawares."""

_MOST_OFFERS = 32
"""Of an Accept as many are looked at; browsers send less than ten."""

_MOST_PARAMETERS = 8
"""Of an offer, its media type among them."""


def preferred_form(accept: str | None) -> Form:
    """
    Choose among the forms that are named outright (RFC 9110 12.5.1).

    A page is for those who name C{text/html}, JSON for those who name
    C{application/json}, and plain text for all others: C{*/*} is what programs
    send.

    @return: the weightiest form, the first among equals, and plain text if
        none is named.  What cannot be read is passed over.
    """
    best, best_weight = Form.TEXT, 0.0
    for offer in (accept or "").split(",", _MOST_OFFERS)[:_MOST_OFFERS]:
        parts = offer.split(";", _MOST_PARAMETERS)[:_MOST_PARAMETERS]
        media, *parameters = (part.strip().lower() for part in parts)
        form = Form.JSON if media.endswith("+json") else _FORMS.get(media)
        weight = _weight(parameters)
        if form is not None and weight > best_weight:
            best, best_weight = form, weight
    return best


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            text = parameter[2:]
            return float(text) if _WEIGHT.fullmatch(text) else 0.0
    return 1.0


def response(
    status: HTTPStatus,
    form: Form,
    body: bytes,
    fields: list[str],
    head_only: bool,
    phrase: str | None = None,
) -> bytes:
    """
    @param fields: further field lines, in ASCII.
    @param head_only: leave the body out, as for HEAD (RFC 9110 9.3.2).
    @param phrase: what the status line says, in ASCII, instead of the usual.

    @return: status line, fields and body.  The connection ends behind it.
    """
    lines = [
        f"HTTP/1.1 {status.value} {phrase or status.phrase}",
        "Connection: close",
        "Cache-Control: no-store",
        f"Content-Type: {form.value}",
        f"Content-Length: {len(body)}",
        "X-Content-Type-Options: nosniff",
        *fields,
    ]
    if form is Form.HTML:
        lines.append(_HTML_ONLY)
    head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return head.encode("ascii") + (b"" if head_only else body)
