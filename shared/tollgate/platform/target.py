"""The target by which the functions-framework command finds a function."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from tollgate.platform.application import Application

Target = Callable[[Any], Awaitable[Any]]


def framework_target(app: Application) -> Target:
    """The target of a function: Starlette awaits whatever ASGI application it returns.

    It is registered as an asynchronous one if it is the framework that imports it. Our own host
    never calls it and does without the framework: Flask and Starlette take 100 ms and 10 MiB.
    """

    async def target(request: object) -> Any:
        del request
        return app

    target.__name__ = app.name
    if "functions_framework" not in sys.modules:
        return target
    import functions_framework.aio

    functions_framework.aio.http(target)
    return target
