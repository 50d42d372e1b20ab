"""
The relay's state directory: what is kept from one start to the next.

Key and certificate are in L{relaytunnel.channel.identity}, the accounts in
L{relaytunnel.accounts}; here are the directory itself and the small files that
scripts and the C{relaytunnel} command read.
"""

from __future__ import annotations

import os
import secrets

import msgspec

from relaytunnel.channel.identity import write_private
from relaytunnel.errors import StateError
from relaytunnel.wire.invitation import Invitation

__all__ = ["Facts", "StateDirectory", "started"]


def started(pid: int) -> str:
    """
    Ask the system when a process started, which tells it from a later one with
    the same number.

    @return: clock ticks since the boot (proc(5), C{/proc/PID/stat}, field 22);
        empty if there is no such process, or no such system.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in field 2 may hold anything, but ends in the last bracket.
            return file.read().rpartition(b")")[2].split()[19].decode("ascii")
    except (OSError, IndexError, UnicodeDecodeError):
        return ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """
    What others on this machine may know of a running relay.

    @ivar pid: its process; 0 while it is stopped.
    @ivar since: when that was L{started}.
    @ivar name: its public name.
    @ivar pin: the pin of its key.
    @ivar agents: the port that agents dial; 0 if it is no TCP port.
    @ivar clients: the ports that clients dial.
    @ivar admin: C{host:port} of the admin interface; empty if there is none.
    @ivar kept_on: how often it was to hand over to another process, and could
        not.
    @ivar kept_on_because: why it could not the last time.
    """

    pid: int
    name: str
    pin: str
    agents: int
    clients: tuple[int, ...]
    admin: str = ""
    since: str = ""
    kept_on: int = 0
    kept_on_because: str = ""

    @property
    def runs(self) -> bool:
        """
        Whether that process is still there: one that was killed could not say
        that it stopped, and its number may be another's by now.
        """
        return self.pid != 0 and self.since in ("", started(self.pid))

    def invitation(self, agent: str, secret: str) -> Invitation:
        """
        @return: the invitation for an agent with this secret.
        """
        return Invitation(agent, secret, self.name, self.agents or 7000, self.pin or None)


class StateDirectory:
    """
    @ivar path: the directory.
    @ivar database: the accounts database.
    @ivar invitation: the file with the first agent's invitation.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.database = os.path.join(path, "accounts.sqlite3")
        self.invitation = os.path.join(path, "invitation")
        self._facts = os.path.join(path, "relay.json")
        self._token = os.path.join(path, "admin-token")
        self._choices = os.path.join(path, "choices-key")

    def prepare(self) -> None:
        """
        Make the directory, for its owner alone, and see that it can be
        written.

        @raise StateError: it cannot; the message says what to do.
        """
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        except OSError as fault:
            raise StateError(
                f"the state directory {self.path} cannot be made: {fault.strerror};"
                " name another with --state"
            ) from None
        probe = os.path.join(self.path, f".probe-{os.getpid()}")
        try:
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            os.unlink(probe)
        except OSError as fault:
            raise StateError(
                f"the state directory {self.path} cannot be written: {fault.strerror};"
                " name another with --state"
            ) from None

    def admin_token(self) -> str:
        """
        The secret of the admin interface, made when it is first needed.

        @raise StateError: it cannot be read or written.
        """
        return self._secret(self._token)

    def choices_key(self) -> bytes:
        """
        The key that signs what browsers choose, made when it is first needed:
        a choice holds beyond a restart.

        @raise StateError: it cannot be read or written.
        """
        return self._secret(self._choices).encode("ascii")

    @staticmethod
    def _secret(path: str) -> str:
        """
        @return: the 256 random bits of a file, in text.
        """
        try:
            with open(path, encoding="ascii") as file:
                secret = file.read(1024).strip()
            if secret:
                return secret
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as fault:
            raise StateError(f"{path}: cannot be read: {fault}") from None
        secret = secrets.token_urlsafe(32)
        write_private(path, secret.encode("ascii") + b"\n")
        return secret

    def read_invitation(self) -> str | None:
        """
        @return: the first agent's invitation as it was last written, if it was.
        @raise StateError: the file cannot be read.
        """
        try:
            with open(self.invitation, encoding="utf-8") as file:
                return file.read().strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as fault:
            raise StateError(f"{self.invitation}: cannot be read: {fault}") from None

    def write_invitation(self, invitation: str) -> None:
        """
        @raise StateError: the file cannot be written.
        """
        write_private(self.invitation, invitation.encode("utf-8") + b"\n")

    def remove_invitation(self) -> None:
        """
        @raise StateError: the file is there and cannot be removed.
        """
        try:
            os.unlink(self.invitation)
        except FileNotFoundError:
            pass
        except OSError as fault:
            raise StateError(f"{self.invitation}: cannot be removed: {fault.strerror}") from None

    def write_facts(self, facts: Facts) -> None:
        """
        @raise StateError: the file cannot be written.
        """
        write_private(self._facts, msgspec.json.encode(facts) + b"\n")

    def read_facts(self) -> Facts | None:
        """
        @return: what a relay with this state said when it last started; C{None}
            if none ever did.
        @raise StateError: the file cannot be understood.
        """
        try:
            with open(self._facts, "rb") as file:
                return msgspec.json.decode(file.read(64 * 1024), type=Facts)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as fault:
            raise StateError(f"{self._facts}: cannot be used: {fault}") from None

    def mark_stopped(self) -> None:
        """
        The relay has stopped, unless another process has taken over, or never
        handed over.  Where it was found stays known, for invitations that are
        made while it is down.

        @raise StateError: the file cannot be read or written.
        """
        facts = self.read_facts()
        if facts is not None and facts.pid == os.getpid():
            self.write_facts(msgspec.structs.replace(facts, pid=0, since="", admin=""))
