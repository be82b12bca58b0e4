"""The embedded engine as several statements at once use it: each has a session of its own."""

import itertools
import re
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from tollgate.local.clickhouse_statement import Statement
from tollgate.local.http_wire import BrokenRequest

# The others begin and end a result with something: in pieces each piece would be a document.
_STREAMED = frozenset(("native", "tabseparated", "tsv", "csv", "rowbinary", "jsoneachrow"))
_CODE = re.compile(r"Code: (\d+)")
_numbers = itertools.count(1)


class EngineError(Exception):
    """The engine refused or failed."""

    def __init__(self, problem: Exception) -> None:
        text = str(problem)
        found = _CODE.search(text)
        self.code = int(found[1]) if found else 1002
        super().__init__(text[found.start() :] if found else text)


class Engine:
    """One engine on one folder. Sessions may be used from any number of threads, each from one."""

    def __init__(self, path: Path) -> None:
        """Opens the folder.

        Raises:
            EngineError: another process has it open, or its content can't be read.
        """
        from chdb import _chdb

        self._connect: Any = _chdb.connect  # type: ignore[attr-defined]  # written in C++
        self._path = str(path)
        path.mkdir(parents=True, exist_ok=True)
        try:
            # The engine lives as long as one of its handles does.
            self._first = self._connect(self._path)
        except RuntimeError as problem:
            raise EngineError(problem) from problem
        self.time_zone = self._value("SELECT timezone()")
        self.version = self._value("SELECT version()")

    def _value(self, sql: str) -> str:
        text: bytes = self._first.query(sql, "TabSeparated").bytes()
        return text.decode().strip()

    def session(self, statement: Statement) -> "Session":
        """A session with the statement's database and settings, which end with it.

        Raises:
            EngineError: there is no such database or setting.
        """
        return Session(self._connect(self._path), statement)

    def cancel(self, mark: str) -> None:
        """Ends the query of the session that has this mark; nothing if it has ended."""
        with suppress(RuntimeError), closing(self._connect(self._path)) as handle:
            handle.query(f"KILL QUERY WHERE Settings['log_comment'] = '{mark}' ASYNC", "Null")

    def close(self) -> None:
        """Closes the folder; every session has ended by then."""
        self._first.close()


class Session:
    """Runs one statement."""

    def __init__(self, handle: Any, statement: Statement) -> None:
        self._handle = handle
        self._statement = statement
        self.mark = f"tollgate-front-{next(_numbers)}"
        settings = {"log_comment": self.mark} | dict(statement.settings)
        try:
            if statement.database not in ("", "default"):
                name = statement.database.replace("\\", "\\\\").replace("`", "\\`")
                handle.query(f"USE `{name}`", "Null")
            if statement.rows is not None:
                settings |= {f"param_{k}": v for k, v in statement.parameters.items()}
            pairs = ", ".join(f"{name} = {_quoted(value)}" for name, value in settings.items())
            handle.query(f"SET {pairs}", "Null")
        except RuntimeError as problem:
            handle.close()
            raise EngineError(problem) from problem

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    @property
    def reads(self) -> bool:
        """Whether the statement changes nothing, and so gives rows."""
        if self._statement.rows is not None:
            return False
        try:
            found = self._handle.classify_query(self._statement.sql)
        except RuntimeError as problem:
            raise EngineError(problem) from problem
        return str(found["query_class"]).endswith("READ_ONLY")

    def insert(self) -> tuple[int, int]:
        """Inserts the rows as they come in; nothing is stored if they end early.

        Returns:
            rows and bytes written, those that views wrote included.

        Raises:
            EngineError: the rows can't be read or stored. All of them have been taken in.
            BrokenRequest: the rows ended early.
        """
        rows = self._statement.rows
        assert rows is not None
        try:
            insert = self._handle.send_insert(
                self._statement.sql.decode("utf-8", "surrogateescape"), self._statement.format
            )
            try:
                for piece in rows:
                    self._handle.insert_append(insert, piece)
            except (BrokenRequest, OSError):
                self._handle.insert_cancel(insert)
                raise
            done = self._handle.insert_done(insert)
        except RuntimeError as problem:
            # A client that still sends would not read why.
            for _ in rows:
                pass
            raise EngineError(problem) from problem
        return done.rows_written(), done.bytes_written()

    def run(self) -> bytes:
        """The whole result."""
        try:
            result = self._handle.query(
                self._statement.sql, self._statement.format, params=dict(self._statement.parameters)
            )
        except RuntimeError as problem:
            raise EngineError(problem) from problem
        whole: bytes = result.bytes()
        return whole

    def stream(self) -> Generator[bytes]:
        """The result in pieces, none of them empty. What was begun must be closed."""
        named = self._statement.named_format or self._statement.format
        if self._statement.whole or named.lower() not in _STREAMED:
            whole = self.run()
            if whole:
                yield whole
            return
        try:
            stream = self._handle.send_query(
                self._statement.sql, self._statement.format, params=dict(self._statement.parameters)
            )
        except RuntimeError as problem:
            raise EngineError(problem) from problem
        ended = False
        try:
            while True:
                try:
                    result = self._handle.streaming_fetch_result(stream)
                except RuntimeError as problem:
                    ended = True
                    raise EngineError(problem) from problem
                if result is None or result.rows_read() == 0:
                    ended = True
                    return
                piece: bytes = result.bytes()
                if piece:
                    yield piece
        finally:
            if not ended:
                with suppress(RuntimeError):
                    self._handle.streaming_cancel_query(stream)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
