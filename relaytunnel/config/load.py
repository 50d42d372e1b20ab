"""
From a file to the model, with every fault of the file named in one error.

C{load_relay} and C{load_agent} read the two kinds of file, C{load} finds out
which one it is; the functions for text do no I/O.  Each fault is one line,
C{FILE: [table] key: reason}.  Which tables and keys there are is known to
C{contents}.
"""

from __future__ import annotations

import os
import re
import tomllib

from relaytunnel.config.contents import read_agent, read_relay
from relaytunnel.config.model import AgentConfig, RelayConfig
from relaytunnel.config.names import shown
from relaytunnel.errors import ConfigError

__all__ = ["load", "load_agent", "load_agent_text", "load_relay", "load_relay_text", "load_text"]

_LARGEST = 1024 * 1024
_POSITION = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


def load(path: str) -> RelayConfig | AgentConfig:
    """
    Read a file that is for a relay or for an agent, whichever it turns out.

    @raise ConfigError: with every fault.
    """
    return load_text(_read(path), path, os.path.dirname(os.path.abspath(path)))


def load_relay(path: str, state: str | None = None) -> RelayConfig:
    """
    Read F{relay.toml}; paths in it are relative to its directory.

    @param state: the state directory if the file names none; see
        L{relaytunnel.config.model.default_state}.
    @raise ConfigError: with every fault.
    """
    directory = os.path.dirname(os.path.abspath(path))
    return read_relay(_parse(_read(path), path), path, directory, state)


def load_agent(path: str) -> AgentConfig:
    """
    Read F{agent.toml}; paths in it are relative to its directory.

    @raise ConfigError: with every fault.
    """
    return load_agent_text(_read(path), path, os.path.dirname(os.path.abspath(path)))


def load_text(text: str, name: str, directory: str = "") -> RelayConfig | AgentConfig:
    """
    Read the text of a file for a relay or for an agent, told by its tables.

    @param name: what to call the file in faults.
    @param directory: what relative paths are relative to.
    @raise ConfigError: with every fault.
    """
    top = _parse(text, name)
    if "relay" in top:
        return read_relay(top, name, directory)
    if isinstance(top.get("agent"), dict):
        return read_agent(top, name, directory)
    if "listen" in top or "tls" in top or "agent" in top:
        return read_relay(top, name, directory)
    if "server" in top:
        return read_agent(top, name, directory)
    raise ConfigError([f"{name}: has neither a [relay] nor an [agent] table"])


def load_relay_text(text: str, name: str, directory: str = "") -> RelayConfig:
    """
    Read the text of a F{relay.toml}; see L{load_text}.
    """
    return read_relay(_parse(text, name), name, directory)


def load_agent_text(text: str, name: str, directory: str = "") -> AgentConfig:
    """
    Read the text of an F{agent.toml}; see L{load_text}.
    """
    return read_agent(_parse(text, name), name, directory)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    except ValueError as error:  # a NUL in the path
        raise ConfigError([f"{shown(path)}: cannot be read: {error}"]) from error
    if len(data) > _LARGEST:
        raise ConfigError([f"{path}: is larger than {_LARGEST} bytes"])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}: line {line}: is not UTF-8"]) from None


def _parse(text: str, name: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError([f"{name}: not TOML: nested too deeply"]) from None
    except ValueError as error:
        reason, found = str(error), _POSITION.fullmatch(str(error))
        if found is None:  # a date or a number that Python has no room for
            raise ConfigError([f"{name}: not TOML: {reason}"]) from None
        lines = text.split("\n")
        line, column = found[2] or len(lines), found[3] or len(lines[-1]) + 1
        raise ConfigError([f"{name}: line {line}, column {column}: {found[1]}"]) from None
