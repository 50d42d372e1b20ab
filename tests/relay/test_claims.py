"""
Tests of which names an agent's server may have.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts.model import Rights
from relaytunnel.config.hosts import RelayNames
from relaytunnel.config.names import Reach, matches
from relaytunnel.errors import Code, Rejection
from relaytunnel.relay.claims import NotGranted, Reservations, check_names, grant_command

_names = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(".".join)
_patterns = st.builds(lambda wild, name: "*." * wild + name, st.booleans(), _names)


class ClaimsCase(SynchronousTestCase):
    """
    A relay with two names.

    @ivar rights: of each account.
    """

    def setUp(self) -> None:
        self.names = RelayNames(["relay.example.net", "apps.example.org"])
        self.reservations = Reservations()
        self.rights: dict[str, Rights] = {}

    def account(
        self, agent: str, publish: tuple[str, ...] = (), hosts: tuple[str, ...] = ()
    ) -> None:
        """
        There is one more account.
        """
        self.rights[agent] = Rights(publish, (), hosts)
        self.reservations.load((name, r.publish, r.hosts) for name, r in self.rights.items())

    def check(self, agent: str, connection_id: str, *reach: str) -> tuple[str, ...]:
        ways = map(Reach.parse, reach or ("name",))
        rights = self.rights[agent]
        return check_names(self.names, self.reservations, agent, rights, connection_id, ways)

    def refused(self, agent: str, connection_id: str, *reach: str) -> Rejection:
        """
        @return: why this server may not be.
        """
        rejection: Rejection = self.assertRaises(
            Rejection, self.check, agent, connection_id, *reach
        )
        self.assertIs(rejection.code, Code.NOT_ALLOWED)
        return rejection


class TheftTests(ClaimsCase):
    """
    An agent that wants to have the clients of another.
    """

    def test_without_rights(self) -> None:
        """
        Who may publish C{evil} and nothing else gets no name but those of
        C{evil}, in whatever way and spelling, and though nobody else is here.
        """
        self.account("thief", ("evil",))
        for claim in (
            "web.relay.example.net",
            "WEB.Relay.Example.NET.",
            "web.apps.example.org",
            "*.relay.example.net",
            "*.web.relay.example.net",
            "*.evil.relay.example.net",
            "a.evil.relay.example.net",
            "*.evil",
            "a.evil",
            "web",
            "web.",
            "relay.example.net",
            "*.example.net",
            "*.net",
            "*.com",
            "*.co.uk",
            "localhost",
            "*.localhost",
            "web.localhost",
            "127.0.0.1",
            "*.0.0.1",
            "127.1",
            "bücher.example",
            "www.example.com",
        ):
            for kind in ("host", "sni"):
                self.refused("thief", "evil", f"{kind}:{claim}")
                self.refused("thief", "evil", "name", f"{kind}:{claim}")
        self.refused("thief", "web")

    def test_own_names(self) -> None:
        """
        It has its own, below each name of the relay, for which it needs no
        right; claimed is nothing then.
        """
        self.account("thief", ("evil", "*.evil"))
        for claim in (
            "evil",
            "evil.relay.example.net",
            "Evil.apps.example.org.",
            "evil.localhost",
        ):
            self.assertEqual(self.check("thief", "evil", f"host:{claim}", f"sni:{claim}"), ())
        self.assertEqual(self.check("thief", "a.evil", "host:a.evil.localhost"), ())
        self.refused("thief", "a.evil", "host:b.evil.localhost")

    def test_everything(self) -> None:
        """
        Who may claim everything may not claim what is the relay's, or below
        its names, or an address, or stands for many registries' names.
        """
        self.account("first", ("*",), ("*",))
        for claim in (
            "relay.example.net",
            "web.relay.example.net",
            "*.relay.example.net",
            "*.web.apps.example.org",
            "localhost",
            "*.localhost",
            "127.0.0.1",
            "*.com",
        ):
            fault = self.refused("first", "any", f"sni:{claim}")
            self.assertNotIsInstance(fault, NotGranted)
            self.assertIn("cannot be claimed", fault.reason)
        for claim in ("www.example.com", "*.example.net", "intranet", "*.lan"):
            self.assertEqual(self.check("first", "any", f"host:{claim}"), (claim,))

    def test_ids_of_the_relay(self) -> None:
        """
        No ID is a name of the relay, or ends in one.
        """
        self.account("first", ("*",))
        for connection_id in ("localhost", "relay.example.net", "x.localhost", "192.0.2.1"):
            self.refused("first", connection_id)
            self.refused("first", connection_id, "port:20001")


class RightTests(ClaimsCase):
    """
    What an account has a right to.
    """

    def test_granted(self) -> None:
        """
        A right counts in HTTP and in TLS, and is for the name that it says.
        """
        self.account("office", ("web",), ("www.example.com", "*.shop.example"))
        claims = "host:www.example.com", "sni:www.example.com", "host:*.shop.example"
        self.assertEqual(
            self.check("office", "web", *claims), ("www.example.com", "*.shop.example")
        )
        self.check("office", "web", "sni:a.b.shop.example", "host:*.b.shop.example")
        for claim in ("shop.example", "a.www.example.com", "*.www.example.com", "example.com"):
            self.refused("office", "web", f"host:{claim}")

    def test_command(self) -> None:
        """
        Who refuses a claim says which command allows it, for all of them.
        """
        self.account("office", ("web",), ("a.example",))
        fault = self.refused(
            "office", "web", "host:a.example", "host:b.example", "sni:*.c.example"
        )
        self.assertIsInstance(fault, NotGranted)
        command = "relaytunnel grant office --host b.example --host '*.c.example'"
        self.assertIn(f"'{command}'", fault.reason)
        self.assertEqual(getattr(fault, "claims", None), ("b.example", "*.c.example"))
        self.assertEqual(grant_command("office", ["b.example", "*.c.example"]), command)

    def test_long_command(self) -> None:
        """
        A command that has no room in the message is not cut in the middle.
        """
        self.account("office", ("web",))
        reach = [f"host:{'x' * 60}.{number}.example" for number in range(9)]
        fault = self.refused("office", "web", *reach)
        self.assertLessEqual(len(fault.reason), 256)
        self.assertIn("'relaytunnel agents'", fault.reason)

    def test_others_come_first(self) -> None:
        """
        Who may claim everything gets nothing that another account has a right
        to, be it here or not, as a name or as an ID; nor a wildcard for it.
        """
        self.account("first", ("*",), ("*",))
        self.account("shop", ("till", "*.till"), ("www.shop.example", "*.deep.example"))
        for claim in (
            "www.shop.example",
            "*.shop.example",
            "a.deep.example",
            "a.b.deep.example",
            "*.deep.example",
            "*.b.deep.example",
            "till",
            "a.till",
            "*.till",
        ):
            self.assertIsInstance(self.refused("first", "any", f"host:{claim}"), NotGranted)
        for claim in (
            "shop.example",
            "deep.example",
            "a.shop.example",
            "*.example",
            "*.www.shop.example",
        ):
            self.check("first", "any", f"host:{claim}")
        self.check("shop", "till", "host:www.shop.example", "sni:*.deep.example")

    def test_both(self) -> None:
        """
        What was granted expressly to both may be claimed by both.
        """
        self.account("first", ("*",), ("*", "www.shop.example"))
        self.account("shop", ("till",), ("www.shop.example",))
        for agent, connection_id in (("first", "any"), ("shop", "till")):
            self.check(agent, connection_id, "host:www.shop.example")

    def test_two_with_everything(self) -> None:
        """
        Two who may claim everything do not keep it from each other.
        """
        self.account("first", ("*",), ("*",))
        self.account("second", ("*",), ("*",))
        self.check("first", "any", "host:www.example.com")

    def test_id_of_a_claim(self) -> None:
        """
        An ID that may be anything is not the host name that another account has
        a right to; one that was granted by name may be.
        """
        self.account("first", ("*",), ("*",))
        self.account("shop", ("till",), ("www.shop.example",))
        self.refused("first", "www.shop.example")
        self.refused("first", "www.shop.example", "host:www.shop.example")
        self.check("first", "www.shop.example", "port:20001")
        self.account("second", ("www.shop.example",))
        self.check("second", "www.shop.example")
        self.account("third", ("*",), ("*.shop.example",))
        self.check("third", "www.shop.example")

    def test_revoked(self) -> None:
        """
        What an account had a right to is free when it is gone.
        """
        self.account("first", ("*",), ("*",))
        self.account("shop", (), ("www.shop.example",))
        self.refused("first", "any", "host:www.shop.example")
        del self.rights["shop"]
        self.account("other")
        self.check("first", "any", "host:www.shop.example")

    @given(st.lists(_patterns, max_size=4), _patterns, _names)
    def test_reserved(self, patterns: list[str], claim: str, name: str) -> None:
        """
        A claim is somebody else's if and only if one of their patterns covers
        a name that it stands for.
        """
        reservations = Reservations()
        reservations.load([("shop", (), patterns), ("first", ("*",), ("*", claim))])
        label = {"a", "b", "c", "other"}
        stands = {claim.replace("*", one) for one in label} if "*" in claim else {claim}
        expected = any(matches(pattern, one) for pattern in patterns for one in stands)
        self.assertEqual(reservations.claim(claim, "first"), expected)
        self.assertEqual(reservations.claim(claim, "shop"), True)
