"""The one place where the API reaches through the agent to its store and its forwarder, for an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from edge_agent.api.custody import not_moved
from edge_agent.outbox import Store
from edge_agent.outbox.crypto import parse_key

if TYPE_CHECKING:
    from edge_agent.agent import Agent

P = ParamSpec("P")
T = TypeVar("T")

# ruff: noqa: SLF001 - see the module's first line


async def run(agent: Agent, operation: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``operation`` on the store, in the store's thread. Raises what is wrong with the store."""
    return await agent._store_worker.run(operation, agent._need_store(), *args, **kwargs)


def resume(agent: Agent) -> bool:
    """Let the forwarder try at once, also when it had stopped; False where there is none."""
    if agent._forwarder is None:
        return False
    agent._forwarder.resume()
    return True


async def adopt(agent: Agent, actor: str) -> None:
    """Accept a state directory that was made on another machine, and go on with it. Raises NotMoved."""
    fault = agent.faults.get("store")
    if fault is None or fault.code != "state_moved":
        raise not_moved()
    await agent._store_worker.run(_record_adoption, agent, actor)
    await agent._guarded("store", agent._open_store)
    if agent._store is not None:
        agent._loop("tick", agent._tick)
        if agent._client is not None:
            agent._start_forwarder(agent._store, agent._client)


def _record_adoption(agent: Agent, actor: str) -> None:
    config = agent.config
    key = parse_key(config.outbox.key.read())
    with Store.open(config.state_dir, key, clock=agent.clock, adopt=True) as store:
        store.adopted_by(actor)
