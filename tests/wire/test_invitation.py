"""
Tests of the invitation string.
"""

from __future__ import annotations

import base64
import traceback

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.errors import InvitationError
from relaytunnel.wire.invitation import Invitation

modest = settings(deadline=None, max_examples=100)

DIGEST = bytes(range(224, 256))
PIN = "sha256:" + base64.urlsafe_b64encode(DIGEST).decode("ascii").rstrip("=")
CANARY = "c4nary"

pins = st.binary(min_size=32, max_size=32).map(
    lambda digest: "sha256:" + base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
)
invitations = st.builds(
    Invitation,
    agent=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    secret=st.text(min_size=1, max_size=60).filter(str.isprintable),
    host=st.one_of(
        st.ip_addresses().map(str), st.sampled_from(["localhost", "relay.example.net"])
    ),
    port=st.integers(1, 65535),
    pin=st.one_of(st.none(), pins),
)


class InvitationTests(SynchronousTestCase):
    """
    What an invitation says.
    """

    def test_written(self) -> None:
        """
        An invitation is written in the form that people are shown.
        """
        self.assertEqual(
            str(Invitation("office", "s3cret", "relay.example.net", 7000, PIN)),
            f"relaytunnel://office:s3cret@relay.example.net:7000/?pin={PIN}",
        )

    def test_without_pin(self) -> None:
        """
        Without a pin nothing stands behind the port but the slash.
        """
        self.assertEqual(str(Invitation("a", "b", "c")), "relaytunnel://a:b@c:7000/")

    def test_read(self) -> None:
        """
        Each part is read, whatever blanks are around it all.
        """
        self.assertEqual(
            Invitation.parse(f" relaytunnel://office:s3cret@Relay.Example:7001/?pin={PIN}\n"),
            Invitation("office", "s3cret", "relay.example", 7001, PIN),
        )

    def test_short(self) -> None:
        """
        Port, slash and pin may be left out.
        """
        for text in (
            "relaytunnel://a:b@c",
            "RelayTunnel://a:b@c/",
            "relaytunnel://a:b@c:7000",
            "relaytunnel://a:b@c/?",
        ):
            self.assertEqual(Invitation.parse(text), Invitation("a", "b", "c", 7000, None))

    def test_ipv6(self) -> None:
        """
        An IPv6 address stands in brackets.
        """
        text = "relaytunnel://a:b@[2001:db8::1]:7000/"
        self.assertEqual(Invitation.parse(text).host, "2001:db8::1")
        self.assertEqual(str(Invitation.parse(text)), text)

    def test_percent(self) -> None:
        """
        Characters of the secret that mean something else are escaped.
        """
        invitation = Invitation("a", "p@ss:w/rd?#%", "c")
        self.assertNotIn("p@ss", str(invitation))
        self.assertEqual(Invitation.parse(str(invitation)), invitation)

    def test_pin_digest(self) -> None:
        """
        The pin is given as bytes, too; its padding and escapes do not matter.
        """
        for pin in (PIN, PIN + "=", PIN.replace(":", "%3A")):
            invitation = Invitation.parse(f"relaytunnel://a:b@c/?pin={pin}")
            self.assertEqual(invitation.pin, PIN)
            self.assertEqual(invitation.pin_digest, DIGEST)
        self.assertIsNone(Invitation("a", "b", "c").pin_digest)

    def test_repr(self) -> None:
        """
        The secret is not in what logs and tracebacks show.
        """
        shown = repr(Invitation("office", CANARY, "c"))
        self.assertIn("office", shown)
        self.assertNotIn(CANARY, shown)

    @modest
    @given(invitations)
    def test_round_trip(self, invitation: Invitation) -> None:
        """
        What is written is read as the same invitation.
        """
        self.assertEqual(Invitation.parse(str(invitation)), invitation)


