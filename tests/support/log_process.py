"""A process that does nothing but append to an event log and tell what was acknowledged."""

APPENDER = """
import queue, sys
from pathlib import Path
from tollgate.core.clock import SystemClock
from tollgate.platform.segment_log import SegmentLog

path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
log, answers = SegmentLog(path, SystemClock()), queue.SimpleQueue()
for number in range(count):
    value = f"{name}.{number}"
    log.submit(0, [value.encode()], answers.put)
    offset = answers.get()
    if isinstance(offset, Exception):
        raise offset
    print(offset, value, flush=True)
log.close()
"""
"""`python -c APPENDER folder name count` prints `offset value` for each record that is on disk."""
