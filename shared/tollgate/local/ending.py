"""Being told to end, whichever thread the signal comes to."""

import os
import signal


def listen_for_end() -> tuple[int, int]:
    """A pipe out of which a byte comes with every SIGINT and SIGTERM; (to read, to write).

    The kernel hands a signal to any thread. Python runs handlers in the main one only, and if that
    waits inside a system call nothing wakes it: such a signal would be slept through. What C writes
    into the pipe wakes whoever reads. Called by the main thread.
    """
    out, into = os.pipe()
    os.set_blocking(into, False)
    signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return out, into
