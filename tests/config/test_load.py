"""
Tests of reading files: what they may say, and how faults are told.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.access import networks
from relaytunnel.config.load import (
    load,
    load_agent,
    load_agent_text,
    load_relay,
    load_relay_text,
    load_text,
)
from relaytunnel.config.model import AgentConfig, ClientPort, FileAccount, RelayConfig
from relaytunnel.config.names import PortRange, Reach
from relaytunnel.config.server import ServerConfig
from relaytunnel.errors import ConfigError

modest = settings(deadline=None, max_examples=100)

HASH = "sha256:" + "0f" * 32

RELAY = f"""
[relay]
name = "relay.example.net"
state = "/var/lib/relaytunnel"
[listen]
agents = "tcp:7000"
clients = ["tcp:443", "tcp:80"]
admin = "off"
ports = "20000-20999"
[tls]
certificate = "fullchain.pem"
key = "/etc/key.pem"
[limits]
waiting-per-server = 8
idle = 60
[[agent]]
id = "office"
secret-hash = "{HASH}"
publish = ["web", "*.office"]
ports = "20000-20099"
"""

AGENT = """
[agent]
join-file = "invitation"
ca = "ca.pem"
[[server]]
id = "web"
target = "tcp:127.0.0.1:8080"
reach = ["host:web.example.net", "port:20001", "sni:web.example.net"]
allow = ["0.0.0.0/0"]
[[server]]
id = "ssh"
target = "localhost:22"
data = "plain"
"""

SERVER = '[[server]]\nid = "web"\ntarget = "h:80"\n'

KEYS = [
    *("agent", "admin", "agents", "allow", "ca", "certificate", "clients", "data", "id", "idle"),
    *("join", "join-file", "key", "limits", "listen", "name", "ports", "publish", "reach"),
    *("relay", "secret-hash", "server", "state", "target", "tls", "x"),
]


def toml(value: object) -> str:
    """
    Write a value as inline TOML.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return repr(value)


texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["web", "h:80", "tcp:80", "port:1", "name", "10.0.0.0/8", HASH, "1-2", "*"]),
)
values = st.recursive(
    st.one_of(st.booleans(), st.integers(-5, 10**6), st.floats(), texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)
documents = st.dictionaries(st.one_of(st.sampled_from(KEYS), texts), values, max_size=5).map(
    lambda top: "".join(f"{toml(key)} = {toml(value)}\n" for key, value in top.items())
)


class RelayTextTests(SynchronousTestCase):
    """
    What stands in C{relay.toml}.
    """

    def faults(self, text: str) -> list[str]:
        error: ConfigError = self.assertRaises(ConfigError, load_relay_text, text, "relay.toml")
        return error.faults

    def test_everything(self) -> None:
        """
        Each table and key finds its place; relative paths, the directory.
        """
        config = load_relay_text(RELAY, "relay.toml", "/etc/relaytunnel")
        self.assertEqual(config.name, "relay.example.net")
        self.assertEqual(config.state, "/var/lib/relaytunnel")
        self.assertEqual(list(map(str, config.clients)), ["tcp:443", "tcp:80"])
        self.assertEqual(config.admin, "")
        self.assertEqual(config.ports, PortRange(20000, 20999))
        self.assertEqual(config.certificate, "/etc/relaytunnel/fullchain.pem")
        self.assertEqual(config.key, "/etc/key.pem")
        self.assertEqual((config.limits.waiting_per_server, config.limits.idle), (8, 60.0))
        self.assertEqual(
            config.accounts,
            (
                FileAccount(
                    id="office",
                    secret_hash=HASH,
                    publish=("web", "*.office"),
                    ports=(PortRange(20000, 20099),),
                ),
            ),
        )

    def test_empty(self) -> None:
        """
        An empty file leaves everything at its default.
        """
        self.assertEqual(load_relay_text("", "relay.toml"), RelayConfig())

    def test_unknown_key(self) -> None:
        """
        An unknown key is named, and the nearest that there is.
        """
        self.assertEqual(
            self.faults('[listen]\ncleints = ["tcp:80"]'),
            ["relay.toml: [listen] cleints: unknown key; did you mean 'clients'?"],
        )
        self.assertEqual(
            self.faults("[limits]\nwaiting_per_server = 1"),
            [
                (
                    "relay.toml: [limits] waiting_per_server: unknown key;"
                    " did you mean 'waiting-per-server'?"
                )
            ],
        )
        self.assertEqual(self.faults("[tls]\nzzz = 1"), ["relay.toml: [tls] zzz: unknown key"])

    def test_unknown_table(self) -> None:
        """
        So is an unknown table, and a key that stands outside of all tables.
        """
        self.assertEqual(
            self.faults("zzz = 1\n[lissten]\n[agents]"),
            [
                "relay.toml: zzz: unknown key; keys stand in a table such as [relay]",
                "relay.toml: [lissten]: unknown table; did you mean [listen]?",
                "relay.toml: [agents]: unknown table; did you mean [[agent]]?",
            ],
        )

    def test_one_line_a_fault(self) -> None:
        """
        A key with a newline in it does not break the line of its fault.
        """
        (fault,) = self.faults('[tls]\n"a\\nb" = 1')
        self.assertEqual(fault, r"relay.toml: [tls] 'a\nb': unknown key")

    def test_wrong_types(self) -> None:
        """
        A value of the wrong type is told with what was expected and given.
        """
        self.assertEqual(
            self.faults(
                "tls = 5\nagent = 'x'\n[relay]\nname = 7\nstate = true\n"
                "[listen]\nagents = 1.5\nadmin = []\nclients = 'tcp:80'\nports = {a = 1}"
            ),
            [
                "relay.toml: [tls]: expected a table, given a whole number",
                "relay.toml: [[agent]]: expected an array of tables, given a string",
                "relay.toml: [relay] name: expected a string, given a whole number",
                "relay.toml: [relay] state: expected a string, given a boolean",
                "relay.toml: [listen] agents: expected a string, given a number",
                (
                    "relay.toml: [listen] clients: expected a list of strings or tables,"
                    " given a string"
                ),
                "relay.toml: [listen] admin: expected a string, given a list",
                "relay.toml: [listen] ports: expected a string, given a table",
            ],
        )

    def test_wrong_items(self) -> None:
        """
        A list with an item of the wrong type is told likewise.
        """
        self.assertEqual(
            self.faults("agent = [1]\n[listen]\nclients = ['tcp:80', 1979-05-27]"),
            [
                "relay.toml: [[agent]]: expected a table, given a whole number in it",
                (
                    "relay.toml: [listen] clients: expected a list of strings or tables,"
                    " given a date or time in it"
                ),
            ],
        )

    def test_limits(self) -> None:
        """
        A limit out of its bounds is told with them, next to all other faults.
        """
        self.assertEqual(
            self.faults("[limits]\nidle = 0\nheld = 1.5\nhelt = 1"),
            [
                "relay.toml: [limits] helt: unknown key; did you mean 'held'?",
                "relay.toml: [limits] held: expected a whole number, given a number",
                "relay.toml: [limits] idle: 0 is not from 0.01 to 2592000",
            ],
        )
        self.assertEqual(
            self.faults("limits = 1"),
            ["relay.toml: [limits]: expected a table, given a whole number"],
        )

    def test_half_a_pair(self) -> None:
        """
        A certificate needs its key, but a faulty path is not a missing one.
        """
        self.assertEqual(
            self.faults("[tls]\ncertificate = 'c'"),
            ["relay.toml: [tls] key: missing; a certificate needs its key"],
        )
        self.assertEqual(
            self.faults("[tls]\ncertificate = 'c'\nkey = ''"),
            ["relay.toml: [tls] key: '': not a path"],
        )

    def test_accounts(self) -> None:
        """
        Accounts are told apart by their ID, or else by their number.
        """
        faults = self.faults("[[agent]]\n[[agent]]\nid = 'b'\nsecret-hash = 'x'\nports = 1")
        self.assertEqual(
            [fault.partition(": ")[2].split(":")[0] for fault in faults],
            [
                "[[agent]] number 1 id",
                "[[agent]] number 1 secret-hash",
                "[[agent]] 'b' secret-hash",
                "[[agent]] 'b' ports",
            ],
        )

    def test_same_account(self) -> None:
        """
        An account that stands there twice is a fault, even beside others.
        """
        account = f"[[agent]]\nid = 'a'\nsecret-hash = '{HASH}'\n"
        self.assertEqual(
            self.faults(account + account + "x = 1"),
            [
                "relay.toml: [[agent]] 'a' x: unknown key",
                "relay.toml: [[agent]] id: 'a' is given twice",
            ],
        )

    def test_hash_not_shown(self) -> None:
        """
        What stands in place of a hash is not shown.
        """
        faults = self.faults("[[agent]]\nid = 'a'\nsecret-hash = 'hunter2'")
        self.assertNotIn("hunter2", "".join(faults))

    def test_names(self) -> None:
        """
        Names of the relay, and host names that an account may claim, are
        checked and stand there in their one form.
        """
        config = load_relay_text(
            "[relay]\nname = 'relay.example'\nnames = ['Apps.Example.', '192.0.2.1']\n"
            "id-anywhere = true\ninvite-first = false\n"
            f"[[agent]]\nid = 'a'\nsecret-hash = '{HASH}'\nhosts = ['WWW.Example', '*.b.Example']",
            "relay.toml",
        )
        self.assertEqual(config.names, ("apps.example", "192.0.2.1"))
        self.assertEqual((config.id_anywhere, config.invite_first), (True, False))
        self.assertEqual(config.accounts[0].hosts, ("www.example", "*.b.example"))
        self.assertEqual(config.all_names.below("web.apps.example"), "web")
        default = load_relay_text("[relay]\n", "relay.toml")
        self.assertEqual((default.id_anywhere, default.invite_first), (False, True))
        self.assertEqual(
            self.faults(
                "[relay]\nnames = ['a b']\nid-anywhere = 1\ninvite-first = 'no'\n"
                f"[[agent]]\nid = 'a'\nsecret-hash = '{HASH}'\nhosts = ['w*b', '10.0.0.1']"
            ),
            [
                "relay.toml: [[agent]] 'a' hosts: 'w*b': each label between the dots is 1 to 63 of"
                " a-z, 0-9 and '-', with no '-' at its ends",
                "relay.toml: [[agent]] 'a' hosts: '10.0.0.1': an address is no name that a server"
                " can have",
                "relay.toml: [relay] names: 'a b': each label between the dots is 1 to 63 of a-z,"
                " 0-9 and '-', with no '-' at its ends",
                "relay.toml: [relay] id-anywhere: expected a boolean, given a whole number",
                "relay.toml: [relay] invite-first: expected a boolean, given a string",
            ],
        )

    def test_hosts_below_the_relay(self) -> None:
        """
        A right to names that belong to IDs would have no effect, and is a fault.
        """
        relay = "[relay]\nname = 'relay.example'\nnames = ['apps.example']\n"
        account = f"[[agent]]\nid = 'a'\nsecret-hash = '{HASH}'\n"
        for pattern in ("*.relay.example", "web.apps.example", "localhost"):
            (fault,) = self.faults(f"{relay}{account}hosts = ['*.example', '{pattern}']")
            self.assertIn(f"[[agent]] 'a' hosts: '{pattern}': names below the relay's own", fault)

    def test_several_ranges(self) -> None:
        """
        An account may have several ranges of ports.
        """
        config = load_relay_text(
            f"[[agent]]\nid = 'a'\nsecret-hash = '{HASH}'\nports = ['1-2', '5']", "relay.toml"
        )
        self.assertEqual(config.accounts[0].ports, (PortRange(1, 2), PortRange(5, 5)))


class AgentTextTests(SynchronousTestCase):
    """
    What stands in C{agent.toml}.
    """

    def faults(self, text: str) -> list[str]:
        error: ConfigError = self.assertRaises(ConfigError, load_agent_text, text, "agent.toml")
        return error.faults

    def test_everything(self) -> None:
        """
        Each table and key finds its place; relative paths, the directory.
        """
        config = load_agent_text(AGENT, "agent.toml", "/etc")
        self.assertEqual((config.join, config.join_file), (None, "/etc/invitation"))
        self.assertEqual(config.ca, "/etc/ca.pem")
        self.assertEqual(
            config.servers,
            (
                ServerConfig(
                    id="web",
                    target="tcp:127.0.0.1:8080",
                    reach=(
                        Reach("host", "web.example.net"),
                        Reach("port", "20001"),
                        Reach("sni", "web.example.net"),
                    ),
                    allow=networks(["0.0.0.0/0"]),
                ),
                ServerConfig(id="ssh", target="tcp:localhost:22", data="plain"),
            ),
        )

    def test_no_invitation(self) -> None:
        """
        The invitation may be missing, because options may give it.
        """
        self.assertEqual(load_agent_text("", "agent.toml"), AgentConfig())

    def test_invitation(self) -> None:
        """
        An invitation is checked, and its secret not shown.
        """
        text = "relaytunnel://office:hunter2@relay.example:7000/"
        config = load_agent_text(f"[agent]\njoin = ' {text} '", "agent.toml")
        self.assertEqual(config.join, text)
        (fault,) = self.faults("[agent]\njoin = 'relaytunnel://office:hunter2@'")
        self.assertTrue(fault.startswith("agent.toml: [agent] join: the invitation has"))
        self.assertNotIn("hunter2", fault)

    def test_two_invitations(self) -> None:
        """
        There cannot be two.
        """
        (fault,) = self.faults("[agent]\njoin = 'relaytunnel://a:b@c'\njoin-file = 'x'")
        self.assertIn("only one of them", fault)

    def test_every_fault(self) -> None:
        """
        The faults of all servers are told at once.
        """
        faults = self.faults(
            "[[server]]\nid = 'web'\ntarget = 'h'\nreach = ['x', 'port:1']\nallow = ['y']\n"
            "[[server]]\nid = 'api'\ndata = 'z'\nreach = ['port:1']\ntarged = 'h:80'"
        )
        self.assertEqual(
            [fault.removeprefix("agent.toml: [[server]] ").split(":")[0] for fault in faults],
            [
                "'web' target",
                "'web' reach",
                "'web' allow",
                "'api' targed",
                "'api' target",
                "'api' data",
                "'api' reach",
            ],
        )

    def test_same_server(self) -> None:
        """
        A server that stands there twice is a fault.
        """
        self.assertEqual(
            self.faults(SERVER + SERVER), ["agent.toml: [[server]] id: 'web' is given twice"]
        )


class ForWhomTests(SynchronousTestCase):
    """
    Whom servers and ports are for.
    """

    def faults(self, load: Callable[[str, str], object], text: str) -> list[str]:
        faults: list[str] = self.assertRaises(ConfigError, load, text, "a.toml").faults
        return faults

    def test_server(self) -> None:
        """
        A server may be listed, have users, a share for each client, and a
        version in which it is told their addresses.
        """
        config = load_agent_text(
            f"""
            [agent]
            join-file = "invitation"
            [[server]]
            id = "web"
            target = "tcp:127.0.0.1:8080"
            listed = true
            users = {{ alice = "{HASH}", "Bob B." = "{HASH}" }}
            sessions-per-client = 4
            proxy = "v2"
            """,
            "agent.toml",
        )
        self.assertEqual(
            config.servers,
            (
                ServerConfig(
                    id="web",
                    target="tcp:127.0.0.1:8080",
                    listed=True,
                    users=(("alice", HASH), ("Bob B.", HASH)),
                    sessions_per_client=4,
                    proxy="v2",
                ),
            ),
        )

    def test_server_faults(self) -> None:
        """
        Each fault there has a line, and no hash is shown.
        """
        faults = self.faults(
            load_agent_text,
            """
            [agent]
            join-file = "invitation"
            [[server]]
            id = "web"
            target = "tcp:127.0.0.1:8080"
            listed = 1
            users = { alice = "hunter2", "a:b" = "hunter2" }
            sessions-per-client = "many"
            proxy = "v3"
            """,
        )
        self.assertEqual(len(faults), 5, faults)
        for key in ("listed: ", "users: 'alice'", "users: 'a:b'", "sessions-per-client", "proxy"):
            self.assertEqual(len([fault for fault in faults if f"'web' {key}" in fault]), 1, key)
        self.assertNotIn("hunter2", "".join(faults))

    def test_ports(self) -> None:
        """
        A port may have a server for those who name none; balancers are
        networks.
        """
        config = load_relay_text(
            """
            [listen]
            clients = ["tcp:80", { endpoint = "tcp:25", default = "Mail" }]
            proxies = ["10.0.0.0/8", "2001:db8::1"]
            """,
            "relay.toml",
        )
        self.assertEqual(
            config.clients,
            (ClientPort(endpoint="tcp:80"), ClientPort(endpoint="tcp:25", default="mail")),
        )
        self.assertEqual(config.proxies, networks(["10.0.0.0/8", "2001:db8::1"]))

    def test_port_faults(self) -> None:
        """
        Faults there are told with the number of the port.
        """
        faults = self.faults(
            load_relay_text,
            """
            [listen]
            clients = ["tcp:80", { endpiont = "tcp:25", default = "a b" }, 5]
            proxies = ["everywhere"]
            """,
        )
        self.assertEqual(len(faults), 5, faults)
        self.assertEqual(len([fault for fault in faults if "clients number 2: " in fault]), 3)
        self.assertIn("did you mean 'endpoint'?", "".join(faults))
        self.assertIn("proxies", faults[-1])


class WhichTests(SynchronousTestCase):
    """
    Whether a file is for a relay or for an agent.
    """

    def test_by_tables(self) -> None:
        """
        The tables tell; C{agent} is a table in one file, an array in the other.
        """
        for text in (RELAY, "[relay]", "[listen]", "[tls]", "agent = []"):
            self.assertIsInstance(load_text(text, "x.toml"), RelayConfig)
        for text in (AGENT, "[agent]", SERVER):
            self.assertIsInstance(load_text(text, "x.toml"), AgentConfig)

    def test_neither(self) -> None:
        """
        A file with neither is for nobody.
        """
        for text in ("", "[limits]\nidle = 1"):
            error = self.assertRaises(ConfigError, load_text, text, "x.toml")
            self.assertEqual(error.faults, ["x.toml: has neither a [relay] nor an [agent] table"])

    def test_mixed(self) -> None:
        """
        In a file for a relay the tables of an agent are unknown.
        """
        error = self.assertRaises(ConfigError, load_text, "server = []\n[relay]", "x.toml")
        self.assertIn("x.toml: server: unknown key", error.faults[0])


class FileTests(SynchronousTestCase):
    """
    Files on disk.
    """

    def file(self, data: bytes) -> str:
        path: str = self.mktemp()
        with open(path, "wb") as file:
            file.write(data)
        return path

    def fault(self, path: str) -> str:
        error: ConfigError = self.assertRaises(ConfigError, load, path)
        (fault,) = error.faults
        self.assertTrue(fault.startswith(f"{path}: "))
        return fault.removeprefix(f"{path}: ")

    def test_read(self) -> None:
        """
        Files are read, with paths relative to where they are.
        """
        relay, agent = self.file(RELAY.encode()), self.file(AGENT.encode())
        self.assertEqual(
            load_relay(relay).certificate,
            os.path.join(os.path.dirname(os.path.abspath(relay)), "fullchain.pem"),
        )
        self.assertEqual(
            load_agent(agent).ca, os.path.join(os.path.dirname(os.path.abspath(agent)), "ca.pem")
        )
        self.assertEqual(load(relay), load_relay(relay))
        self.assertEqual(load(agent), load_agent(agent))

    def test_missing(self) -> None:
        """
        A file that is not there, or no file, is told with the system's reason.
        """
        self.assertEqual(self.fault(self.mktemp()), "cannot be read: No such file or directory")
        self.assertEqual(self.fault(os.getcwd()), "cannot be read: Is a directory")
        self.assertRaises(ConfigError, load, "a\0b")

    def test_forbidden(self) -> None:
        """
        So is a file that may not be read.
        """
        path = os.path.abspath(self.file(b""))
        os.chmod(path, 0)
        if os.geteuid() == 0:  # nothing is forbidden to root
            os.seteuid(65534)
            self.addCleanup(os.seteuid, 0)
        self.assertEqual(self.fault(path), "cannot be read: Permission denied")

    def test_not_utf8(self) -> None:
        """
        Bytes that are not UTF-8 are told with their line.
        """
        self.assertEqual(self.fault(self.file(b"[relay]\n# \xff")), "line 2: is not UTF-8")

    def test_too_large(self) -> None:
        """
        A file of more than 1 MiB is not read to its end; one of 1 MiB is.
        """
        self.assertIn("larger than 1048576", self.fault(self.file(b"#" * (1024 * 1024 + 1))))
        load_relay(self.file(b"#" * (1024 * 1024)))

    def test_syntax(self) -> None:
        """
        An error of TOML is told with its line and column.
        """
        self.assertEqual(
            self.fault(self.file(b"[relay]\nname = nobody")),
            "line 2, column 8: Invalid value",
        )
        self.assertTrue(
            self.fault(self.file(b"[relay]\nname = ")).startswith("line 2, column 8: ")
        )

    def test_no_room(self) -> None:
        """
        What is TOML, but more than Python has room for, is told as well.
        """
        self.assertIn("not TOML", self.fault(self.file(b"a = " + b"9" * 5000)))
        self.assertIn("nested too deeply", self.fault(self.file(b"a = " + b"[" * 100000)))


class AnythingTests(SynchronousTestCase):
    """
    Whatever stands in a file, it is taken or L{ConfigError} is raised.
    """

    def only_faults(self, text: str) -> None:
        for read in (load_relay_text, load_agent_text, load_text):
            try:
                read(text, "x.toml")
            except ConfigError as error:
                self.assertTrue(error.faults)
                for fault in error.faults:
                    self.assertTrue(fault.startswith("x.toml: "))
                    self.assertNotIn("\n", fault)

    @modest
    @given(documents)
    def test_toml(self, text: str) -> None:
        """
        TOML with known keys and any values.
        """
        self.only_faults(text)

    @modest
    @given(st.text(max_size=60))
    def test_text(self, text: str) -> None:
        """
        Any text.
        """
        self.only_faults(text)

    @modest
    @given(st.integers(0, len(RELAY)), st.text(max_size=3), st.integers(0, 5))
    def test_broken(self, at: int, put: str, cut: int) -> None:
        """
        A good file with something else in it.
        """
        for good in (RELAY, AGENT):
            self.only_faults(good[:at] + put + good[at + cut :])
