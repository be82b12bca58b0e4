"""`scripts/tidy.py` finds what it is there to find, and nothing else."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts import tidy

PRODUCT = Path("shared/tollgate/events/ingest.py")


def messages(path: Path, source: str) -> list[str]:
    return [f"{fault.line}: {fault.message}" for fault in tidy.module_faults(path, source)]


def function_with(lines: int, parameters: str = "") -> str:
    return "\n".join([f"def load({parameters}):", *["    pass"] * (lines - 1)])


@pytest.mark.parametrize(
    ("path", "lines", "faults"),
    [
        (PRODUCT, 400, []),
        (PRODUCT, 401, ["1: 401 lines, at most 400"]),
        (Path("functions/load/main.py"), 80, []),
        (Path("functions/load/main.py"), 81, ["1: 81 lines, at most 80"]),
        (Path("tests/unit/main.py"), 81, []),
    ],
)
def test_a_module_has_a_largest_size(path: Path, lines: int, faults: list[str]) -> None:
    assert messages(path, "pass\n" * lines) == faults


def test_a_function_has_a_largest_size() -> None:
    assert messages(PRODUCT, function_with(60)) == []
    assert messages(PRODUCT, function_with(61)) == ["1: load has 61 lines, at most 60"]
    assert messages(PRODUCT, "async " + function_with(61)) == ["1: load has 61 lines, at most 60"]


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        ("a, b, c, d, e, f", 0),
        ("self, a, b, c, d, e, f", 0),
        ("cls, a, /, b, c, *, d, e, f", 0),
        ("a, /, b, c, d, *, e, f, g", 7),
        ("self, a, b, c, d, e, f, *, g, h", 8),
        ("a, b, c, d, e, f, *more, **named", 0),
    ],
)
def test_a_function_has_few_parameters(parameters: str, count: int) -> None:
    expected = [f"1: load has {count} parameters, at most 6"] if count else []
    assert messages(PRODUCT, function_with(2, parameters)) == expected


@pytest.mark.parametrize(
    "source",
    [
        "total = float(text)",
        "total: float = 0",
        "def total(quantity: float): pass",
        "def total() -> float | None: pass",
        "import numpy\ntotal = numpy.float64(1)",
        "total = float(text)  # tidy: allow-float --",
        "# tidy: allow-float -- a duration\ntotal = float(text)",
    ],
)
def test_float_is_banned_from_the_product(source: str) -> None:
    found = messages(PRODUCT, source)
    assert len(found) == 1
    assert "quantities are Decimal" in found[0]
    assert messages(Path("tests/unit/test_numbers.py"), source) == []


@pytest.mark.parametrize(
    "source",
    [
        "wait(float(seconds))  # tidy: allow-float -- a duration",
        "def wait(\n    seconds: float,\n) -> float:  # tidy: allow-float -- a duration\n    pass",
        "text = 'float(1)'",
        "parse(text, parse_float=Decimal)",
    ],
)
def test_float_is_allowed_for_a_reason_or_where_it_is_none(source: str) -> None:
    assert messages(PRODUCT, source) == []


def test_a_reason_in_a_signature_does_not_cover_the_body() -> None:
    source = "def wait(seconds: float):  # tidy: allow-float -- a duration\n    return float(text)"
    assert messages(PRODUCT, source) == ["2: float: quantities are Decimal, money is int"]


@pytest.mark.parametrize(
    "path", ["shared/tollgate/events/utils.py", "shared/tollgate/common/event.py"]
)
def test_a_name_says_something(path: str) -> None:
    assert len(messages(Path(path), "")) == 1


@pytest.mark.parametrize(
    "source", ["import functions.load.main", "from functions.load import main", "import tests"]
)
def test_functions_do_not_reach_into_each_other(source: str) -> None:
    assert len(messages(Path("functions/ingest/main.py"), source)) == 1
    assert messages(Path("tests/e2e/test_load.py"), source) == []


def test_unfinished_work_is_found_by_its_own_word() -> None:
    word = "TO" + "DO"
    faults = list(
        tidy.text_faults(Path("README.md"), f"Fine.\n{word}: write this\n{word}S are two")
    )
    assert [fault.line for fault in faults] == [2]


LOCK = "alembic==1.20.1 \\\n    --hash=sha256:00\nnumpy==2.4.6 ; python_full_version < '3.12' \\\n"


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        ("alembic>=1.20,<2", None),
        ("numpy>=2.4", None),
        ("alembic>=2", "alembic>=2 is asked for, ['1.20.1'] is locked; run scripts/lock"),
        ("rich>=15", "rich is not locked; run scripts/lock"),
    ],
)
def test_a_lock_holds_what_is_required(requirement: str, message: str | None) -> None:
    faults = tidy.lock_faults(Path("run.lock"), LOCK, [Requirement(requirement)])
    assert [fault.message for fault in faults] == ([message] if message else [])


@pytest.mark.parametrize(
    "line",
    ["--index-url https://registry.example/simple", "six @ https://registry.example/six.whl"],
)
def test_a_lock_names_no_registry(line: str) -> None:
    faults = list(tidy.lock_faults(Path("run.lock"), LOCK + line, []))
    assert [fault.line for fault in faults] == [4]


def test_an_extra_is_unfolded_to_the_packages_of_others() -> None:
    project = {
        "optional-dependencies": {
            "host": ["uvicorn>=0.54"],
            "ingest": ["tollgate[host]", "msgspec"],
            "all": ["tollgate[host,ingest]"],
        }
    }
    names = {it.name for it in tidy.required_by_extra(project, "all")}
    assert names == {"uvicorn", "msgspec"}
