"""What type checkers are given. `make typing` runs them."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import weirpool
from weirpool import _core
from weirpool._executor import Executor

USER = Path(__file__).parents[1] / "typing" / "user.py"
CLASSES = (
    weirpool.ProcessPoolExecutor,
    weirpool.BoundedProcessPoolExecutor,
    Executor,
    weirpool.Failure,
    weirpool.Feeder,
    weirpool.FeederStats,
    weirpool.Results,
    weirpool.Stats,
    _core.Future,
)


def public_names() -> Iterator[str]:
    """Of the package, of its classes, and what can be named in a call."""
    yield from weirpool.__all__
    for each in CLASSES:
        for name, member in vars(each).items():
            if not name.startswith("_"):
                yield name
            if callable(member) and (name == "__init__" or not name.startswith("_")):
                yield from keywords(member)


def keywords(function: Callable[..., Any]) -> Iterator[str]:
    wanted = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    for each in inspect.signature(function).parameters.values():
        if each.name != "self" and each.kind in wanted:
            yield each.name


def test_the_user_of_everything_uses_everything() -> None:
    used = set(re.findall(r"\w+", USER.read_text()))
    assert set(public_names()) - used == set()


def test_the_package_brings_its_types() -> None:
    folder = Path(weirpool.__file__).parent
    assert (folder / "py.typed").exists()
    assert (folder / "_core.pyi").exists()


def test_every_function_of_the_extension_has_a_signature_and_a_docstring() -> None:
    for kind in (_core.Engine, _core.Future, _core.Sink, _core.Worker):
        for name, member in vars(kind).items():
            if inspect.isroutine(member) and name != "__new__":
                assert inspect.signature(member), f"{kind.__name__}.{name}"
                assert inspect.getdoc(member), f"{kind.__name__}.{name}"
