r"""The part of JSONPath that names one value: member names and array positions, nothing else.

    $  $.tokens  $.usage.total-tokens  $."a.b"  $['it\'s']  $["\u00e9"]  $.items[0].price

Names without quotes consist of letters, digits and marks of any script, `_` and `-`; a name that
looks like a number is still a name. Quoted names take JSON's escapes and `\'`. Wildcards, filters,
slices, descendants (`..`) and negative positions are refused: one path names at most one value.

The source of the grammar is RFC 9535, with ClickHouse's and OpenMeter's `$."name"` added.
"""

import json
import re
import unicodedata
from dataclasses import dataclass

from tollgate.core.errors import Fault, InvalidInput

LENGTH_MAX = 1024
DEPTH_MAX = 32
POSITION_MAX = 2**31 - 2

_ESCAPES = {
    '"': '"',
    "'": "'",
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_POSITION = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_UNIT = re.compile(r"[0-9A-Fa-f]{4}", re.ASCII)
_BLANK = " \t"
_REFUSED = {
    "*": "wildcards are not supported; name one member or position",
    "?": "filters are not supported; name one member or position",
    ":": "slices are not supported; name one position",
    "-": "negative positions are not supported; count from the start, from 0",
    ",": "lists are not supported; name one member or position",
    "(": "expressions are not supported; name one member or position",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonPath:
    """The way from a document to one value in it.

    Attributes:
        segments: a text is a member name, a number a position in an array, from 0. None at all is
            the whole document.
    """

    segments: tuple[str | int, ...]

    def spelling(self) -> str:
        """The path in one canonical spelling: parsing it gives the same path."""
        return "$" + "".join(_spell(segment) for segment in self.segments)

    def arguments(self, prefix: str) -> tuple[str, dict[str, object]]:
        """The path as further arguments of ClickHouse's JSONExtract functions.

        Alone, these take a position for an object's member too; `call` and `document` do not.

        Args:
            prefix: trusted start of the parameter names, unique within the query.

        Returns:
            SQL that begins with a comma where there are segments, and the parameters it names.
        """
        return _arguments(self.segments, prefix), self.parameters(prefix)

    def parameters(self, prefix: str) -> dict[str, object]:
        """The values of the parameters that `arguments`, `document` and `call` name."""
        return {
            f"{prefix}_{index}": segment
            for index, segment in enumerate(self.segments)
            if isinstance(segment, str)
        }

    def document(self, column: str, prefix: str) -> str:
        """SQL for the document to extract from: empty where a position would address an object.

        ClickHouse counts an object's members like an array's elements, so `$.a[0]` would find the
        first member of an object. A path without positions costs nothing.
        """
        checks = [
            f"JSONType({column}{_arguments(self.segments[:index], prefix)}) = 'Array'"
            for index, segment in enumerate(self.segments)
            if isinstance(segment, int)
        ]
        return f"if({' AND '.join(checks)}, {column}, '')" if checks else column

    def call(self, function: str, column: str, prefix: str) -> str:
        """SQL that applies a JSONExtract function, JSONType or JSONHas to the value.

        Args:
            function: trusted name, such as `JSONExtractRaw`.
            column: trusted SQL of type String that holds JSON.
            prefix: as for `arguments`; bind `parameters` of the same prefix.
        """
        return f"{function}({self.document(column, prefix)}{_arguments(self.segments, prefix)})"


def parse_path(text: str, path_field: str) -> JsonPath:
    """The path that a text spells.

    Args:
        text: what the client wrote.
        path_field: where it stood, for the fault.

    Raises:
        InvalidInput: not a path of this kind; the message says what is wrong and at which offset.
    """
    try:
        return JsonPath(segments=tuple(_Reader(text).segments()))
    except _Unreadable as unreadable:
        fault = Fault(field=path_field, code="invalid_json_path", message=str(unreadable))
        raise InvalidInput((fault,)) from None


class _Unreadable(Exception):
    """What is wrong with a path, with its place."""


class _Reader:
    """One pass over the text of a path. `at` is the offset of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def segments(self) -> list[str | int]:
        self._check_whole()
        self._expect("$", "must start with $")
        found: list[str | int] = []
        while self.at < len(self.text):
            found.append(self._segment())
            if len(found) > DEPTH_MAX:
                raise self._unreadable(f"more than {DEPTH_MAX} segments")
        return found

    def _check_whole(self) -> None:
        if len(self.text) > LENGTH_MAX:
            self.at = LENGTH_MAX
            raise self._unreadable(f"longer than {LENGTH_MAX} characters")
        for offset, character in enumerate(self.text):
            if unicodedata.category(character) == "Cs":
                self.at = offset
                raise self._unreadable("lone surrogates are not text")

    def _segment(self) -> str | int:
        match self._peek():
            case ".":
                self.at += 1
                return self._after_dot()
            case "[":
                self.at += 1
                return self._in_brackets()
            case other:
                raise self._unreadable(f"expected . or [, found {other!r}")

    def _after_dot(self) -> str:
        if self._peek() == '"':
            return self._quoted()
        start = self.at
        while _is_name_character(self._peek()):
            self.at += 1
        if self.at > start:
            return self.text[start : self.at]
        match self._peek():
            case ".":
                raise self._unreadable("descendants (..) are not supported; spell out the way")
            case "*":
                raise self._unreadable(_REFUSED["*"])
            case "":
                raise self._unreadable("a member name is missing")
            case other:
                raise self._unreadable(f"{other!r} cannot begin a name; put the name in quotes")

    def _in_brackets(self) -> str | int:
        self._skip_blank()
        segment = self._quoted() if self._peek() in ('"', "'") else self._position()
        self._skip_blank()
        self._expect("]", _REFUSED.get(self._peek(), "expected ]"))
        return segment

    def _position(self) -> int:
        found = _POSITION.match(self.text, self.at)
        if found is None:
            message = _REFUSED.get(self._peek(), "expected a position or a name in quotes")
            raise self._unreadable(message)
        position = int(found.group())
        if position > POSITION_MAX:
            raise self._unreadable(f"positions end at {POSITION_MAX}")
        self.at = found.end()
        if self._peek().isdigit():
            raise self._unreadable("positions are written without leading zeros")
        return position

    def _quoted(self) -> str:
        opened = self.at
        quote = self._peek()
        self.at += 1
        characters: list[str] = []
        while (character := self._peek()) != quote:
            if character == "":
                self.at = opened
                raise self._unreadable("the quote is not closed")
            if character < " ":
                raise self._unreadable("control characters must be escaped")
            self.at += 1
            characters.append(self._escaped() if character == "\\" else character)
        self.at += 1
        return "".join(characters)

    def _escaped(self) -> str:
        letter = self._peek()
        if letter == "u":
            self.at += 1
            return self._unicode_escape()
        if letter not in _ESCAPES:
            raise self._unreadable(f"unknown escape \\{letter}")
        self.at += 1
        return _ESCAPES[letter]

    def _unicode_escape(self) -> str:
        code = self._unit()
        if 0xD800 <= code < 0xDC00 and self.text.startswith("\\u", self.at):
            self.at += 2
            low = self._unit()
            if 0xDC00 <= low < 0xE000:
                return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00))
        if 0xD800 <= code < 0xE000:
            raise self._unreadable("lone surrogates are not text")
        return chr(code)

    def _unit(self) -> int:
        found = _UNIT.match(self.text, self.at)
        if found is None:
            raise self._unreadable("\\u takes four hexadecimal digits")
        self.at = found.end()
        return int(found.group(), 16)

    def _peek(self) -> str:
        """The next character, or nothing at the end."""
        return self.text[self.at : self.at + 1]

    def _skip_blank(self) -> None:
        while self._peek() and self._peek() in _BLANK:
            self.at += 1

    def _expect(self, character: str, message: str) -> None:
        if self._peek() != character:
            raise self._unreadable(message)
        self.at += 1

    def _unreadable(self, message: str) -> _Unreadable:
        return _Unreadable(f"is not a usable JSONPath: {message} (at offset {self.at})")


def _is_name_character(character: str) -> bool:
    return character != "" and (character in "_-" or unicodedata.category(character)[0] in "LMN")


def _spell(segment: str | int) -> str:
    if isinstance(segment, int):
        return f"[{segment}]"
    if segment and all(map(_is_name_character, segment)):
        return f".{segment}"
    return f"[{json.dumps(segment, ensure_ascii=False)}]"


def _arguments(segments: tuple[str | int, ...], prefix: str) -> str:
    return "".join(
        # ClickHouse counts from 1.
        f", {segment + 1}" if isinstance(segment, int) else f", {{{prefix}_{index}:String}}"
        for index, segment in enumerate(segments)
    )
