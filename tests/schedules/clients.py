"""Clients: they send events and corrections, hear answers or do not, and send again."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from tests.schedules.clocks import DAY_US, TrueTime
from tests.schedules.reference import Key
from tests.schedules.truth import Answer, Attempt, Item, Truth
from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import InvalidInput, Transient
from tollgate.core.times import format_instant
from tollgate.events.position import Token

Send = Callable[[Attempt, Callable[[Token | Exception], None]], bool]
"""Sends a request; False: nobody is there to take it."""
_RETRIES_MAX = 4


@dataclass(slots=True, kw_only=True)
class Known:
    """An event that a client has sent.

    Attributes:
        item: its first form.
        accepted: whether it was ever acknowledged.
        first_us: when it was sent first, in true time.
    """

    item: Item
    accepted: bool = False
    first_us: int = 0


@dataclass(slots=True, kw_only=True)
class Client:
    """One sender, one request at a time. Its keys are its own."""

    name: str
    namespace: str
    chance: random.Random
    truth: Truth
    time: TrueTime
    requests_left: int
    resend_us_max: int
    _known: list[Known] = field(default_factory=list)
    _foretold: list[Item] = field(default_factory=list)
    _numbers: int = 0
    _flying: Attempt | None = None
    _again: Attempt | None = None
    _retries: int = 0

    @property
    def done(self) -> bool:
        """Whether nothing more is sent or waited for."""
        return not self.requests_left and self._flying is None and self._again is None

    @property
    def waits(self) -> bool:
        """Whether a request is on its way."""
        return self._flying is not None

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way or will be sent again."""
        return self._flying is None and self._again is None

    def step(self, send: Send) -> None:
        """Sends the next request, or one again; nothing while an answer is waited for."""
        if self._flying is not None or self.done:
            return
        again = self._again
        kind, items = (again.kind, again.items) if again else self._next()
        number = len(self.truth.attempts)
        name = again.name if again else f"{self.name}-{number}"
        attempt = Attempt(number=number, name=name, kind=kind, items=items)
        self.truth.attempts.append(attempt)
        self._flying = attempt
        if not again:
            self.requests_left -= 1
            self._retries = 0
        self._again = None
        if not send(attempt, lambda outcome: self.hear(attempt, outcome)):
            self.give_up(attempt)

    def hear(self, attempt: Attempt, outcome: Token | Exception) -> None:
        """An answer; too late if it is not waited for any more."""
        if attempt is not self._flying:
            return
        if isinstance(outcome, InvalidInput):
            # An amendment of an event that is not loaded yet.
            self._flying = None
            attempt.answer = Answer.REFUSED
            return
        if isinstance(outcome, Exception):
            assert isinstance(outcome, Transient | ConnectionError), outcome
            self.give_up(attempt)
            return
        self._flying = None
        attempt.answer, attempt.token = Answer.ACCEPTED, outcome
        if attempt.kind == "events":
            sent = {item.key for item in attempt.items}
            for known in self._known:
                known.accepted |= known.item.key in sent

    def give_up(self, attempt: Attempt | None = None) -> None:
        """No answer, or 503, or it takes too long: most requests are sent again as they are."""
        attempt = attempt or self._flying
        if attempt is None or attempt is not self._flying:
            return
        self._flying = None
        attempt.answer = Answer.UNKNOWN
        if self._retries < _RETRIES_MAX and self.chance.random() < 0.85:
            self._again = attempt
            self._retries += 1

    def _next(self) -> tuple[Literal["events", "void", "amend"], list[Item]]:
        chance = self.chance.random()
        old = [k for k in self._known if self.time.us - k.first_us < self.resend_us_max]
        accepted = [known for known in old if known.accepted]
        if chance < 0.07 and accepted:
            return "void", [self._pick(accepted).item for _ in range(self.chance.randint(1, 2))]
        if chance < 0.14 and accepted:
            return "amend", [self._changed(self._pick(accepted).item)]
        if chance < 0.18:
            item = self._new_item()
            self._foretold.append(item)
            return "void", [item]
        if chance < 0.45 and old:
            return "events", [self._again_item(old) for _ in range(self.chance.randint(1, 3))]
        return "events", self._new_items()

    def _pick(self, known: list[Known]) -> Known:
        return known[self.chance.randrange(len(known))]

    def _again_item(self, old: list[Known]) -> Item:
        """An event of before: as it was, spelled otherwise, or with other content or time."""
        known = self._pick(old)
        how = self.chance.random()
        if how < 0.2 and known.accepted:
            return self._changed(known.item)
        if how < 0.4:
            time = None if how < 0.3 else self._some_time()
            return replace(known.item, time=time, spelling=self.chance.randrange(3))
        return replace(known.item, spelling=self.chance.randrange(3))

    def _changed(self, item: Item) -> Item:
        return replace(item, n=self._number())

    def _new_items(self) -> list[Item]:
        items = [self._new_item() for _ in range(self.chance.randint(1, 4))]
        if self._foretold and self.chance.random() < 0.5:
            items.append(self._foretold.pop())
        self._known += [Known(item=item, first_us=self.time.us) for item in items]
        if self.chance.random() < 0.15:
            items.append(items[0])
        return items

    def _new_item(self) -> Item:
        n = self._number()
        key: Key = (self.namespace, self.name, f"e{n}")
        return Item(key=key, n=n, time=self._some_time() if self.chance.random() < 0.5 else None)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _some_time(self) -> str:
        """Now, late by up to two months, or a little in the future."""
        late_us = self.chance.choice((0, 1, -3600, 3600, 86_400, 60 * 86_400)) * DAY_US // 86_400
        return format_instant(datetime_from_us(self.time.us - late_us))
