"""Which faults a schedule has: drawn from its seed, told, and kept from firing one by one."""

import random
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from enum import Enum


class Fault(Enum):
    """What may happen to one call to a dependency."""

    LOST = "it fails and did nothing"
    UNKNOWN = "it is done, and the answer says that it failed"
    CRASH_BEFORE = "the caller ends before it"
    CRASH_AFTER = "the caller ends after it, before it has the answer"
    PART = "only the first part is done, and the answer says that it failed"
    REST = "only the last part is done, and the answer says that it failed"
    LATE = "the answer says that it failed, and then it is done"
    TWICE = "it is done twice"


_WRITES_FROM = 3


@dataclass(slots=True, kw_only=True)
class Faults:
    """Draws faults. The same seed and the same run draw the same.

    Attributes:
        rate: chance that a call meets one, in 1000.
        kept: numbers of draws that may come to something, to find out which faults matter; None:
            all may.
        fired: numbers of draws that came to something, with what that was.
        calm: nothing is drawn any more.
    """

    seed: int
    rate: int
    kept: Set[int] | None = None
    fired: list[tuple[int, str]] = field(default_factory=list)
    calm: bool = False
    _draws: int = 0
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(f"faults {self.seed}")

    def draw(self, who: str, what: str, kinds: Sequence[Fault]) -> Fault | None:
        """What happens to a call; None: it does as it should."""
        # What writes has more that may go wrong, and comes less often.
        chosen = self.happens(self.rate * (1 if len(kinds) < _WRITES_FROM else 3))
        kind = kinds[self._chance.randrange(len(kinds))] if kinds else None
        if not chosen or kind is None:
            return None
        return kind if self._fires(f"{who}: {what}: {kind.value}") else None

    def event(self, rate: int, what: str) -> bool:
        """Whether something happens to the world that comes `rate` times in 1000."""
        return self.happens(rate) and self._fires(what)

    def happens(self, rate: int) -> bool:
        self._draws += 1
        return self._chance.randrange(1000) < rate and not self.calm

    def _fires(self, what: str) -> bool:
        if self.kept is not None and self._draws not in self.kept:
            return False
        self.fired.append((self._draws, what))
        return True
