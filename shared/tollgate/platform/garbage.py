"""When a process looks for garbage: not while it starts, and rarely while it serves.

What a start makes is modules, classes and models, which all stay. To look through them again and
again took a fifth of it.
"""

import gc

_COLLECT_AFTER_OBJECTS = 50_000


def begin_start() -> None:
    """From here on everything is kept."""
    gc.disable()


def end_start() -> None:
    """What start-up made lives as long as the process; requests make little that is cyclic."""
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS)
    gc.enable()
