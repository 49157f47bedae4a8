"""A storekeeper that fails where a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_agent.storekeeper import Storekeeper


def intercept(keeper: Storekeeper, operation: Callable[..., Any], instead: Callable[..., Any]) -> Callable[[], None]:
    """From now on ``operation`` of this keeper runs ``instead(store, ...)``; returns what undoes that."""
    replaced = _replaced(keeper)
    replaced[operation] = instead

    def undo() -> None:
        replaced.pop(operation, None)

    return undo


def _replaced(keeper: Storekeeper) -> dict[Callable[..., Any], Callable[..., Any]]:
    known: dict[Callable[..., Any], Callable[..., Any]] | None = getattr(keeper.run, "replaced", None)
    return _wrap(keeper) if known is None else known


def _wrap(keeper: Storekeeper) -> dict[Callable[..., Any], Callable[..., Any]]:
    replaced: dict[Callable[..., Any], Callable[..., Any]] = {}
    original = keeper.run

    async def run(asked: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await original(replaced.get(asked, asked), *args, **kwargs)

    run.replaced = replaced  # type: ignore[attr-defined]
    keeper.run = run  # type: ignore[method-assign,assignment]
    return replaced


def fail(keeper: Storekeeper, operation: Callable[..., Any], error: Exception) -> Callable[[], None]:
    """From now on ``operation`` raises ``error``; returns what undoes that."""

    def failing(*_: Any, **__: Any) -> Any:
        raise error

    return intercept(keeper, operation, failing)


def fail_once(keeper: Storekeeper, operation: Callable[..., Any], error: Exception) -> None:
    """The next call of ``operation`` raises ``error``; later ones work."""

    def failing(*_: Any, **__: Any) -> Any:
        undo()
        raise error

    undo = intercept(keeper, operation, failing)
