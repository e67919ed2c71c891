"""SIGTERM as an end like any other: what a command has begun is put away before its process ends."""

from __future__ import annotations

import signal
import sys
from functools import wraps
from typing import TYPE_CHECKING, Final, NoReturn, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_TERMINATED: Final = 128 + signal.SIGTERM

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def tidily_ended(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Have a command end by SIGTERM as it would by an error, with the exit status 143."""

    @wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        before = signal.signal(signal.SIGTERM, _end)
        try:
            return command(*arguments, **options)
        finally:
            signal.signal(signal.SIGTERM, before)

    return run


def _end(_number: int, _frame: object) -> NoReturn:
    sys.exit(_TERMINATED)
