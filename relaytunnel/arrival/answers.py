"""
HTTP answers to clients that cannot be served (RFC 9110, RFC 9112).

Which status, which fields, and which body, is told here by a code and a reason.
How the page for people looks is in L{relaytunnel.arrival.page}.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from relaytunnel.arrival.credentials import set_cookie
from relaytunnel.arrival.page import error_page
from relaytunnel.arrival.plain import one_line
from relaytunnel.arrival.response import Form, preferred_form, response
from relaytunnel.errors import Code, Failing

__all__ = ["http_answer"]

_PROXY_LOGIN = HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
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

_CHALLENGE = 'Basic realm="relaytunnel", charset="UTF-8"'


def http_answer(
    failing: Failing,
    accept: str | None,
    head_only: bool,
    *,
    status: int | None = None,
    proxy: bool = False,
    forget: bool = False,
) -> bytes:
    """
    Make the whole response to a request that does not reach its server.

    @param failing: what the client is told.
    @param accept: the request's Accept, if it had one.
    @param head_only: leave the body out, as for HEAD (RFC 9110 9.3.2).
    @param status: the status, where the code alone does not tell it.
    @param proxy: whether the client takes us for a proxy.  A tunnel's client
        often shows its user the status line alone, so the reason is in there.
    @param forget: whether a choice that it has made is to be forgotten.

    @return: status line, fields and body.  The connection ends behind it.
    """
    fields = [f"X-Relaytunnel-Code: {failing.code.value}"]
    answered = HTTPStatus(_STATUS.get(failing.code, 500) if status is None else status)
    if failing.code is Code.LOGIN_NEEDED:
        answered = _PROXY_LOGIN if proxy else HTTPStatus.UNAUTHORIZED
        fields.append(f"{'Proxy' if proxy else 'WWW'}-Authenticate: {_CHALLENGE}")
    if forget:
        fields.append(set_cookie(None))
    if failing.code in _RETRY_AFTER:
        fields.append(f"Retry-After: {_RETRY_AFTER[failing.code]}")
    form = preferred_form(accept)
    body = _body(form, answered, failing)
    phrase = f"{answered.phrase}: {_ascii(failing.reason)}" if proxy else None
    return response(answered, form, body, fields, head_only, phrase)


def _ascii(reason: str) -> str:
    return one_line(reason).encode("ascii", "replace").decode("ascii")


def _body(form: Form, status: HTTPStatus, failing: Failing) -> bytes:
    code, reason = failing.code.value, one_line(failing.reason)
    if form is Form.HTML:
        return error_page(status, failing.code, reason).encode()
    if form is Form.JSON:
        return json.dumps({"code": code, "reason": reason}).encode() + b"\n"
    return f"{code}: {reason}\n".encode()
