"""One run of the simulator: its folder, its configuration, and its life."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from edge_agent.config import Config
from edge_agent.daemon import serve_until
from edge_agent.errors import AgentError, EnvironmentFault, InputError
from edge_agent.simulator.outcomes import Outcome
from edge_agent.simulator.service import BASE_URL, STORAGE
from edge_agent.simulator.terminal import SEARCH_TIMEOUT_S, VERDICT_TIMEOUT_S, SimulatedAgent, marked

KEY_FILE = "simulator.key"
"""Also what tells a folder of ours: a real terminal's state is never touched."""
DEFAULTS_S = {
    "search_timeout_s": SEARCH_TIMEOUT_S,
    "verdict_timeout_s": VERDICT_TIMEOUT_S,
    "capture_window_s": 1.0,
    "hint_hold_s": 0.5,
}
TOKENS = {"token": "pos", "enrol_token": "enrol", "admin_token": "admin"}
"""Key of the configuration, and role: each is a file of this name in the state's folder."""
GENEROUS = {
    "policy": "provisional",
    "max_amounts": {"CHF": "50", "EUR": "50", "GBP": "50", "USD": "50"},
    "without_amount": True,
    "max_answers": 100_000,
    "max_answers_per_user_day": 1000,
    "max_offline_s": 2_592_000,
}
"""A limit that can be seen, and none in the way."""
LEAST_S = {"search_timeout_s": 1.0, "verdict_timeout_s": 1.0, "capture_window_s": 0.0, "hint_hold_s": 0.0}
MOST_S = {"search_timeout_s": 600.0, "verdict_timeout_s": 600.0, "capture_window_s": 30.0, "hint_hold_s": 10.0}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line chose."""

    socket: Path
    default: Outcome
    speed: float
    lockout: bool
    tcp: str | None = None
    """ADDRESS:PORT on loopback, beside the socket."""


def default_socket() -> Path:
    """In the user's run-time folder; without one, in a private folder of the user's below the temporary one.

    Raises EnvironmentFault when somebody else made that folder.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "edge-agent-simulator.sock"
    folder = Path(tempfile.gettempdir()) / f"edge-agent-simulator-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as exc:
        raise EnvironmentFault(f"cannot use {folder}: {exc.strerror}", hint="choose a path with --socket") from exc
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise EnvironmentFault(f"cannot use {folder}: it is not yours alone", hint="choose a path with --socket")
    return folder / "api.sock"


@contextlib.contextmanager
def state_folder(kept: Path | None) -> Iterator[Path]:
    """A folder with a key: ``kept``, or one that is removed at the end. Raises EnvironmentFault."""
    if kept is not None:
        _prepare(kept)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="edge-agent-simulator-", ignore_cleanup_errors=True) as folder:
        _prepare(Path(folder))
        yield Path(folder)


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = folder / KEY_FILE
        if not key.exists() and any(folder.iterdir()):
            raise EnvironmentFault(
                f"cannot use {folder}: it holds something else than a simulator's state",
                code="not_writable",
                hint="give an empty or new folder",
            )
        for secret in (key, *(folder / name for name in TOKENS)):
            if not secret.exists():
                secret.touch(mode=0o600)
                secret.write_text(secrets.token_hex(32), encoding="ascii")
    except OSError as exc:
        raise EnvironmentFault(f"cannot use {folder}: {exc.strerror}", code="not_writable") from exc


def tokens(folder: Path) -> dict[str, str]:
    """The bearer tokens by role."""
    return {role: (folder / name).read_text(encoding="ascii") for name, role in TOKENS.items()}


def configuration(folder: Path, options: Options) -> Config:
    """That of a terminal whose session clocks run ``speed`` times faster, within what a configuration may hold.

    Raises InputError for an address that no terminal would take.
    """
    session = {
        name: min(MOST_S[name], max(LEAST_S[name], seconds / options.speed)) for name, seconds in DEFAULTS_S.items()
    }
    if not options.lockout:
        session["max_failures"] = 0
    values = {
        "terminal_id": "simulator",
        "state_dir": str(folder / "state"),
        "api": {
            "socket": str(options.socket),
            "socket_group": None,
            "tcp": options.tcp,
            **{name: {"file": str(folder / name)} for name in TOKENS if options.tcp is not None},
        },
        "camera": {"source": "none"},
        "models": {"pack": "simulated"},
        "session": session,
        "liveness": {"step_timeout_s": max(2.5, min(30.0, 5.0 / options.speed)), "total_timeout_s": 40.0},
        "cypherface": {
            "base_url": BASE_URL,
            "merchant_id": "0" * 24,
            "api_key": {"file": str(folder / KEY_FILE)},
            "upload_hosts": [STORAGE],
        },
        "outbox": {"key": {"file": str(folder / KEY_FILE)}, "reserve_bytes": 0},
        "offline": GENEROUS,
        "log": {"level": "warning"},
    }
    try:
        return Config.model_validate(values)
    except ValidationError as exc:
        raise _unusable(exc, options) from exc


def _unusable(exc: ValidationError, options: Options) -> Exception:
    """The address is all that a command line can have wrong here; anything else is our own mistake, and stays."""
    errors = exc.errors(include_url=False, include_input=False)
    if any(error["loc"] != ("api", "tcp") for error in errors):
        return exc
    why = errors[0]["msg"].removeprefix("Value error, ")
    return InputError(f"cannot listen on {options.tcp!r}: it {why}", hint="such as --tcp 127.0.0.1:8470")


async def serve(
    config: Config, options: Options, *, on_ready: Callable[[SimulatedAgent], None], watch_stdin: bool = False
) -> None:
    """Serve until SIGINT, SIGTERM, SIGHUP, or (``watch_stdin``) the end of the standard input.

    Raises EnvironmentFault without a socket.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, stop.set)
    if watch_stdin:
        end = lambda: loop.call_soon_threadsafe(stop.set)  # noqa: E731
        threading.Thread(target=_read_to_the_end, args=(end,), name="stdin", daemon=True).start()
    await serve_simulated(stop, config, options, on_ready=on_ready)


async def serve_simulated(
    stop: asyncio.Event, config: Config, options: Options, *, on_ready: Callable[[SimulatedAgent], None]
) -> None:
    """As ``serve``, until ``stop`` is set. Raises what is missing, where a terminal would go on degraded: AgentError.

    A till must not talk to the other simulator, that has the port or the state already.
    """
    agent = SimulatedAgent(config, default=options.default, speed=options.speed)
    missing: list[AgentError] = []

    async def announce() -> None:
        await agent.wait_started()
        missing.extend(agent.faults.values())
        if missing:
            stop.set()
        else:
            on_ready(agent)

    announcing = asyncio.create_task(announce(), name="announce")
    try:
        await serve_until(stop, agent, wrap=marked)
    finally:
        announcing.cancel()
    if missing:
        raise missing[0]


def _read_to_the_end(end: Callable[[], object]) -> None:
    """Not by sys.stdin: its lock would be held when the interpreter ends."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    with contextlib.suppress(RuntimeError):  # the loop is over already
        end()
