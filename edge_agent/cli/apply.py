"""``edge-agent config apply`` and ``config confirm``: a new configuration over SSH, with a way back.

The daemon runs the candidate on trial and goes back by itself; this command, as root, puts the file in place once it
may stay. Whenever the command dies, the daemon is right: without a confirmation it runs what the file says.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket as sockets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from edge_agent.cli.options import config_option
from edge_agent.config import SYSTEM_SOCKET, Config, InvalidConfiguration, load, parse, read_text
from edge_agent.errors import AgentError, ConfigurationError, EnvironmentFault
from edge_agent.reload import plan
from edge_agent.swap import check_writable, swap
from edge_agent.types import JsonObject

if TYPE_CHECKING:
    from edge_agent.client import AgentClient

POLL_S = 0.25
AWAY_S = 90.0
"""An agent that does not answer for so long is not waited for: systemd restarts one within seconds."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")

socket_option = click.option("--socket", type=click.Path(path_type=Path), envvar="EDGE_AGENT_SOCKET",
                             help="The agent's socket.  [default: the configuration's]")  # fmt: skip


class _Interrupted(BaseException):
    """Ctrl-C, SIGTERM, or the SSH connection is gone."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@click.option("--watch-s", type=click.FloatRange(0, 600), default=20.0, show_default=True, help="Health check.")
@click.option("--confirm-within", type=click.FloatRange(1, 86_400), metavar="S",
              help="Wait so long for `edge-agent config confirm`, else roll back.")  # fmt: skip
@click.option("--restart", is_flag=True, help="Restart the agent where a changed key needs it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end.")
@socket_option
def apply(
    file: Path,
    config_path: Path,
    watch_s: float,
    confirm_within: float | None,
    restart: bool,
    as_json: bool,
    socket: Path | None,
) -> None:
    """Replace the configuration by FILE: check it, run it on trial, keep it when the agent stays healthy.

    Rolled back by itself when it does not, when this command is interrupted or its connection drops, and with
    --confirm-within when nobody confirms in time.
    """
    report = _Report(as_json)
    try:
        text = read_text(file)
        candidate = parse(text, str(file))
    except InvalidConfiguration as exc:
        report.invalid(exc)
    check_writable(config_path)
    agent = _Agent.of(socket, config_path, candidate)
    terms = {"watch_s": watch_s, "confirm_within_s": confirm_within, "restart": restart}
    if not agent.runs():
        _swap_only(report, config_path, candidate, text)
    with _exit_codes({"restart_needed": 2, "configuration_refused": 2}):
        agent.check_file(config_path)
        outcome = _try_out(report, agent, config_path, text, terms)
    report.finish(outcome)


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end.")
@socket_option
def confirm(config_path: Path, as_json: bool, socket: Path | None) -> None:
    """Keep the configuration that `config apply --confirm-within` runs on trial."""
    report = _Report(as_json)
    check_writable(config_path)
    agent = _Agent.of(socket, config_path, None)
    with _exit_codes({"config_not_pending": 1, "not_found": 1}):
        agent.check_file(config_path)
        agent.follow({"restarting", "watching"})
        outcome = _keep(agent, config_path)
    report.finish(outcome)


# -- the steps --------------------------------------------------------------------------------------------------------


def _swap_only(report: _Report, target: Path, candidate: Config, text: str) -> NoReturn:
    report.changes(_local_changes(target, candidate))
    previous = swap(target, text)
    report.finish({"phase": "swapped", "reason": "no agent runs: nothing was tried out"}, previous)


def _local_changes(target: Path, candidate: Config) -> list[JsonObject]:
    try:
        running = load(target)
    except ConfigurationError:
        return []  # there was none, or a broken one: everything is new
    return [asdict(change) for change in plan(running, candidate).changes]


def _try_out(report: _Report, agent: _Agent, target: Path, text: str, terms: JsonObject) -> JsonObject:
    """The trial's end. An interruption rolls it back at once; so does the daemon, later, when this is killed."""
    try:
        with _interruptible():
            # once: an agent that died over it and came back has forgotten it, and must not be given it again
            trial = agent.ask(lambda client: client.apply_config(text, **terms))
            report.changes(trial["changes"])
            if terms["confirm_within_s"] is not None:
                report.say(f"on trial; to keep it, within {terms['confirm_within_s']:.0f} s: edge-agent config confirm")
            trial = agent.follow({"restarting", "watching"})
            if trial["phase"] == "healthy" and terms["confirm_within_s"] is not None:
                report.say(f"healthy; {trial['left_s']:.0f} s are left")
            if terms["confirm_within_s"] is not None:  # somebody else may have been quick to confirm
                trial = agent.follow({"healthy", "confirmed"})
    except _Interrupted:
        return agent.call_off()
    return _keep(agent, target) if trial["phase"] == "healthy" else trial


def _keep(agent: _Agent, target: Path) -> JsonObject:
    """Put the candidate in place; from here on an interruption comes too late."""
    with _uninterrupted():
        trial = agent.ask(lambda client: client.confirm_config())
        try:
            swap(target, trial["text"])
        except AgentError:
            with contextlib.suppress(AgentError):
                agent.ask(lambda client: client.revert_config())
            raise
        agent.ask(lambda client: client.reload())
        return agent.ask(lambda client: client.config_trial())


