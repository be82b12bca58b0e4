"""Many schedules, and the least that makes one of them fail."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from tests.schedules.drive import Outcome, run_schedule, simulated_parts
from tests.schedules.options import Options, options_of
from tests.schedules.world import Parts

NewParts = Callable[[Options], Parts]
_RUNS_MAX = 150


def run_all(seeds: Iterable[int], new_parts: NewParts = simulated_parts) -> Iterator[Outcome]:
    """Runs the schedules of seeds."""
    for seed in seeds:
        options = options_of(seed)
        yield run_schedule(options, new_parts(options))


def first_failure(seeds: Iterable[int], new_parts: NewParts = simulated_parts) -> Outcome | None:
    """The first that fails, if any does."""
    return next((each for each in run_all(seeds, new_parts) if each.problem is not None), None)


def shrink(outcome: Outcome, new_parts: NewParts = simulated_parts) -> Outcome:
    """The same schedule with as few requests and faults as still make it fail.

    Faults are taken away by halves, then quarters, down to one by one (Zeller: "Simplifying and
    Isolating Failure-Inducing Input", 2002).
    """
    for requests in range(1, outcome.options.requests):
        options = replace(outcome.options, requests=requests)
        tried = run_schedule(options, new_parts(options))
        if tried.problem is not None:
            outcome = tried
            break
    runs, size = 0, len(outcome.fired)
    while size and runs < _RUNS_MAX:
        numbers = [number for number, _ in outcome.fired]
        for start in range(0, len(numbers), size):
            kept = frozenset(numbers[:start] + numbers[start + size :])
            tried = run_schedule(outcome.options, new_parts(outcome.options), kept)
            runs += 1
            if tried.problem is not None:
                outcome = tried
                break
        else:
            size //= 2
    return outcome


def report(outcome: Outcome) -> str:
    """For people: what failed, the faults that it takes, what happened, how to see it again."""
    seed = outcome.options.seed
    return "\n".join(
        (
            f"schedule {seed} fails: {outcome.problem}",
            f"{outcome.options}",
            *(f"  fault {number}: {what}" for number, what in outcome.fired),
            *(f"  {line}" for line in outcome.trace),
            f"all of it again: python -m tests.schedules --seed {seed}",
        )
    )
