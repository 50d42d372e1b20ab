"""
HTTP answers to clients that cannot be served (RFC 9110, RFC 9112).

One complete response is made here from a code and a reason: which status,
which fields, and a body in the form that the client asked for.  How the page
for people looks is in L{relaytunnel.arrival.page}.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus

from relaytunnel.arrival.page import error_page
from relaytunnel.arrival.plain import one_line
from relaytunnel.errors import Code, Failing

__all__ = ["http_answer"]

_STATUS = {
    Code.NO_SUCH_SERVER: HTTPStatus.NOT_FOUND,
    Code.NOT_ALLOWED: HTTPStatus.FORBIDDEN,
    Code.AGENT_AWAY: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.SHUTDOWN: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.REFUSED_BY_TARGET: HTTPStatus.BAD_GATEWAY,
    Code.TARGET_UNREACHABLE: HTTPStatus.BAD_GATEWAY,
    Code.UNKNOWN_ID: HTTPStatus.BAD_GATEWAY,
    Code.TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
}

# Seconds.  An agent that lost its relay is back within half a minute at most,
# and usually much sooner.
_RETRY_AFTER = {Code.BUSY: 5, Code.AGENT_AWAY: 15}

_HTML = "text/html; charset=utf-8"
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_FORMS = {
    "text/html": _HTML,
    "application/xhtml+xml": _HTML,
    "application/json": _JSON,
    "text/plain": _TEXT,
}
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def http_answer(
    failing: Failing, accept: str | None, head_only: bool, *, status: int | None = None
) -> bytes:
    """
    Make the whole response to a request that does not reach its server.

    @param failing: what the client is told.
    @param accept: the request's Accept, if it had one.  A page is for those
        who name C{text/html}, JSON for those who name C{application/json},
        and one line of text for all others: C{*/*} is what programs send.
    @param head_only: leave the body out, as for HEAD (RFC 9110 9.3.2).
    @param status: the status, where the code alone does not tell it.

    @return: status line, fields and body.  The connection ends behind it.
    """
    answered = HTTPStatus(_STATUS.get(failing.code, 500) if status is None else status)
    form = _preferred_form(accept)
    body = _body(form, answered, failing)
    lines = [
        f"HTTP/1.1 {answered.value} {answered.phrase}",
        "Connection: close",
        "Cache-Control: no-store",
        f"Content-Type: {form}",
        f"Content-Length: {len(body)}",
        "X-Content-Type-Options: nosniff",
        f"X-Relaytunnel-Code: {failing.code.value}",
    ]
    if form == _HTML:
        lines.append("Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'")
    if failing.code in _RETRY_AFTER:
        lines.append(f"Retry-After: {_RETRY_AFTER[failing.code]}")
    head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return head.encode("ascii") + (b"" if head_only else body)


def _body(form: str, status: HTTPStatus, failing: Failing) -> bytes:
    code, reason = failing.code.value, one_line(failing.reason)
    if form == _HTML:
        return error_page(status, failing.code, reason).encode()
    if form == _JSON:
        return json.dumps({"code": code, "reason": reason}).encode() + b"\n"
    return f"{code}: {reason}\n".encode()


def _preferred_form(accept: str | None) -> str:
    """
    Choose among the forms that are named outright (RFC 9110 12.5.1).

    @return: the media type of the weightiest, of the first among equals, and
        plain text if none is named.  What cannot be read is passed over.
    """
    best, best_weight = _TEXT, 0.0
    for offer in (accept or "").split(","):
        media, *parameters = (part.strip().lower() for part in offer.split(";"))
        form = _JSON if media.endswith("+json") else _FORMS.get(media)
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
