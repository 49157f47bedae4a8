"""The command line of ``scripts/install``."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from scripts.installer import health, machine
from scripts.installer.hands import Hands
from scripts.installer.installing import Installation, Order, Removal
from scripts.installer.places import Places
from scripts.installer.refusal import ENVIRONMENT, USAGE, CannotInstall
from scripts.installer.release import Sources
from scripts.installer.services import NoServices, Services, Systemd

SYSTEM = Path("/")


def parser() -> argparse.ArgumentParser:
    """Every option with its meaning."""
    found = argparse.ArgumentParser(
        prog="install",
        description="Install edge-agent as a service, upgrade it, or take it off. The second time it changes nothing.",
        epilog="Exit codes: 0 done; 1 the new release was not healthy (the previous one runs again, where there was "
        "one); 2 wrong command line or configuration; 3 this machine: system, Python, libraries, disk.",
    )
    add = found.add_argument
    add("--dry-run", action="store_true", help="say every step and change nothing; needs no root")
    add("--wheelhouse", type=Path, metavar="DIR", help="take the libraries from this folder (scripts/wheelhouse)")
    add("--config", type=Path, metavar="FILE", help="the configuration, where there is none yet")
    add("--api-key", type=Path, metavar="FILE", help="a file with CypherFace's API key")
    add("--pack", metavar="NAME", help="fetch this model pack, too")
    add("--pack-from", type=Path, metavar="PATH", help="look for its files here first")
    add("--board", choices=("auto", *machine.BOARDS), default="auto", help="whose device lines; default: by itself")
    add("--no-start", action="store_true", help="install and enable, do not start")
    add("--health-timeout", type=float, default=120.0, metavar="S", help="so long it has to get well (default: 120)")
    add("--force", action="store_true", help="also on a system that this was not tried on")
    add("--root", type=Path, default=SYSTEM, metavar="DIR", help="into a folder: no user, no service, nothing started")
    add("--uninstall", action="store_true", help="stop it and remove everything that was installed")
    add("--keep-data", action="store_true", help="with --uninstall: keep configuration, keys, state, and the user")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; errors are told on stderr."""
    options = parser().parse_args(arguments)
    os.umask(0o022)  # the service's user must be able to read what root installs
    try:
        _refuse_contradictions(options)
        hands = Hands(dry=options.dry_run)
        if options.dry_run:
            hands.say("dry run: nothing is changed")
        with _alone(options):
            _uninstall(options, hands) if options.uninstall else _install(options, hands)
    except CannotInstall as exc:
        print(f"install: {exc.message}", file=sys.stderr)
        if exc.hint:
            print(f"  try: {exc.hint}", file=sys.stderr)
        return exc.exit_code
    except OSError as exc:
        print(f"install: cannot go on: {exc}", file=sys.stderr)
        return ENVIRONMENT
    return 0


def _refuse_contradictions(options: argparse.Namespace) -> None:
    if options.keep_data and not options.uninstall:
        raise CannotInstall("cannot use --keep-data without --uninstall", exit_code=USAGE)
    if options.pack_from and not options.pack:
        raise CannotInstall("cannot use --pack-from without --pack", exit_code=USAGE)
    for path in (options.wheelhouse, options.pack_from):
        if path is not None and not path.exists():
            raise CannotInstall(f"cannot use {path}: there is no such folder", exit_code=USAGE)
    if options.root == SYSTEM and os.geteuid() != 0 and not options.dry_run:
        raise CannotInstall("cannot install: only root may", hint="sudo scripts/install …", exit_code=USAGE)


@contextmanager
def _alone(options: argparse.Namespace) -> Iterator[None]:
    """One installer at a time; the kernel lets go when the process ends. Raises CannotInstall."""
    if options.dry_run:
        yield
        return
    options.root.mkdir(parents=True, exist_ok=True)
    # a folder that is there anyway is locked: no file is left behind
    descriptor = os.open(options.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as exc:
        raise CannotInstall("cannot install: another installation is under way", hint="wait for its end") from exc
    finally:
        os.close(descriptor)


def _services(options: argparse.Namespace, hands: Hands, places: Places) -> Services:
    return Systemd(hands, places) if options.root == SYSTEM else NoServices()


def _install(options: argparse.Namespace, hands: Hands) -> None:
    places, found = Places(options.root.absolute()), machine.look()
    if options.root == SYSTEM:
        for reason in machine.accept(found, force=options.force):
            hands.say(f"--force: although {reason}")
    hands.say(f"{found.name}, {found.architecture}{f', {found.model}' if found.model else ''}")
    order = Order(
        sources=Sources(Path(__file__).resolve().parents[2]),
        places=places,
        board=found.board if options.board == "auto" else options.board,
        wheelhouse=options.wheelhouse and options.wheelhouse.absolute(),
        config=options.config,
        api_key=options.api_key,
        pack=options.pack,
        pack_from=options.pack_from,
        starts=options.root == SYSTEM and not options.no_start,
        health_s=options.health_timeout,
    )
    doctor = health.Doctor(partial(health.look, places.socket))
    Installation(order, hands, _services(options, hands, places), doctor).run()


def _uninstall(options: argparse.Namespace, hands: Hands) -> None:
    places = Places(options.root.absolute())
    Removal(places, hands, _services(options, hands, places)).run(keep_data=options.keep_data)


if __name__ == "__main__":
    sys.exit(main())
