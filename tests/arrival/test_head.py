"""
Tests for L{relaytunnel.arrival.head}: what a request head may look like.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import Authority
from relaytunnel.arrival.head import Fault, Fields, RequestLine, named_by, parse_request_line
from relaytunnel.errors import Code


class HeadCase(SynchronousTestCase):
    """
    Heads are given as lines.
    """

    def read(self, *lines: bytes) -> tuple[str, int | None] | None:
        """
        Read a whole head.

        @return: the host and the port that it names.
        """
        request = parse_request_line(lines[0])
        fields = Fields(100)
        for line in lines[1:]:
            fields.add(line)
        authority = named_by(request, fields)
        return None if authority is None else (authority.host, authority.port)

    def refused(self, status: int, why: str, *lines: bytes) -> None:
        """
        Assert that a head is at fault, with which status, and what is said.
        """
        fault = self.assertRaises(Fault, self.read, *lines)
        self.assertEqual(fault.status, status)
        self.assertIn(why, fault.failing.reason)


class RequestLineTests(HeadCase):
    """
    The first line of a head.
    """

    def test_path(self) -> None:
        """
        A request line with a path names nobody by itself.
        """
        self.assertEqual(
            parse_request_line(b"GET /a?b HTTP/1.1"), RequestLine(b"GET", b"HTTP/1.1", b"/a?b")
        )

    def test_absolute(self) -> None:
        """
        A request line with an absolute URI has an authority.
        """
        self.assertEqual(
            parse_request_line(b"GET https://Web:8443/a HTTP/1.0"),
            RequestLine(b"GET", b"HTTP/1.0", b"/a", Authority("web", 8443), 443),
        )

    def test_any_method(self) -> None:
        """
        The relay need not know a method to let it pass.
        """
        self.assertEqual(parse_request_line(b"BREW /pot HTTP/1.1").method, b"BREW")

    def test_options_of_the_server(self) -> None:
        """
        OPTIONS may ask about the server as a whole.
        """
        self.assertEqual(parse_request_line(b"OPTIONS * HTTP/1.1").method, b"OPTIONS")

    def test_asterisk_for_others(self) -> None:
        """
        No other method has an asterisk for a target.
        """
        self.refused(400, "target", b"GET * HTTP/1.1")

    def test_path_beyond_ascii(self) -> None:
        """
        Bytes above 127 in a path are let pass, as servers take them.
        """
        self.assertEqual(parse_request_line("GET /é HTTP/1.1".encode()).method, b"GET")

    def test_control_character_in_target(self) -> None:
        """
        A control character in the target is refused.
        """
        self.refused(400, "first line", b"GET /\0 HTTP/1.1")
        self.refused(400, "first line", b"GET /\x7f HTTP/1.1")

    def test_tab_between(self) -> None:
        """
        Only a space divides the words of the first line.
        """
        self.refused(400, "first line", b"GET\t/ HTTP/1.1")

    def test_two_spaces(self) -> None:
        """
        Only one space divides the words of the first line.
        """
        self.refused(400, "first line", b"GET  / HTTP/1.1")

    def test_space_in_target(self) -> None:
        """
        A target with a space in it is refused.
        """
        self.refused(400, "first line", b"GET /a b HTTP/1.1")

    def test_no_version(self) -> None:
        """
        HTTP/0.9, which has no version, is refused.
        """
        self.refused(400, "first line", b"GET /")

    def test_other_version(self) -> None:
        """
        Another version of HTTP is answered with the versions spoken here.
        """
        for version in (b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3", b"HTTP/1.10", b"HTTP/"):
            self.refused(505, "HTTP/1.1", b"GET / " + version)

    def test_no_http_version(self) -> None:
        """
        What is no version of HTTP at all is refused, as is HTTP in lower case.
        """
        self.refused(400, "version", b"GET / RTSP/1.0")
        self.refused(400, "version", b"GET / http/1.1")

    def test_http2_preface(self) -> None:
        """
        A client that begins with HTTP/2 is told that HTTP/1 is spoken here.
        """
        self.refused(505, "HTTP/1.1", b"PRI * HTTP/2.0")

    def test_connect(self) -> None:
        """
        CONNECT names the server by a host and a port, with or without a Host.
        """
        self.assertEqual(self.read(b"CONNECT Web:22 HTTP/1.1"), ("web", 22))
        self.assertEqual(self.read(b"CONNECT web:22 HTTP/1.1", b"Host: web"), ("web", 22))
        self.assertEqual(self.read(b"CONNECT [::1]:22 HTTP/1.0"), ("::1", 22))

    def test_connect_without_port(self) -> None:
        """
        It does not do so without the port.
        """
        self.refused(400, "a host and a port", b"CONNECT web HTTP/1.1")

    def test_connect_elsewhere(self) -> None:
        """
        A Host that differs is refused.
        """
        self.refused(400, "different", b"CONNECT web:22 HTTP/1.1", b"Host: other:22")

    def test_origin(self) -> None:
        """
        Behind an absolute URI's authority stands what a server is asked for.
        """
        for target, path in (
            (b"http://web", b"/"),
            (b"http://web?q", b"/?q"),
            (b"http://web/a#b", b"/a"),
        ):
            self.assertEqual(parse_request_line(b"GET %s HTTP/1.1" % target).path, path)
        self.assertEqual(parse_request_line(b"OPTIONS http://web HTTP/1.1").path, b"*")

    def test_authority_for_others(self) -> None:
        """
        No other method has an authority for a target.
        """
        self.refused(400, "target", b"GET web:80 HTTP/1.1")

    def test_other_scheme(self) -> None:
        """
        An absolute URI of another scheme is refused.
        """
        self.refused(400, "scheme", b"GET ftp://web/ HTTP/1.1")

    def test_absolute_without_host(self) -> None:
        """
        An absolute URI without a host is refused.
        """
        self.refused(400, "empty", b"GET http:///a HTTP/1.1")

    def test_absolute_with_user_name(self) -> None:
        """
        An absolute URI with a user name is refused.
        """
        self.refused(400, "user name", b"GET http://web@evil/ HTTP/1.1", b"Host: web")


class FieldTests(HeadCase):
    """
    The header fields of a head.
    """

    def refused_field(self, why: str, *lines: bytes) -> None:
        """
        Assert that a head with these lines is at fault, and what is said.
        """
        self.refused(400, why, b"POST / HTTP/1.1", b"Host: web", *lines)

    def passes(self, *lines: bytes) -> None:
        """
        Assert that a head with these lines names its server.
        """
        self.assertEqual(self.read(b"POST / HTTP/1.1", b"Host: web", *lines), ("web", None))

    def test_folded(self) -> None:
        """
        A line that goes on with the one above is refused.
        """
        self.refused_field("white space", b"X: a", b" b")
        self.refused_field("white space", b"X: a", b"\tb")

    def test_first_line_indented(self) -> None:
        """
        White space before the first header is refused as well.
        """
        self.refused(400, "white space", b"GET / HTTP/1.1", b" Host: web")

    def test_no_colon(self) -> None:
        """
        A line without a colon is refused.
        """
        self.refused_field("colon", b"Nothing")

    def test_space_before_colon(self) -> None:
        """
        White space before the colon is refused.
        """
        self.refused_field("and its colon", b"X : a")
        self.refused_field("and its colon", b"Content-Length\t: 3")

    def test_empty_name(self) -> None:
        """
        A header without a name is refused.
        """
        self.refused_field("token", b": a")

    def test_name_not_a_token(self) -> None:
        """
        A header whose name is no token is refused.
        """
        for name in (b"X Y", b"X(", b"X\0", b"X\x80", b'"X"'):
            self.refused_field("token", name + b": a")

    def test_control_character_in_value(self) -> None:
        """
        A header with a control character in its value is refused.
        """
        for control in (b"\0", b"\x01", b"\x0b", b"\x1b", b"\x7f"):
            self.refused_field("control character", b"X: a" + control)

    def test_tab_in_value(self) -> None:
        """
        A tab may stand in a value.
        """
        self.passes(b"X: a\tb")

    def test_value_beyond_ascii(self) -> None:
        """
        Bytes above 127 may stand in a value.
        """
        self.passes(b"X: \xe9")

    def test_empty_value(self) -> None:
        """
        A header may be empty.
        """
        self.passes(b"X:")

    def test_too_many(self) -> None:
        """
        One header more than the limit is refused, with the status for it.
        """
        fields = Fields(2)
        fields.add(b"A: 1")
        fields.add(b"B: 2")
        fault = self.assertRaises(Fault, fields.add, b"C: 3")
        self.assertEqual((fault.status, fault.failing.code), (431, Code.LIMIT))

    def test_length(self) -> None:
        """
        A Content-Length is let pass.
        """
        self.passes(b"Content-Length: 3")

    def test_length_no_number(self) -> None:
        """
        A Content-Length that is not digits is refused, lists among them.
        """
        for length in (b"", b"-1", b"+1", b"0x1", b"1 2", b"3, 3", b"3.0", b"\xb2"):
            self.refused_field("not a number", b"Content-Length: " + length)

    def test_lengths_differ(self) -> None:
        """
        Two Content-Lengths that differ are refused.
        """
        self.refused_field("differ", b"Content-Length: 3", b"content-length: 4")

    def test_lengths_differ_in_spelling(self) -> None:
        """
        Two Content-Lengths have to be the same to the letter.
        """
        self.refused_field("differ", b"Content-Length: 8", b"Content-Length: 08")

    def test_lengths_agree(self) -> None:
        """
        The same Content-Length twice is the server's business.
        """
        self.passes(b"Content-Length: 3", b"Content-Length: 3")

    def test_transfer_encoding(self) -> None:
        """
        A Transfer-Encoding is let pass.
        """
        self.passes(b"Transfer-Encoding: chunked")

    def test_length_and_transfer_encoding(self) -> None:
        """
        Two ways to frame the body are refused, in either order.
        """
        both = (b"Content-Length: 3", b"Transfer-Encoding: chunked")
        self.refused_field("both", *both)
        self.refused_field("both", *reversed(both))


class HostTests(HeadCase):
    """
    Which server a head names.
    """

    def test_host(self) -> None:
        """
        The Host names the server.
        """
        self.assertEqual(
            self.read(b"GET / HTTP/1.1", b"hOsT:web.Example.:80"), ("web.example", 80)
        )

    def test_white_space_around(self) -> None:
        """
        White space around the Host is not part of it.
        """
        self.assertEqual(self.read(b"GET / HTTP/1.1", b"Host:\t web \t"), ("web", None))

    def test_missing(self) -> None:
        """
        HTTP/1.1 without a Host is refused.
        """
        self.refused(400, "no Host", b"GET / HTTP/1.1", b"Accept: */*")

    def test_missing_in_absolute(self) -> None:
        """
        HTTP/1.1 without a Host is refused even if the target has one.
        """
        self.refused(400, "no Host", b"GET http://web/ HTTP/1.1")

    def test_missing_in_1_0(self) -> None:
        """
        HTTP/1.0 without a Host names nobody.
        """
        self.assertIsNone(self.read(b"GET / HTTP/1.0"))

    def test_absolute_1_0(self) -> None:
        """
        HTTP/1.0 without a Host names whom its target names.
        """
        self.assertEqual(self.read(b"GET http://web:81/ HTTP/1.0"), ("web", 81))

    def test_empty(self) -> None:
        """
        An empty Host names nobody.
        """
        self.assertIsNone(self.read(b"GET / HTTP/1.1", b"Host: "))

    def test_twice(self) -> None:
        """
        Two different Hosts are refused.
        """
        self.refused(400, "more than one Host", b"GET / HTTP/1.1", b"Host: a", b"Host: b")

    def test_twice_the_same(self) -> None:
        """
        Two Hosts are refused even if they are the same.
        """
        self.refused(400, "more than one Host", b"GET / HTTP/1.1", b"Host: a", b"HOST: a")

    def test_twice_empty(self) -> None:
        """
        An empty Host is a Host, and a second one is one too many.
        """
        self.refused(400, "more than one Host", b"GET / HTTP/1.1", b"Host:", b"Host: a")

    def test_list(self) -> None:
        """
        A list of hosts is no host.
        """
        self.refused(400, "label", b"GET / HTTP/1.1", b"Host: a, b")

    def test_user_name(self) -> None:
        """
        A Host with a user name is refused.
        """
        self.refused(400, "user name", b"GET / HTTP/1.1", b"Host: a@b")

    def test_uri(self) -> None:
        """
        A Host that is a URI is refused.
        """
        self.refused(400, "port", b"GET / HTTP/1.1", b"Host: http://web/")

    def test_absolute_agrees(self) -> None:
        """
        The target and the Host may name the same server twice.
        """
        self.assertEqual(self.read(b"GET http://WEB./a HTTP/1.1", b"Host: web"), ("web", None))

    def test_absolute_agrees_by_default_port(self) -> None:
        """
        The default port of the target's scheme may be given or not.
        """
        self.assertEqual(self.read(b"GET http://web/ HTTP/1.1", b"Host: web:80"), ("web", 80))
        self.assertEqual(self.read(b"GET HTTPS://web:443? HTTP/1.1", b"Host: web"), ("web", None))

    def test_absolute_disagrees(self) -> None:
        """
        A target that names another server than the Host is refused.
        """
        self.refused(400, "different", b"GET http://evil/ HTTP/1.1", b"Host: web")

    def test_absolute_disagrees_in_port(self) -> None:
        """
        Another port is another server.
        """
        self.refused(400, "different", b"GET http://web:81/ HTTP/1.1", b"Host: web")
        self.refused(400, "different", b"GET https://web/ HTTP/1.1", b"Host: web:80")

    def test_absolute_with_empty_host(self) -> None:
        """
        A target that names a server does not agree with an empty Host.
        """
        self.refused(400, "different", b"GET http://web/ HTTP/1.1", b"Host:")


class NotedTests(SynchronousTestCase):
    """
    What is noted of a head's fields.
    """

    def fields(self, *lines: bytes) -> Fields:
        """
        Take in some lines.
        """
        fields = Fields(100)
        for line in lines:
            fields.add(line)
        return fields

    def test_credentials(self) -> None:
        """
        Credentials for a server and for a proxy are noted apart.
        """
        fields = self.fields(b"AUTHORIZATION: Basic a", b"proxy-authorization:Basic b \t")
        self.assertEqual(
            fields.credentials, {b"authorization": b"Basic a", b"proxy-authorization": b"Basic b"}
        )

    def test_credentials_twice(self) -> None:
        """
        Twice the same field is refused, even with the same value: who comes
        later may look at another one.
        """
        for name in (b"Authorization", b"Proxy-Authorization"):
            for second in (b"Basic a", b"Basic b", b""):
                fields = self.fields(name + b": Basic a")
                fault = self.assertRaises(Fault, fields.add, name.lower() + b": " + second)
                self.assertEqual(fault.status, 400)
                self.assertIn("credentials twice", fault.failing.reason)

    def test_many_options(self) -> None:
        """
        Of options of the connection there are not too many.
        """
        self.fields(b"Connection: " + b",".join([b"a"] * 64))
        for many in (b",".join([b"a"] * 65), b"," * 16000):
            fault = self.assertRaises(Fault, self.fields, b"Connection: " + many)
            self.assertEqual(fault.status, 400)

    def test_cookies(self) -> None:
        """
        All cookies are noted, in their order.
        """
        fields = self.fields(b"Cookie: a=b; c=d", b"X: y", b"cookie:e=f")
        self.assertEqual(fields.cookies, [b"a=b; c=d", b"e=f"])

    def test_upgrades(self) -> None:
        """
        An Upgrade to WebSocket is noted, and nothing that a server may pass
        over or that is only called like it.
        """
        wanted = (b"upgrade: websocket", b"Connection: keep-alive, Upgrade")
        self.assertTrue(self.fields(*wanted).upgrades)
        self.assertFalse(self.fields(*wanted[:1]).upgrades)
        self.assertFalse(self.fields(*wanted, b"Upgrade: h2c").upgrades)
        self.assertFalse(self.fields(b"Upgrade: h2c", wanted[1]).upgrades)
        self.assertFalse(
            self.fields(b"Upgrade-Insecure-Requests: 1", b"Connection: upgrade").upgrades
        )
