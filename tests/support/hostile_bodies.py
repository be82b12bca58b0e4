"""Bodies that no honest client sends, each with the status that ingest gives it."""

import itertools

from tests.support.wire import EVENT

MIB = 1 << 20
BODY_MAX = 16 * MIB
_numbers = itertools.count()


def event(data: bytes = b"{}", **members: bytes) -> bytes:
    """The bytes of an event with an id of its own; each member is raw JSON, right or wrong."""
    head = {"id": b'"hostile-%d"' % next(_numbers), "source": b'"h"', "type": b'"h"'}
    head |= {"subject": b'"h"', "data": data} | members
    return b"{" + b",".join(b'"%b":%b' % (k.encode(), v) for k, v in head.items()) + b"}"


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * depth + b"]" * depth + b"}"


def fits(item: bytes) -> bytes:
    """As many copies of an item as a body may hold, in an array."""
    return b"[" + b",".join([item] * ((BODY_MAX - 2) // (len(item) + 1))) + b"]"


OK, WRONG, LARGE = 204, 400, 413
BODIES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", WRONG),
    "white space": (b" \n\t\r" * 1000, WRONG),
    "a megabyte of white space": (b" " * MIB, WRONG),
    "nothing in arrays": (b"[[]]", WRONG),
    "nulls": (b"[null,null,null]", WRONG),
    "null": (b"null", WRONG),
    "a number": (b"1", WRONG),
    "a string": (b'"event"', WRONG),
    "true": (b"true", WRONG),
    "byte order mark": (b"\xef\xbb\xbf" + EVENT, WRONG),
    "UTF-16": (EVENT.decode().encode("utf-16"), WRONG),
    "UTF-32": (EVENT.decode().encode("utf-32-le"), WRONG),
    "broken UTF-8 in an id": (event(id=b'"\xff\xfe"'), WRONG),
    "broken UTF-8 in data": (event(b'{"a":"\xc3("}'), WRONG),
    "broken UTF-8 in a name": (event(b'{"\x80":1}'), WRONG),
    "overlong UTF-8": (event(b'{"a":"\xc0\xaf"}'), WRONG),
    "surrogate in UTF-8": (event(b'{"a":"\xed\xa0\x80"}'), WRONG),
    "escaped lone surrogate": (event(b'{"a":"\\ud800"}'), WRONG),
    "escaped lone surrogate in an id": (event(id=b'"\\udfff"'), WRONG),
    "surrogates in wrong order": (event(b'{"a":"\\ude00\\ud83d"}'), WRONG),
    "surrogate pair": (event(b'{"a":"\\ud83d\\ude00"}'), OK),
    "NUL in an id": (event(id=b'"\\u0000"'), WRONG),
    "NUL in a subject": (event(subject=b'"a\x00b"'), WRONG),
    "NUL in data": (event(b'{"a\\u0000b":"\\u0000"}'), OK),
    "raw NUL in data": (event(b'{"a":"\x00"}'), WRONG),
    "NUL after the event": (event() + b"\x00", WRONG),
    "1e400": (event(b'{"a":1e400,"b":-1E+999999999999999999999}'), OK),
    "1e-999": (event(b'{"a":1e-999999999999999999999}'), OK),
    "1e400 as an extension": (event(zone=b"1e400"), OK),
    "a number as id": (event(id=b"1" * 400), WRONG),
    "400 digits": (event(b'{"a":' + b"9" * 400 + b"}"), OK),
    "100 000 digits": (event(b'{"a":' + b"9" * 100_000 + b"}"), OK),
    "100 000 digits as id": (event(id=b"9" * 100_000), WRONG),
    "NaN": (event(b'{"a":NaN}'), WRONG),
    "Infinity": (event(b'{"a":-Infinity}'), WRONG),
    "leading zero": (event(b'{"a":007}'), WRONG),
    "10 000 levels": (event(nested(10_000)), WRONG),
    "a million levels": (event(nested(MIB)), WRONG),
    "a million levels open": (b"[" * MIB, WRONG),
    "a million objects open": (b'{"a":' * MIB, WRONG),
    "10 000 levels as id": (event(id=nested(10_000)), WRONG),
    "1000 members of one name": (event(b"{" + b",".join([b'"a":1'] * 1000) + b"}"), OK),
    "duplicate attributes": (event()[:-1] + b',"subject":"other","id":"hostile-twice"}', OK),
    "duplicate attribute, wrong": (event()[:-1] + b',"subject":null}', WRONG),
    "an id of a megabyte": (event(id=b'"' + b"x" * MIB + b'"'), WRONG),
    "a name of a megabyte": (event(b"{}", **{"x" * MIB: b"1"}), WRONG),
    "data of a megabyte": (event(b'{"a":"' + b"x" * MIB + b'"}'), WRONG),
    "data of escapes": (event(b'{"a":"' + b"\\u0001" * 200_000 + b'"}'), WRONG),
    "100 000 extensions": (event(**{f"e{n}": b"1" for n in range(100_000)}), WRONG),
    "cut off": (EVENT[:-5], WRONG),
    "two events": (EVENT + EVENT, WRONG),
    "lines of events": (EVENT + b"\n" + EVENT, WRONG),
    "comments": (b"/* */" + EVENT, WRONG),
    "a form": (b"id=1&source=2", WRONG),
    "XML": (b"<event/>", WRONG),
    "16 MiB of zeros in an array": (fits(b"0"), LARGE),
    "16 MiB of empty objects": (fits(b"{}"), LARGE),
    "16 MiB of empty strings": (fits(b'""'), LARGE),
    "16 MiB of events": (fits(EVENT), LARGE),
    "16 MiB of open arrays": (b"[" * BODY_MAX, WRONG),
    "16 MiB of one string": (b'["' + b"x" * (BODY_MAX - 4) + b'"]', WRONG),
    "16 MiB of quotes": (b'"' * BODY_MAX, WRONG),
    "16 MiB of backslashes": (b'["' + b"\\" * (BODY_MAX - 4) + b'"]', WRONG),
    "16 MiB of members": (b"{" + b",".join(b'"%07d":1' % n for n in range(1_300_000)), WRONG),
    "15 MiB of numbers": (event(b'{"a":' + fits(b"1e5")[: 15 * MIB] + b"1]}"), WRONG),
    "one byte too many": (b" " * (BODY_MAX + 1), LARGE),
}  # fmt: skip
