"""Accounts: what may be held, and what is. One for each limit that a reservation has to pass."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache

from tollgate.core.decimals import EXACT
from tollgate.events.position import Token, covers

_ZERO = Decimal(0)
Scope = tuple[tuple[str, str], ...]
"""Dimensions of the meter with a value each, by name; () is all usage of the customer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Names a limit: a customer's of a feature, or of a part of the feature's usage.

    Attributes:
        scope: which part.
    """

    namespace: str
    customer_id: str
    feature_key: str
    scope: Scope = ()

    @property
    def id(self) -> str:
        """The same for equal accounts, in every process; no two others share it."""
        return _digest(self)


@lru_cache(maxsize=65_536)
def _digest(account: Account) -> str:
    parts = [account.namespace, account.customer_id, account.feature_key]
    parts += [text for pair in account.scope for text in pair]
    framed = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(framed.encode()).hexdigest()[:32]


def scope_from_mapping(values: Mapping[str, str]) -> Scope:
    """The scope of dimensions and values; their order does not matter."""
    return tuple(sorted(values.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What a limit offers, as far as usage is known.

    Attributes:
        remaining: the limit less known usage; never below zero.
        is_soft: it is granted beyond that too.
        vector: usage up to these positions of the log is known.
        version: of the definition; a later one is greater.
        valid_until_us: first instant at which it is another without further usage.
    """

    remaining: Decimal
    is_soft: bool
    vector: Token
    version: int
    valid_until_us: int

    @property
    def rank(self) -> tuple[int, int]:
        """Of two readings of one store the later has the greater."""
        return (self.vector.generation, sum(self.vector.offsets.values()))


class Behind(Exception):
    """A supply is older than what others decided by: it has to be read again."""


@dataclass(slots=True, kw_only=True)
class Book:
    """The state of an account. All who decide hold its lock.

    Attributes:
        held: sum of the active holds.
        unseen: sum of settled amounts whose usage `supply` does not have yet.
        supply: what they are taken from; None: nobody has decided yet.
    """

    held: Decimal = _ZERO
    unseen: Decimal = _ZERO
    supply: Supply | None = None

    @property
    def free(self) -> Decimal:
        """What may still be held; below zero if settlements went beyond."""
        assert self.supply is not None
        with localcontext(EXACT):
            return self.supply.remaining - self.held - self.unseen

    def admits(self, amount: Decimal) -> bool:
        """Whether so much more may be held."""
        assert self.supply is not None
        return self.supply.is_soft or amount <= self.free

    def admit(self, offered: Supply, now_us: int) -> bool:
        """Takes the newer of two supplies, so that known usage never becomes less by turns.

        Args:
            offered: what the deciding process knows.
            now_us: when it decides.

        Returns:
            whether `offered` is the one.

        Raises:
            Behind: it is out of date, and what is here can't stand for it.
        """
        if offered.valid_until_us <= now_us:
            raise Behind
        stored = self.supply
        if stored is None:
            self.supply = offered
            return True
        if offered.version < stored.version:
            raise Behind
        if offered.rank >= stored.rank:
            self.supply = offered
            return True
        if offered.version > stored.version or stored.valid_until_us <= now_us:
            raise Behind
        return False

    def hold(self, amount: Decimal) -> None:
        """Adds to what is held; a negative amount takes away."""
        with localcontext(EXACT):
            self.held += amount

    def settle(self, amount: Decimal) -> None:
        """Adds to what is settled and unseen; a negative amount takes away."""
        with localcontext(EXACT):
            self.unseen += amount


def is_seen(position: Token | None, supply: Supply) -> bool:
    """Whether a supply has the usage of events up to a position; never if none is known."""
    return position is not None and covers(supply.vector, position)
