"""The end of a process that has served."""

import logging
import os
import sys
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """Ends the process at once. Everything that had to be written is.

    The interpreter is not taken apart: a thread that still runs would be ended in the middle of a
    library's work, which the embedded engine's signal handler takes for a crash of its own, and
    waits for ever. A start that failed has such threads.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
