"""The one place where the API reaches through the agent to its store and its forwarder, for an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from edge_agent.api.custody import not_moved
from edge_agent.outbox import Store
from edge_agent.outbox.records import RotationReport

if TYPE_CHECKING:
    from edge_agent.agent import Agent

P = ParamSpec("P")
T = TypeVar("T")


async def run(agent: Agent, operation: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``operation`` on the store, in the store's thread. Raises what is wrong with the store."""
    return await agent.keeper.run(operation, *args, **kwargs)


def resume(agent: Agent) -> bool:
    """Let the forwarder try at once, also when it had stopped; False where there is none."""
    if agent.forwarder is None:
        return False
    agent.forwarder.resume()
    return True


async def rotate(agent: Agent, actor: str) -> RotationReport:
    """Rotate the device key a batch at a time: customers are served in between. Raises as ``Store.rotate``."""
    await run(agent, Store.begin_rotation, actor=actor)
    while not await run(agent, Store.rotate_step):
        pass
    return await run(agent, Store.rotation_report)


async def adopt(agent: Agent, actor: str) -> None:
    """Accept a state directory that was made on another machine, and go on with it. Raises NotMoved."""
    fault = agent.faults.get("store")
    if fault is None or fault.code != "state_moved":
        raise not_moved()
    await agent.keeper.adopt()
    await run(agent, Store.adopted_by, actor)