@contextlib.contextmanager
def _exit_codes(codes: dict[str, int]) -> Iterator[None]:
    """What the agent refuses is the environment's fault, unless ``codes`` says otherwise."""
    try:
        yield
    except AgentError as exc:
        exc.exit_code = codes.get(exc.code, EnvironmentFault.exit_code)
        raise


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    def interrupt(signum: int, frame: FrameType | None) -> None:
        del frame
        _handle(signal.SIG_IGN)  # once is enough
        raise _Interrupted(signal.Signals(signum).name)

    before = _handle(interrupt)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    before = _handle(signal.SIG_IGN)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _handle(handler: Any) -> dict[signal.Signals, Any]:
    return {signum: signal.signal(signum, handler) for signum in SIGNALS if _is_heeded(signum)}


def _is_heeded(signum: signal.Signals) -> bool:
    """Under nohup SIGHUP is ignored: the command then goes on without its terminal."""
    return signum is not signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN


# -- the agent --------------------------------------------------------------------------------------------------------


class _Agent:
    """The running daemon, behind the socket that it has now or will have."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    @classmethod
    def of(cls, socket: Path | None, target: Path, candidate: Config | None) -> _Agent:
        """Where the running configuration says, else the candidate. An unreadable file may still be running."""
        paths = [socket] if socket else []
        if socket is None:
            with contextlib.suppress(ConfigurationError):
                paths.append(load(target).api.socket)
            paths += [candidate.api.socket] if candidate else [SYSTEM_SOCKET]
        return cls(list(dict.fromkeys(paths)))

    def runs(self) -> bool:
        """False only where nobody listens; an agent that hangs, or that may not be asked, is an error later on."""
        return any(_listens(path) for path in self._paths)

    def check_file(self, target: Path) -> None:
        """Raises EnvironmentFault when the agent behind the socket runs another file."""
        file = self.ask(lambda client: client.status())["configuration"]["file"]
        if file is None or Path(file).resolve() != target.resolve():
            raise EnvironmentFault(
                f"cannot apply to {target}: the agent runs {file or 'without a file'}",
                code="other_file",
                hint="give its file with --config, or its socket with --socket",
            )

    def ask(self, question: Callable[[AgentClient], T]) -> T:
        """Raises ApiError, and EnvironmentFault when the agent does not answer."""
        from edge_agent.client import AgentClient

        path = next((path for path in self._paths if _listens(path)), self._paths[0])
        with AgentClient(path) as client:
            return question(client)

    def follow(self, phases: set[str]) -> JsonObject:
        """The trial, once it is in none of ``phases``. An agent that is away is waited for: it may be restarting."""
        seen_s = time.monotonic()
        while True:
            try:
                trial = self.ask(lambda client: client.config_trial())
            except EnvironmentFault as exc:
                if exc.code != "agent_unreachable" or time.monotonic() - seen_s > AWAY_S:
                    raise
            else:
                if trial["phase"] not in phases:
                    return trial
                seen_s = time.monotonic()
            time.sleep(POLL_S)

    def call_off(self) -> JsonObject:
        """Go back to the file now; when that cannot be said, the daemon does it at the deadline."""
        with _uninterrupted():
            try:
                return self.ask(lambda client: client.revert_config())
            except AgentError as exc:
                return {"phase": "rolled_back", "reason": f"interrupted; the agent goes back by itself ({exc.message})"}


def _listens(path: Path) -> bool:
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True  # it hangs, or we may not: asking tells
    return True


# -- what the operator sees -------------------------------------------------------------------------------------------


class _Report:
    """People read stderr and one line at the end; with ``--json`` there is one object on stdout."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._changes: list[JsonObject] = []

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            click.echo(text, err=True)

    def changes(self, changes: list[JsonObject]) -> None:
        self._changes = changes
        for change in changes:
            self.say(f"  {change['key']}: {_text(change['old'])} -> {_text(change['new'])}")
        if not changes:
            self.say("  no key changes")

    def invalid(self, error: InvalidConfiguration) -> NoReturn:
        if not self._json:
            raise error
        problems = [asdict(problem) for problem in error.problems]
        self._print({"outcome": "invalid", "problems": problems})
        click.get_current_context().exit(error.exit_code)

    def finish(self, trial: JsonObject, previous: Path | None = None) -> NoReturn:
        """Exit with 0 when it stays, 1 when it was rolled back."""
        outcome, reason = trial["phase"], trial.get("reason")
        kept = outcome in {"kept", "swapped"}
        if self._json:
            self._print({"outcome": outcome, "reason": reason, "changes": self._changes or trial.get("changes", []),
                         "problems": []})  # fmt: skip
        else:
            self._line(f"{_OUTCOMES.get(outcome, outcome)}{f': {reason}' if reason else ''}")
            if previous is not None:
                self.say(f"  the file of before is {previous}")
        click.get_current_context().exit(0 if kept else 1)

    def _print(self, body: JsonObject) -> None:
        self._line(json.dumps(body))

    @staticmethod
    def _line(text: str) -> None:
        with contextlib.suppress(OSError):
            click.echo(text)


_OUTCOMES = {"kept": "applied", "swapped": "put in place", "rolled_back": "rolled back"}


def _text(value: Any) -> str:
    return "(none)" if value is None else json.dumps(value)
