"""
The HTTP interface for operators: is the relay well, and what is going on.

It only answers questions.  Everything but C{/healthz} needs the token of the
state directory, which whoever may read the state has anyway.
"""

from __future__ import annotations

import hmac
from typing import Any, Protocol

import msgspec

from twisted.protocols.policies import WrappingFactory
from twisted.web.http import NOT_ALLOWED, UNAUTHORIZED
from twisted.web.pages import notFound
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from relaytunnel.budgets import RelayBudgets
from relaytunnel.channel.descriptors import Descriptors
from relaytunnel.relay.clients import Clients
from relaytunnel.relay.data import AgentsPort
from relaytunnel.relay.registry import Registry
from relaytunnel.relay.visits import Visits

__all__ = ["admin_site", "status"]


class RunningRelay(Protocol):
    """
    What the admin interface looks at.
    """

    registry: Registry
    visits: Visits
    clients: Clients
    agents_port: AgentsPort
    descriptors: Descriptors
    budgets: RelayBudgets


def status(relay: RunningRelay) -> dict[str, Any]:
    """
    @return: what is going on, as plain values.  No secret is among them.
    """
    room, descriptors = relay.visits.room, relay.descriptors
    return {
        "agents": [
            {
                "id": agent.agent_id,
                "peer": agent.peer,
                "software": agent.software,
                "servers": [
                    {
                        "id": server.connection_id,
                        "addresses": server.addresses,
                        "data": server.data,
                    }
                    for server in agent.servers.values()
                ],
                "refused_claims": agent.refused_claims,
            }
            for agent in relay.registry.agents.values()
        ],
        "sessions": [
            {
                "session": number,
                "server": place.server.connection_id,
                "client": visit.client,
                "up": splice.forward,
                "down": splice.backward,
            }
            for number, (visit, place, splice) in relay.clients.splices.items()
        ],
        "waiting": room.waiting,
        "served": room.served,
        "finished": relay.clients.finished,
        "arriving": relay.clients.arriving.taken,
        "lingering": len(relay.clients.lingering),
        "parked": relay.agents_port.parked,
        "unauthenticated": relay.agents_port.unauthenticated,
        "refused": dict(relay.visits.refusals),
        "turned_away": dict(relay.agents_port.turned_away),
        "descriptors": {
            "in_use": descriptors.in_use(),
            "limit": descriptors.limit(),
            "paused": descriptors.paused,
            "pauses": descriptors.pauses,
            "budgets": {name: budget.most for name, budget in relay.budgets.rows()},
        },
    }


class _Health(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return b"ok\n"


class _Status(Resource):
    isLeaf = True

    def __init__(self, relay: RunningRelay, token: str) -> None:
        super().__init__()
        self._relay = relay
        self._expected = b"Bearer " + token.encode("ascii")

    def render_GET(self, request: Request) -> bytes:
        shown = request.getHeader(b"authorization") or b""
        if not hmac.compare_digest(shown, self._expected):
            request.setResponseCode(UNAUTHORIZED)
            request.setHeader("WWW-Authenticate", 'Bearer realm="relaytunnel"')
            request.setHeader("Content-Type", "text/plain; charset=utf-8")
            return b"the token in the state directory's file admin-token is needed\n"
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        return msgspec.json.encode(status(self._relay)) + b"\n"


class _Folder(Resource):
    def getChild(self, path: bytes, request: Request) -> IResource:
        return notFound()


class _Root(_Folder):
    def render(self, request: Request) -> bytes:
        request.setResponseCode(NOT_ALLOWED if request.method != b"GET" else 200)
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return b"relaytunnel: ask for /healthz or /api/status\n"


class _Bounded(WrappingFactory):
    """
    No more than so many connections at a time.
    """

    noisy = False

    def __init__(self, site: Site, most: int) -> None:
        super().__init__(site)
        self._most = most

    def buildProtocol(self, addr: Any) -> Any:
        return None if len(self.protocols) >= self._most else super().buildProtocol(addr)


def admin_site(relay: RunningRelay, token: str, most: int) -> WrappingFactory:
    """
    @param token: the secret that C{/api/status} asks for.
    @param most: how many connections there may be.
    @return: the site, to listen with.
    """
    root, api = _Root(), _Folder()
    root.putChild(b"", root)
    root.putChild(b"healthz", _Health())
    root.putChild(b"api", api)
    api.putChild(b"status", _Status(relay, token))
    site = Site(root, timeout=30)
    site.noisy = False
    site.displayTracebacks = False
    return _Bounded(site, most)
