"""
The question in HTTP: a client that named nobody chooses its server (S5).

A page lists what it may know, and a POST to L{PATH} on the relay's own name
takes the answer, if it comes from that page.  Where each server has a name of
its own below the one that the client used, the choice leads there; elsewhere it
is kept in a cookie, so that the next request goes straight there.  How the page
looks is in L{relaytunnel.arrival.page}.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, quote, urlencode

from relaytunnel.arrival.authority import Authority, parse_authority, parse_host
from relaytunnel.arrival.credentials import set_cookie
from relaytunnel.arrival.page import question_page
from relaytunnel.arrival.plain import one_line
from relaytunnel.arrival.response import Form, preferred_form, response
from relaytunnel.arrival.ways import Choice, Directory
from relaytunnel.errors import Code, Failing, ProtocolError

__all__ = ["PATH", "Asker", "Asking", "asking", "is_own_page"]

PATH = "/.relaytunnel/"
"""The path that is the relay's own, where nobody is named."""

_CODE = "which-server"
_LONGEST_PATH = 2048
# Each character of a path may take three in a query, and more stands behind it.
_MOST_QUERY = 4 * _LONGEST_PATH
_MOST_CHOICES = 200
# What a page may have of paths: each choice has the one that the client is after.
_MOST_OF_PATHS = 128 * 1024
_FIELDS = 8
_MOST_WORDS = 8
_MOST_NAME = 253
_DEFAULT_PORTS = {b"http": 80, b"https": 443}
_LOCAL_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]*")


@dataclass(frozen=True)
class Asker:
    """
    What else a request says that is put the question, or answers it.

    @ivar host: the relay's name or address, as the client has named it.
    @ivar token: its choice before, if it says that it has made one.
    @ivar accept: the values of Accept.
    @ivar head_only: whether the response is to have no body.
    @ivar posts: whether it is a POST.
    @ivar has_body: whether it has a body.
    @ivar same_origin: whether it was sent by this page, see L{is_own_page}.
    """

    host: Authority | None = None
    token: str | None = None
    accept: str | None = None
    head_only: bool = False
    posts: bool = False
    has_body: bool = False
    same_origin: bool = False


_NOBODY = Asker()


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

    def answer(self, directory: Directory, asker: Asker = _NOBODY) -> bytes:
        """
        Put the question, or take the answer.

        @return: a whole response.
        """
        failing, status = None, HTTPStatus.OK if self.direct else HTTPStatus.MULTIPLE_CHOICES
        if self.chosen is not None:
            failing = directory.refuses(self.chosen)
            if asker.posts and failing is None:
                failing = _fault(asker)
                if failing is None:
                    return self._lead(directory, asker, self.chosen)
                status = HTTPStatus.FORBIDDEN
        fields = [f"X-Relaytunnel-Code: {_CODE}"]
        if asker.token is not None and not self.direct:
            # Whoever comes here with one was not led anywhere by it.
            remembered = directory.remembered(asker.token)
            failing = _UNREADABLE if remembered is None else directory.refuses(remembered)
            fields.append(set_cookie(None))
        form = preferred_form(asker.accept)
        body = self._body(form, self._choices(directory), failing).encode()
        return response(status, form, body, fields, asker.head_only)

    def _lead(self, directory: Directory, asker: Asker, chosen: str) -> bytes:
        """
        Send a client to the server that it has chosen.
        """
        at = asker.host
        fields = []
        if at is not None and directory.has_names_below(at.host):
            below = Authority(f"{chosen}.{at.host}", at.port)
            if len(below.host) <= _MOST_NAME:
                fields = [f"Location: //{below}{self.to}"]
        if not fields:
            token = directory.remember(chosen)
            if token is None:
                why = Failing(Code.LIMIT, "its ID is too long to be remembered: name it as Host")
                body = self._body(preferred_form(asker.accept), [], why).encode()
                return response(
                    HTTPStatus.OK, preferred_form(asker.accept), body, [], asker.head_only
                )
            fields = [f"Location: {self.to}", set_cookie(token)]
        return response(HTTPStatus.SEE_OTHER, Form.TEXT, b"", fields, asker.head_only)

    def _choices(self, directory: Directory) -> list[Choice]:
        words = self.query.lower().split(None, _MOST_WORDS)[:_MOST_WORDS]
        found = [
            choice
            for choice in directory.listed()
            if all(word in choice.connection_id for word in words)
        ]
        exact = self.chosen or _name(self.query)
        if (
            exact is not None
            and all(choice.connection_id != exact for choice in found)
            and directory.refuses(exact) is None
        ):
            # Who knows the whole name may have what is not listed.
            found.insert(0, Choice(exact))
        if self.chosen is not None:
            found = [choice for choice in found if choice.connection_id == exact] or found
        return found[:_MOST_CHOICES]

    def _body(self, form: Form, choices: list[Choice], failing: Failing | None) -> str:
        why = "" if failing is None else one_line(failing.reason)
        to = urlencode({"to": self.to})
        if form is Form.HTML:
            pick = f"{PATH}?{to}&server="
            shown = choices[: max(1, _MOST_OF_PATHS // len(pick))]
            return question_page(shown, PATH, pick, one_line(self.query), self.to, _CODE, why)
        if form is Form.JSON:
            pick = f"{PATH}?server="
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


_UNREADABLE = Failing(Code.INVALID, "what was chosen before is not known here; choose once more")
_HOW = "this relay leads to several servers; name one as the Host, or choose one"


def _fault(asker: Asker) -> Failing | None:
    """
    @return: why a choice is not taken that is sent in this way.
    """
    if asker.has_body:
        return Failing(Code.INVALID, "a choice has no body")
    if not asker.same_origin:
        return Failing(Code.NOT_ALLOWED, "the choice was made on another page; make it here")
    return None


def is_own_page(host: Authority | None, origin: bytes | None, site: bytes | None) -> bool:
    """
    Say whether a request was sent by a page of the host that it goes to.

    @param origin: its Origin (RFC 6454 7), which browsers send with each POST.
    @param site: its Sec-Fetch-Site, which they send where they trust the
        connection, or the host.
    """
    if site is not None:
        return site == b"same-origin"
    scheme, _, rest = (origin or b"").partition(b"://")
    if host is None or scheme not in _DEFAULT_PORTS or not rest:
        return False
    try:
        return parse_authority(rest).same_as(host, _DEFAULT_PORTS[scheme])
    except ProtocolError:
        return False


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
