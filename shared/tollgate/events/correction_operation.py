"""Operations: many corrections under one name, that can be shown, continued and taken back.

A backfill replaces the events of a window by those that were sent for it; a void in bulk is the
same without any. Each step goes through a set of events that is fixed by a position of the log, and
the id of a correction follows from step and event: done twice, it is done once.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tollgate.events.position import NOTHING, Token
from tollgate.events.selection import Selection

Kind = Literal["void", "backfill"]
State = Literal["open", "closing", "closed", "reverting", "reverted"]
Step = Literal["void", "release", "withdraw", "restore", ""]
"""void: events of the window; release: events sent for it begin to count; withdraw: these no more;
restore: what was voided counts again; "": none is left to do."""
FIRST_STEP: dict[State, Step] = {"closing": "void", "reverting": "withdraw"}
NEXT_STEP: dict[Step, Step] = {"void": "release", "withdraw": "restore"}
DONE_STATE: dict[State, State] = {"closing": "closed", "reverting": "reverted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation, and how far it has come.

    Attributes:
        namespace, name: which.
        kind: of it.
        state: `open`: nothing is changed yet; `closing` and `reverting` go through events.
        reason, actor: why and by whom it was begun.
        selection: which events it takes away.
        vector: the position that fixes the events of the present step.
        step: what is done next.
        cursor: place of the last event of the step that is done; "" at its begin.
        total, done: events to go through when it closes or is reverted, and how many are.
        written: where its corrections stand in the log.
        created_at, closed_at, reverted_at: when.
        revert_reason, revert_actor: of who took it back.
    """

    namespace: str
    name: str
    kind: Kind
    reason: str
    actor: str
    selection: Selection
    created_at: datetime
    state: State = "open"
    vector: Token = NOTHING
    step: Step = ""
    cursor: str = ""
    total: int = 0
    done: int = 0
    written: Token = NOTHING
    closed_at: datetime | None = None
    reverted_at: datetime | None = None
    revert_reason: str = ""
    revert_actor: str = ""
