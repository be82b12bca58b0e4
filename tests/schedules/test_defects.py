"""The runner finds bugs: some well-known ones are planted, and each must be found by few seeds."""

import logging
from dataclasses import replace

import pytest

from tests.schedules.defects import DEFECTS, Defect, ReleasedEarly
from tests.schedules.drive import simulated_parts
from tests.schedules.options import Options
from tests.schedules.runner import first_failure, report, shrink
from tests.schedules.world import Parts

SEEDS = 100


@pytest.fixture(autouse=True)
def _silence(caplog: pytest.LogCaptureFixture) -> None:
    """A loader that meets a planted bug says so a thousand times."""
    caplog.set_level(logging.CRITICAL, "tollgate")


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_planted_bug_is_found(defect: Defect) -> None:
    def new_parts(options: Options) -> Parts:
        parts = simulated_parts(options, new_store=defect.new_store, new_log=defect.new_log)
        return replace(parts, new_objects=defect.new_objects)

    assert first_failure(range(SEEDS), new_parts) is not None


def test_what_fails_is_shown_with_the_faults_that_it_takes() -> None:
    """To lose records by this one, a loader must end between reading and writing."""

    def new_parts(options: Options) -> Parts:
        return simulated_parts(options, new_log=ReleasedEarly)

    found = first_failure(range(SEEDS), new_parts)
    assert found is not None
    least = shrink(found, new_parts)
    assert least.problem is not None
    assert 0 < len(least.fired) < len(found.fired)
    assert len(least.trace) < len(found.trace)
    assert f"--seed {found.options.seed}" in report(least)
