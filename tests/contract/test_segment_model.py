"""Whatever happens to the embedded event log in whatever order, it agrees with a list."""

import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.platform.disk import Disk
from tollgate.platform.event_log import StoredRecord
from tollgate.platform.segment_store import SegmentStore, Sizes

SIZES = Sizes(segment_bytes=12 << 10, grown_bytes=6 << 10)
_APPEND = st.tuples(
    st.just("append"), st.lists(st.sampled_from([1, 7, 300, 900]), min_size=1, max_size=5)
)
_STEPS = st.lists(
    st.one_of(
        _APPEND,
        _APPEND,
        st.tuples(st.just("tear"), st.integers(1, 3000)),
        st.tuples(st.just("noise"), st.integers(1, 3000)),
        st.tuples(st.just("release"), st.integers(0, 12)),
        st.tuples(st.just("skip"), st.integers(0, 3)),
        st.tuples(st.just("spare"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=40,
)


class _Model:
    """The log, and what it must hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[int, bytes] = {}
        self.end = self.released = -1
        self.last_write = 0
        self.number = 0
        self.open()

    def open(self) -> None:
        self.store = SegmentStore(self.folder, Disk(), SIZES)

    def append(self, sizes: list[int]) -> None:
        values = []
        for size in sizes:
            self.number += 1
            values.append((b"%d." % self.number * size)[:size])
        assert self.store.append(values, [self.number] * len(values)) == self.end + len(values)
        for value in values:
            self.end += 1
            self.held[self.end] = value
        self.last_write = len(values)

    def tear(self, size: int, rest: bytes) -> None:
        """A write that was not acknowledged: power is lost while so many bytes of it were there."""
        before = self.end
        self.append([900, 900, 900])
        segment = self.store.segments[-1]
        at = segment.ends[segment.count - 3] + size
        self.store.close()
        with segment.path.open("r+b") as file:
            limit = segment.path.stat().st_size
            file.seek(min(at, limit))
            file.write(rest * max(0, segment.used - at))
        self.open()
        assert self.store.end >= before
        for offset in range(self.store.end + 1, self.end + 1):
            del self.held[offset]
        self.end = self.store.end

    def release(self, back: int) -> None:
        through = max(self.released, self.end - back)
        self.store.release(through)
        self.store.drop_released()
        self.released = through
        self.held = {k: v for k, v in self.held.items() if k > through}

    def skip(self, count: int) -> None:
        self.end += count
        self.store.begin_after(self.end)

    def check(self) -> None:
        found: list[StoredRecord] = []
        while records := self.store.read(found[-1].offset if found else -1, 1500):
            found += records
        assert {r.offset: r.value for r in found} == self.held
        assert [r.offset for r in found] == sorted(self.held)
        assert (self.store.end, self.store.released) == (self.end, self.released)
        assert self.store.value_bytes(self.released + 1, self.end) == sum(
            map(len, self.held.values())
        )


@given(_STEPS)
@settings(deadline=None, max_examples=60)
def test_it_agrees_with_a_list(steps: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = _Model(Path(folder) / "log")
        for step in steps:
            match step:
                case ("append", list() as sizes):
                    model.append(sizes)
                case ("tear", int() as size):
                    model.tear(size, b"\0")
                case ("noise", int() as size):
                    model.tear(size, b"\xa5")
                case ("release", int() as back):
                    model.release(back)
                case ("skip", int() as count):
                    model.skip(count)
                case ("spare", _):
                    model.store.prepare_spare()
                case _:
                    model.store.close()
                    model.open()
                    assert model.store.end == model.end
            model.check()
        with closing(model.store):
            model.check()
