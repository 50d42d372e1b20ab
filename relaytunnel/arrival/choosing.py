"""
The question in HTTP: a client that named nobody chooses its server (S5).

A page lists what it may know, and L{PATH} on the relay's own name takes the
answer; the choice is kept in a cookie, so that the next request goes straight
there.  How the page looks is in L{relaytunnel.arrival.page}.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, quote, urlencode

from relaytunnel.arrival.authority import parse_host
from relaytunnel.arrival.credentials import set_cookie
from relaytunnel.arrival.page import question_page
from relaytunnel.arrival.plain import one_line
from relaytunnel.arrival.response import Form, preferred_form, response
from relaytunnel.arrival.ways import Choice, Directory
from relaytunnel.errors import Failing, ProtocolError

__all__ = ["PATH", "Asking", "asking"]

PATH = "/.relaytunnel/"
"""The path that is the relay's own, where nobody is named."""

_CODE = "which-server"
_LONGEST_PATH = 2048
# Each character of a path may take three in a query, and more stands behind it.
_MOST_QUERY = 4 * _LONGEST_PATH
_MOST_CHOICES = 200
_FIELDS = 8
_LOCAL_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]*")


@dataclass(frozen=True)
class Asking:
    """
    What a request says about the question.

    @ivar to: the path that the client is after.
    @ivar query: what it searches for.
    @ivar chosen: the connection ID it has chosen; L{None} if it has not.
    @ivar direct: whether it asks for the question itself.
    """

    to: str = "/"
    query: str = ""
    chosen: str | None = None
    direct: bool = False

    def answer(
        self, directory: Directory, remembered: str | None, accept: str | None, head_only: bool
    ) -> bytes:
        """
        Put the question, or take the answer.

        @param remembered: what it had chosen before, if it cannot be had now.
        @param accept: the request's Accept, if it had one.
        @param head_only: leave the body out.

        @return: a whole response.
        """
        failing = None
        wanted = self.chosen or remembered
        if wanted is not None:
            failing = directory.refuses(wanted)
            if failing is None and self.chosen is not None:
                return self._remember(self.chosen, head_only)
        fields = [f"X-Relaytunnel-Code: {_CODE}"]
        if failing is not None and remembered is not None:
            fields.append(set_cookie(None))
        form = preferred_form(accept)
        body = self._body(form, self._choices(directory), failing).encode()
        status = HTTPStatus.OK if self.direct else HTTPStatus.MULTIPLE_CHOICES
        return response(status, form, body, fields, head_only)

    def _remember(self, connection_id: str, head_only: bool) -> bytes:
        fields = [f"Location: {self.to}", set_cookie(connection_id)]
        return response(HTTPStatus.SEE_OTHER, Form.TEXT, b"", fields, head_only)

    def _choices(self, directory: Directory) -> list[Choice]:
        words = self.query.lower().split()
        found = [
            choice
            for choice in directory.listed()
            if all(word in choice.connection_id for word in words)
        ]
        exact = _name(self.query)
        if (
            exact is not None
            and all(choice.connection_id != exact for choice in found)
            and directory.refuses(exact) is None
        ):
            # Who knows the whole name may have what is not listed.
            found.insert(0, Choice(exact))
        return found[:_MOST_CHOICES]

    def _body(self, form: Form, choices: list[Choice], failing: Failing | None) -> str:
        why = "" if failing is None else one_line(failing.reason)
        if form is Form.HTML:
            return question_page(choices, PATH, one_line(self.query), self.to, _CODE, why)
        pick = f"{PATH}?{urlencode({'server': ''})}"
        if form is Form.JSON:
            servers = [
                {
                    "id": choice.connection_id,
                    "addresses": list(choice.addresses),
                    "choose": pick + quote(choice.connection_id),
                }
                for choice in choices
            ]
            told = {"code": _CODE, "reason": why or _HOW, "servers": servers}
            return json.dumps(told) + "\n"
        lines = [f"{_CODE}: {why or _HOW}"]
        lines += [" ".join(("", choice.connection_id, *choice.addresses)) for choice in choices]
        return "\n".join(lines) + "\n"


_HOW = "this relay leads to several servers; name one as the Host, or choose one"


def asking(path: bytes) -> Asking:
    """
    Read what a path says about the question.

    @param path: of a request that names nobody, in origin form.
    """
    text = path.decode("latin-1")
    place, _, query = text.partition("?")
    if place != PATH:
        return Asking(to=_local(text))
    try:
        given = parse_qs(query[:_MOST_QUERY], max_num_fields=_FIELDS)
    except ValueError:
        given = {}
    chosen = _name(given["server"][0]) if "server" in given else None
    return Asking(
        to=_local(given.get("to", ["/"])[0]),
        query=given.get("q", [""])[0].strip()[:255],
        chosen=chosen,
        direct=True,
    )


def _local(path: str) -> str:
    """
    @return: the path, if it leads nowhere but to this host.
    """
    if len(path) > _LONGEST_PATH or not _LOCAL_PATH.fullmatch(path) or path.startswith(PATH):
        return "/"
    return path


def _name(text: str) -> str | None:
    """
    @return: the connection ID that this may be.
    """
    try:
        return parse_host(text.strip().encode("utf-8", "replace"))
    except ProtocolError:
        return None
