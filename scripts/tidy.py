"""Checks of form beside ruff and mypy: sizes, names, float near quantities, unfinished work, locks.

Prints one line per fault as `path:line: what is wrong` and ends with status 1 if there is one.
A float that is no quantity and no money (a duration, say) is allowed by a comment that gives the
reason, on its line or on a line of the same `def`: `# tidy: allow-float -- REASON`.
"""

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

MODULE_LINES_MAX = 400
ADAPTER_LINES_MAX = 80
FUNCTION_LINES_MAX = 60
PARAMETERS_MAX = 6

SOURCE_FOLDERS = ("shared", "functions", "tests", "scripts", "infra", "knative", "sdk", ".ci")
TEXT_SUFFIXES = frozenset({"", ".md", ".py", ".sh", ".sql", ".toml"})
SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})
VAGUE_NAMES = frozenset({"base", "common", "helper", "helpers", "manager", "util", "utils"})

FLOAT_NAMES = frozenset(
    {"float", "float16", "float32", "float64", "Double", "Float", "FiniteFloat", "PositiveFloat"}
    | {"NonNegativeFloat", "NegativeFloat", "NonPositiveFloat", "StrictFloat"}
)
FLOAT_ALLOWED = re.compile(r"# tidy: allow-float -- \w+")
UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b")  # so spelled, it misses itself
LOCKED_VERSION = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing to mend, at a line of a file (1 if it is the file as a whole)."""

    path: Path
    line: int
    message: str

    def text(self) -> str:
        """Returns the form that editors and terminals turn into a link."""
        return f"{self.path}:{self.line}: {self.message}"


def module_faults(path: Path, source: str) -> Iterator[Fault]:
    """Yields the faults of one Python module; `path` is relative to the clone."""
    tree = ast.parse(source, filename=str(path))
    yield from _size_faults(path, source)
    yield from _name_faults(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _function_faults(path, node)
    if path.parts[0] in {"shared", "functions"}:
        yield from _float_faults(path, tree, source.splitlines())
        yield from _import_faults(path, tree)


def text_faults(path: Path, text: str) -> Iterator[Fault]:
    """Yields the places of a text that say themselves that they are unfinished."""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := UNFINISHED.search(line):
            message = f"{found.group()}: finish it, or file an issue and leave no mark"
            yield Fault(path=path, line=number, message=message)


def lock_faults(path: Path, lock: str, requirements: list[Requirement]) -> Iterator[Fault]:
    """Yields where a lock does not hold what is required, and where it names a registry."""
    locked: dict[str, list[str]] = {}
    for name, version in LOCKED_VERSION.findall(lock):
        locked.setdefault(name, []).append(version)
    for requirement in requirements:
        versions = locked.get(requirement.name.lower())
        if versions is None:
            message = f"{requirement.name} is not locked; run scripts/lock"
            yield Fault(path=path, line=1, message=message)
        elif not all(requirement.specifier.contains(it, prereleases=True) for it in versions):
            message = f"{requirement} is asked for, {versions} is locked; run scripts/lock"
            yield Fault(path=path, line=1, message=message)
    for number, line in enumerate(lock.splitlines(), start=1):
        if "://" in line or line.startswith("--"):
            message = "names where to install from; that is the machine's choice"
            yield Fault(path=path, line=number, message=message)


def required_by_extra(project: dict[str, dict[str, list[str]]], extra: str) -> list[Requirement]:
    """Returns what an extra of our own asks for, with the extras of ours that it names unfolded."""
    found: list[Requirement] = []
    for text in project["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == "tollgate":
            for inner in sorted(requirement.extras):
                found.extend(required_by_extra(project, inner))
        else:
            found.append(requirement)
    return found


def _size_faults(path: Path, source: str) -> Iterator[Fault]:
    is_adapter = path.parts[0] == "functions" and path.name == "main.py"
    limit = ADAPTER_LINES_MAX if is_adapter else MODULE_LINES_MAX
    lines = len(source.splitlines())
    if lines > limit:
        yield Fault(path=path, line=1, message=f"{lines} lines, at most {limit}")


def _name_faults(path: Path) -> Iterator[Fault]:
    for word in (*path.parts[:-1], path.stem):
        if word in VAGUE_NAMES:
            message = f"'{word}' says nothing; name it by what it holds"
            yield Fault(path=path, line=1, message=message)


def _function_faults(
    path: Path, function: ast.FunctionDef | ast.AsyncFunctionDef
) -> Iterator[Fault]:
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if lines > FUNCTION_LINES_MAX:
        message = f"{function.name} has {lines} lines, at most {FUNCTION_LINES_MAX}"
        yield Fault(path=path, line=function.lineno, message=message)
    positional = [*function.args.posonlyargs, *function.args.args]
    if positional and positional[0].arg in {"self", "cls"}:
        positional = positional[1:]
    parameters = len(positional) + len(function.args.kwonlyargs)
    if parameters > PARAMETERS_MAX:
        message = f"{function.name} has {parameters} parameters, at most {PARAMETERS_MAX}"
        yield Fault(path=path, line=function.lineno, message=message)


def _float_faults(path: Path, tree: ast.Module, lines: list[str]) -> Iterator[Fault]:
    allowed = _lines_with_float_allowed(tree, lines)
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in FLOAT_NAMES:
                if node.lineno not in allowed:
                    message = f"{name}: quantities are Decimal, money is int"
                    yield Fault(path=path, line=node.lineno, message=message)
            case _:
                pass


def _lines_with_float_allowed(tree: ast.Module, lines: list[str]) -> set[int]:
    """A `def` that the formatter broke over lines keeps its comment on the last: it covers all."""
    allowed = {at for at, line in enumerate(lines, start=1) if FLOAT_ALLOWED.search(line)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            signature = range(node.lineno, max(node.body[0].lineno, node.lineno + 1))
            if not allowed.isdisjoint(signature):
                allowed.update(signature)
    return allowed


def _import_faults(path: Path, tree: ast.Module) -> Iterator[Fault]:
    """A function shares code through the package, never by reaching into its neighbour."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [name.name for name in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case _:
                continue
        for module in modules:
            if module.split(".")[0] in {"functions", "tests", "scripts"}:
                message = f"imports {module}; the product imports only the package"
                yield Fault(path=path, line=node.lineno, message=message)


