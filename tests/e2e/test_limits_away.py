"""What limits decide while usage is not known: as each feature's policy says, and they say so."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.test_limits_api import ROOT, Desk
from tests.support.server import DISTRIBUTED, Server, World, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(params=[DISTRIBUTED])
def world(distributed: Server) -> World:
    """By its parameter it is the worker's that has the shared world."""
    assert isinstance(distributed, World)
    return distributed


def desk_that_fails(world: World, mode: str, cap: int = 0) -> Desk:
    """A customer with 10 left of 20, and a policy."""
    desk = Desk(world)
    desk.entitle(20)
    policy = {"failureMode": mode, "openCap": cap, "staleAfterSeconds": 1}
    answer = desk.http.put(f"{ROOT}/policies/{desk.feature}", json=policy)
    assert answer.status_code == 200, answer.text
    desk.use("10")
    assert desk.check()["available"] == "10"
    desk.usage.position = ""
    return desk


def frozen(desks: list[Desk]) -> Callable[[], Any]:
    def all_are_stale() -> bool:
        return all("failureMode" in desk.check() for desk in desks)

    return all_are_stale


def test_closed_open_and_last_known(world: World) -> None:
    closed = desk_that_fails(world, "closed")
    opened = desk_that_fails(world, "open", 5)
    known = desk_that_fails(world, "last_known")
    clickhouse = world.processes()["clickhouse"]
    os.kill(clickhouse, signal.SIGSTOP)
    try:
        wait_until(frozen([closed, opened, known]), what="usage is not known well enough")
        refused = closed.check(1)
        assert (refused["allowed"], refused["reason"]) == (False, "usage_unknown")
        assert refused["failureMode"] == "closed"
        # 10 are left, and 5 are allowed beyond; what is allowed is taken off.
        found = [opened.check(8)["allowed"], opened.check(8)["allowed"], opened.check(7)["allowed"]]
        assert found == [True, False, True]
        assert opened.check(1)["bound"]["granted"] == "5"
        found = [known.check(8)["allowed"], known.check(8)["allowed"], known.check(2)["allowed"]]
        assert found == [True, False, True]
        # Holds are in SQL, which is there: they go by what the policy says is left.
        assert known.reserve(10)["allowed"]
        assert not known.reserve(1, 200)["allowed"]
        assert (
            closed.http.post(
                f"{ROOT}/reservations",
                json={
                    "customer": closed.key,
                    "amounts": [{"feature": closed.feature, "amount": 1}],
                },
            ).status_code
            == 503
        )
    finally:
        os.kill(clickhouse, signal.SIGCONT)
    wait_until(lambda: "failureMode" not in closed.check(), what="usage is known again")
    assert closed.check(10)["allowed"]


def test_holds_are_followed_while_the_usage_store_hangs(world: World) -> None:
    desk = desk_that_fails(world, "last_known")
    clickhouse = world.processes()["clickhouse"]
    os.kill(clickhouse, signal.SIGSTOP)
    try:
        wait_until(frozen([desk]), what="usage is not known well enough")
        assert desk.reserve(10, ttlSeconds=1)["allowed"]
        assert desk.check(1)["held"] == "10"
        # It ends in SQL, by its time: whoever does not follow holds never hears of it.
        wait_until(lambda: desk.check(1)["held"] == "0", 15, "the hold has ended")
    finally:
        os.kill(clickhouse, signal.SIGCONT)
    wait_until(lambda: "failureMode" not in desk.check(), what="usage is known again")
