"""Access to the models of providers, through Pydantic AI: requests as data, calls, answers as data.

Nothing here records anything. The modules import Pydantic AI and the providers' SDKs, which takes
seconds; so they are imported where a model is called, and `holdfast` works without them.
"""

from __future__ import annotations

from importlib.util import find_spec

from holdfast import errors

INSTALL = "pip install 'holdfast[agent]'"


def require() -> None:
    """Make sure that Pydantic AI is installed.

    Raises:
        UsageError: it isn't; the message says how to install it.
    """
    if find_spec("pydantic_ai") is None:
        message = (
            f"Models are called through Pydantic AI, which isn't installed. Nothing was sent. "
            f"Install it ({INSTALL}), or pass a function of your own that calls the model."
        )
        raise errors.UsageError(message)