def _text_files(root: Path) -> Iterator[Path]:
    for folder in SOURCE_FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            is_text = path.is_file() and path.suffix in TEXT_SUFFIXES
            if is_text and SKIPPED_FOLDERS.isdisjoint(path.parts):
                yield path
    yield from sorted(root.glob("*.md"))
    yield root / "pyproject.toml"


def clone_faults(root: Path) -> Iterator[Fault]:
    """Yields the faults of everything in the clone at `root`."""
    for path in _text_files(root):
        text = path.read_text(encoding="utf-8")
        yield from text_faults(path.relative_to(root), text)
        if path.suffix == ".py":
            yield from module_faults(path.relative_to(root), text)
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    for lock, extra in (("requirements-run.lock", "embedded"), ("requirements-test.lock", "test")):
        text = (root / lock).read_text(encoding="utf-8")
        yield from lock_faults(Path(lock), text, required_by_extra(settings["project"], extra))
    installer = [Requirement(it) for it in settings["dependency-groups"]["installer"]]
    lock = "requirements-installer.lock"
    yield from lock_faults(Path(lock), (root / lock).read_text(encoding="utf-8"), installer)


def main() -> int:
    """Checks the clone that this file is in."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    faults = list(clone_faults(root))
    for fault in faults:
        print(fault.text())
    print(f"tidy: {len(faults)} faults" if faults else "tidy: nothing to mend")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
