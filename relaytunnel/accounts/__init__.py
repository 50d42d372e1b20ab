"""
Accounts: who may register what.

An account is an agent, its secret (stored as a hash) and its rights.  Most
live in a database, some in relay.toml.
"""

from __future__ import annotations

from relaytunnel.accounts.combined import CombinedAccounts
from relaytunnel.accounts.database import DatabaseAccounts
from relaytunnel.accounts.file import FileAccounts
from relaytunnel.accounts.model import Account, IAccounts, Origin, Rights, Verdict
from relaytunnel.accounts.secrets import hash_chosen, hash_generated, new_secret, verify
from relaytunnel.accounts.store import AccountStore

__all__ = [
    "Account",
    "AccountStore",
    "CombinedAccounts",
    "DatabaseAccounts",
    "FileAccounts",
    "IAccounts",
    "Origin",
    "Rights",
    "Verdict",
    "hash_chosen",
    "hash_generated",
    "new_secret",
    "verify",
]
