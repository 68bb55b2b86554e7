"""What is known about the call that is being handled, beside its message."""

from __future__ import annotations

from contextvars import ContextVar

# gRPC runs interceptors and the method behind them in one context, though not always on one thread.
_caller: ContextVar[str | None] = ContextVar("caller", default=None)


def set_caller(name: str | None) -> None:
    """Note whose call it is."""
    _caller.set(name)


def current_caller() -> str | None:
    """Name that stands beside the caller's token; None where no tokens are asked for."""
    return _caller.get()