class FaultTests(SynchronousTestCase):
    """
    What is told of a faulty invitation.
    """

    def test_parts(self) -> None:
        """
        The part that is wrong is named, the form shown, and the secret not,
        neither in the message nor in a traceback.
        """
        for text, reason in (
            ("", "is empty"),
            (f"relaytunnel://a:{CANARY}@c" + "c" * 2048, "longer than 2048"),
            (f"relaytunnel://a:{CANARY}\n@c", "blanks or control"),
            (f"relaytunnel://a:{CANARY} x@c", "blanks or control"),
            (f"https://a:{CANARY}@c", "relaytunnel://"),
            (f"a:{CANARY}@c", "relaytunnel://"),
            (f"relaytunnel://a:{CANARY}", "AGENT:SECRET@"),
            (f"relaytunnel://{CANARY}@c", "AGENT:SECRET@"),
            (f"relaytunnel://{CANARY}+/:a@c", "AGENT:SECRET@|behind the port"),
            (f"relaytunnel://{CANARY}+:a@c", "agent ID"),
            (f"relaytunnel://:{CANARY}@c", "agent ID"),
            ("relaytunnel://a:@c", "no secret"),
            (f"relaytunnel://a:{CANARY}%00@c", "not printable"),
            (f"relaytunnel://a:{CANARY * 60}@c", "over 256 bytes"),
            (f"relaytunnel://a:{CANARY}%zz@c", "'%'"),
            (f"relaytunnel://a:{CANARY}%ff@c", "UTF-8"),
            (f"relaytunnel://a:{CANARY}@", "host name"),
            (f"relaytunnel://a:{CANARY}@a_b", "host name"),
            (f"relaytunnel://a:{CANARY}@c_{CANARY}:1", "host name"),
            (f"relaytunnel://a:{CANARY}@::1:7000", "brackets"),
            (f"relaytunnel://a:{CANARY}@[c]:7000", "brackets"),
            (f"relaytunnel://a:{CANARY}@[]:7000", "brackets"),
            (f"relaytunnel://a:{CANARY}@[::g]:7000", "IP address"),
            (f"relaytunnel://a:{CANARY}@c:", "port"),
            (f"relaytunnel://a:{CANARY}@c:0", "port"),
            (f"relaytunnel://a:{CANARY}@c:65536", "port"),
            (f"relaytunnel://a:{CANARY}@c:{CANARY}", "HOST:PORT"),
            (f"relaytunnel://a:{CANARY}@c/path", "behind the port"),
            (f"relaytunnel://a:{CANARY}@c/#x", "behind the port"),
            (f"relaytunnel://a:x?{CANARY}@c", "AGENT:SECRET@"),
            (f"relaytunnel://a:{CANARY}@c/?pim={PIN}", "one pin"),
            (f"relaytunnel://a:{CANARY}@c/?pin={PIN}&pin={PIN}", "one pin"),
            (f"relaytunnel://a:{CANARY}@c/?pin=", "43 characters"),
            (f"relaytunnel://a:{CANARY}@c/?pin=md5:{PIN[7:]}", "43 characters"),
            (f"relaytunnel://a:{CANARY}@c/?pin={PIN[:-1]}", "43 characters"),
            (f"relaytunnel://a:{CANARY}@c/?pin={PIN}A", "43 characters"),
            (f"relaytunnel://a:{CANARY}@c/?pin={PIN[:-4]}+/+8", "43 characters"),
        ):
            error = self.assertRaises(InvitationError, Invitation.parse, text)
            self.assertRegex(str(error), reason)
            self.assertIn("relaytunnel://AGENT:SECRET@HOST:PORT/", str(error))
            # Source lines are not part of it: the exceptions and their causes are.
            told = "".join(traceback.format_exception_only(error)) + repr(error.__cause__)
            self.assertNotIn(CANARY, told)
            self.assertTrue(error.__context__ is None or error.__suppress_context__)

    def test_one_spelling(self) -> None:
        """
        A pin whose last character has stray bits is not another spelling of
        the same key.
        """
        self.assertTrue(PIN.endswith("8"))
        self.assertRaises(InvitationError, Invitation, "a", "b", "c", 7000, PIN[:-1] + "9")

    @modest
    @given(st.text(max_size=60))
    def test_any_text(self, text: str) -> None:
        """
        Any text is either an invitation or an L{InvitationError}.
        """
        for candidate in (
            text,
            f"relaytunnel://{text}",
            f"relaytunnel://a:{text}@c",
            f"relaytunnel://a:b@{text}",
            f"relaytunnel://a:b@[{text}]:1",
            f"relaytunnel://a:b@c/?pin={text}",
        ):
            try:
                invitation = Invitation.parse(candidate)
            except InvitationError:
                continue
            self.assertEqual(Invitation.parse(str(invitation)), invitation)
