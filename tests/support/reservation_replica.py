"""A process that reserves and settles for many clients at once, and writes down what they heard.

`python -m tests.support.reservation_replica URL NAME CLIENTS LIMIT`: until it is killed.
"""

import asyncio
import json
import random
import sys
from collections.abc import Iterable
from datetime import timedelta

from tests.support.reservations import Desk, account, supply
from tollgate.core.clock import SystemClock
from tollgate.limits.account import Account, Supply
from tollgate.limits.reserve import Reserving
from tollgate.platform.sql import Database

HOT = account("hot")
TTL = timedelta(seconds=2)


class Constant:
    """A limit of which no usage is ever known."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def supply_of(self, of: Account) -> Supply | None:
        del of
        return supply(self._limit)

    def refresh(self, accounts: Iterable[Account]) -> frozenset[str]:
        del accounts
        return frozenset()


async def client(desk: Desk, reserving: Reserving, name: str) -> None:
    shuffle = random.Random(name)
    for turn in range(1_000_000):
        key = f"{name}-{turn}"
        ask = desk.ask({HOT: shuffle.randrange(1, 9)}, key=key, seconds=TTL.seconds)
        granted = (await reserving.ask(ask)).reservation
        if granted is None:
            await asyncio.sleep(0.05)
            continue
        say({"granted": granted.id})
        choice = shuffle.random()
        if choice < 0.5:
            actual = shuffle.randrange(0, int(granted.holds[0].amount) + 1)
            await reserving.ask(desk.settling(granted.id, actual, event=key, feature="hot"))
            say({"settled": granted.id, "actual": actual})
        elif choice < 0.8:
            # Asked twice, as by a client that did not hear.
            again = await reserving.ask(ask)
            assert again.reservation is not None
            assert again.reservation.id == granted.id


def say(words: dict[str, object]) -> None:
    print(json.dumps(words), flush=True)


async def main(url: str, name: str, clients: int, limit: int) -> None:
    database = Database(url)
    desk = Desk(database, SystemClock())
    reserving = Reserving(desk.store, Constant(limit))
    reserving.start()
    await asyncio.gather(*(client(desk, reserving, f"{name}-{each}") for each in range(clients)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
