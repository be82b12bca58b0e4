"""Files of the archive: every record comes back byte by byte, and any warehouse reads the rows."""

from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.archives import correction_record, encoded, same_bytes
from tests.support.loading import NOON_US
from tests.support.s3 import KEY, S3, SECRET
from tollgate.core.errors import PermanentFault
from tollgate.events import archive_file
from tollgate.events.archive_file import ArchivedFile, content_of, pack, unpack
from tollgate.events.record import PREAMBLE, Encoded, Group, encode_record
from tollgate.platform.event_log import StoredRecord
from tollgate.platform.objects import objects_of
from tollgate.platform.settings import Settings

BEFORE_1970 = -1_234_567_890_123


def stored(*values: bytes, first: int = 0) -> list[StoredRecord]:
    return [
        StoredRecord(offset=first + number, appended_us=NOON_US + number, value=value)
        for number, value in enumerate(values)
    ]


def records() -> list[bytes]:
    """One of each kind; the fifth to the last are no plain records of events."""
    hard = 'quote " back \\ slash / tab \t nul \x00 del \x7f line \u2028 é 漢 🎈'
    good = encode_record([Group("n", NOON_US, [encoded("a")])])
    later = good[:2] + b"\x09" + good[3:]
    unreadable = Encoded(b"k" * 16, b'"no event"]\n')
    other_time = Encoded(b"k" * 16, encoded("x").line.replace(b".000000", b".0"))
    huge_index = encode_record([Group("n", NOON_US, [encoded("x")])])
    return [
        good,
        encode_record(
            [
                Group("n", NOON_US, [encoded("a"), encoded("b", time_us=None)]),
                # Another request of the same moment, and one of another namespace between.
                Group("n", NOON_US, [encoded("c")]),
                Group("m", NOON_US, [encoded("d", namespace="m")]),
                Group("n", NOON_US + 1, [encoded("e", received_us=NOON_US + 1)]),
            ]
        ),
        encode_record([Group("n", NOON_US, [encoded("f", time_us=BEFORE_1970)])]),
        encode_record(
            [
                Group(
                    "n",
                    NOON_US,
                    [
                        encoded(
                            hard,
                            '{"n":1.10000000000000000001}',
                            subject=hard,
                            datacontenttype="application/json",
                            dataschema="http://x/y",
                            extensions='{"a":"b"}',
                        ),
                        encoded("g", ""),
                    ],
                )
            ]
        ),
        b"x",
        good[:-1] + b"?",
        later,
        correction_record("a"),
        encode_record([Group("n", NOON_US, [unreadable])]),
        encode_record([Group("n", NOON_US, [other_time])]),
        _reseal(huge_index.replace(b"\n", b"").replace(b'0,"n"', b'99999999999,"n"') + b"\n"),
        PREAMBLE.pack(b"TG", 2, 0, 1 << 31) + bytes(30),
    ]


def _reseal(record: bytes) -> bytes:
    from xxhash import xxh3_64

    hasher = xxh3_64(record[:8])
    hasher.update(record[16:])
    return record[:8] + hasher.intdigest().to_bytes(8, "little") + record[16:]


def test_every_record_comes_back_byte_by_byte() -> None:
    given_records = stored(*records(), first=7)
    packed = pack(3, 5, given_records)
    same_bytes(unpack(packed.data), given_records)
    assert packed.content == content_of(given_records)
    assert (packed.records, packed.raw) == (len(given_records), len(given_records) - 4)
    assert packed.namespaces == {"": 7, "m": 1, "n": 9}
    file = ArchivedFile(packed.data)
    assert file.rebuildable.tolist() == [True] * 4 + [False] * 8
    for first in range(len(file)):
        same_bytes(file.records(first, len(file)), given_records[first:])
        same_bytes(file.records(first, first + 1), given_records[first : first + 1])
    # The same file from the same records: a writer that starts over stores nothing new.
    assert pack(3, 5, given_records).data == packed.data


def test_the_times_of_a_file_are_found() -> None:
    packed = pack(1, 0, stored(*records()[:3]))
    assert packed.times == (BEFORE_1970, NOON_US)
    assert packed.received == (NOON_US, NOON_US + 1)


_texts = st.text(st.characters(codec="utf-8", exclude_characters="\ud800"), max_size=6)
_events = st.builds(
    encoded,
    _texts,
    st.sampled_from(["", "{}", '{"n":1e400}', '{"a":"\\u2028é\\n"}']),
    time_us=st.none() | st.integers(BEFORE_1970, 9_000_000_000_000_000),
    subject=_texts,
    extensions=st.sampled_from(["", '{"e":"x"}']),
)
_values = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.lists(
        st.builds(Group, st.just("n"), st.just(NOON_US), st.lists(_events, min_size=1, max_size=3)),
        min_size=1,
        max_size=3,
    ).map(encode_record),
)


@given(st.lists(_values, min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_whatever_the_log_holds_comes_back(values: list[bytes]) -> None:
    same_bytes(unpack(pack(1, 0, stored(*values)).data), stored(*values))


def test_a_file_that_would_not_give_its_records_back_is_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = stored(*records()[:2])
    monkeypatch.setattr(archive_file, "unpack", lambda _: lost[:1])
    with pytest.raises(PermanentFault, match="lost records"):
        pack(1, 0, lost)
    other = [*lost[:1], StoredRecord(offset=1, appended_us=NOON_US, value=b"other")]
    monkeypatch.setattr(archive_file, "unpack", lambda _: other)
    with pytest.raises(PermanentFault, match="can't keep the record at offset 1"):
        pack(1, 0, lost)


COLUMNS = """
SELECT generation, partition, offset, index, namespace, source, type, subject, time_given, record,
  length(raw), key_hash = unhex(lower(hex(key_hash))), toUnixTimestamp64Micro(appended_at),
  toUnixTimestamp64Micro(received_at), toUnixTimestamp64Micro(time)
FROM {place} ORDER BY offset, index
"""


def test_the_engine_reads_the_files(engine: Client, tmp_path: Path, s3: S3) -> None:
    """As a folder of files, and by its `s3()` from where they are."""
    name = "records/generation=3/partition=5/day=2026-11-02/0-2.parquet"
    packed = pack(3, 5, stored(*records()[:2], correction_record("a")))
    url = s3.new_bucket()
    for place in (f"file://{tmp_path}", url):
        objects = objects_of(Settings(objects_url=place))
        assert objects is not None
        assert objects.put(name, packed.data)
        objects.close()
    bucket = url.partition("@")[2].partition("?")[0]
    hive = "/records/*/*/*/*.parquet"
    places = (
        f"file('{tmp_path}{hive}', Parquet)",
        f"s3('http://{bucket}{hive}', '{KEY}', '{SECRET}', 'Parquet')",
    )
    one, other = [engine.query(COLUMNS.format(place=place)).result_rows for place in places]
    assert one == other
    assert [row[:4] for row in one] == [
        (3, 5, 0, 0),
        *((3, 5, 1, index) for index in range(5)),
        (3, 5, 2, 0),
    ]
    assert one[4][4:10] == ("m", "s", "t", "u", 1, "events")
    assert one[6][9:11] == ("corrections", len(correction_record("a")))
    assert one[5][12:] == (NOON_US + 1, NOON_US + 1, NOON_US)
