"""Which worker runs what: a file's tests together, and the tests of the shared world on one worker.

A world is a dozen processes: started by each worker, they would take a quarter of two processors
while nothing is asked of them. It ends with the last of its tests. What takes longest comes first,
so that no worker ends alone.
"""

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.server import DISTRIBUTED, SHARED_WORLD

if TYPE_CHECKING:
    from xdist.remote import Producer  # type: ignore[import-untyped]
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

_OF_THE_WORLD = re.compile(rf"[\[-]{DISTRIBUTED}[\]-]")
"""Among a test's parameters."""


def _rank(item: pytest.Item) -> int:
    if _OF_THE_WORLD.search(item.nodeid):
        return 0
    return 1 if item.get_closest_marker("slow") else 2


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts first what takes long, where several workers share the tests."""
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Ends the shared world after the last of its tests, which a worker gets one after another."""
    if hasattr(item.config, "workerinput") and nextitem is not None:
        world = item.config.stash.get(SHARED_WORLD, None)
        if world is not None and not _OF_THE_WORLD.search(nextitem.nodeid):
            world.kill()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(
    config: pytest.Config, log: "Producer"
) -> "LoadFileScheduling | None":
    """As `--dist loadfile`, but for the shared world."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByWorld(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            of_file: str = super()._split_scope(nodeid)
            return DISTRIBUTED if _OF_THE_WORLD.search(nodeid) else of_file

    return ByWorld(config, log)
