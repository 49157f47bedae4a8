"""Installing and upgrading: a release beside the old one, the link switched, and back again when it is not healthy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.installer import files
from scripts.installer.hands import Hands
from scripts.installer.health import Doctor, Health
from scripts.installer.places import SERVICE, UNITS, Places
from scripts.installer.refusal import UNHEALTHY, USAGE, CannotInstall
from scripts.installer.release import Release, Sources, existing, linked, make, prune, release_for
from scripts.installer.services import Services


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for."""

    sources: Sources
    places: Places
    board: str
    wheelhouse: Path | None = None
    config: Path | None = None
    api_key: Path | None = None
    pack: str | None = None
    pack_from: Path | None = None
    starts: bool = True
    health_s: float = 120.0
    """So long a new release has to get well."""


class Installation:
    """Runs once. Whatever fails before the link is switched leaves the running release as it was."""

    def __init__(self, order: Order, hands: Hands, services: Services, doctor: Doctor) -> None:
        self._order, self._hands, self._services, self._doctor = order, hands, services, doctor
        self._places = order.places

    def run(self) -> None:
        """Raises CannotInstall; exit code 1 of it: the new release was not healthy."""
        sources, places = self._order.sources, self._places
        previous, release = linked(places), release_for(places, sources)
        self._hands.say(f"edge-agent {sources.version} into {release.path}")
        if release.fingerprint() is None:
            make(self._hands, release, sources, self._order.wheelhouse)
        self._put_files()
        self._check_config(release)
        self._fetch_pack(release)
        waiting = list(self._waits_for())
        if waiting or not self._order.starts:
            self._put(release)
            self._services.enable()
            self._tell_what_is_missing(waiting)
            return
        self._activate(release, previous)

    # -- before anything that runs is touched --------------------------------------------------------------------------

    def _put_files(self) -> None:
        order, places, hands = self._order, self._places, self._hands
        systemd = order.sources.root / "systemd"
        files.put_users(hands, places, systemd)
        self._services.make_user()
        files.put_folders(hands, places)
        files.put_device_key(hands, places)
        files.put_api_key(hands, places, order.api_key)
        files.put_config(hands, places, order.config, self._example, self._services.group)

    @property
    def _example(self) -> Path:
        return self._order.sources.root / files.EXAMPLE

    def _check_config(self, release: Release) -> None:
        """With the new release: what it does not accept must not stop the old one."""
        command = (str(release.program), "config", "check", "--config", str(self._places.config))
        answer = self._hands.attempt(*command)
        if answer.code != 0:
            raise CannotInstall(
                f"cannot start edge-agent with {self._places.config}:{answer.tail}",
                hint="mend the file, then this again; whatever ran before still runs",
                exit_code=USAGE,
            )

    def _fetch_pack(self, release: Release) -> None:
        order = self._order
        if order.pack is None:
            return
        source = ["--from", str(order.pack_from)] if order.pack_from else []
        # as root, into a folder of the service: it only reads them, and every file is compared by hash at each start
        folder = self._places.state / "models"
        command = (str(release.program), "models", "fetch", order.pack, *source, "--dir", str(folder))
        failing = f"cannot fetch the model pack {order.pack}"
        self._hands.run(*command, failing=failing, hint="docs/models.md: sites without a network", timeout_s=3600.0)

    def _waits_for(self) -> Iterator[str]:
        """What a person has to bring before a start makes sense."""
        places, given = self._places, self._order
        if given.config is None and (not places.config.exists() or self._is_the_example()):
            yield f"edit {places.config}: it is the example"
        if given.api_key is None and not places.api_key.exists():
            yield f"put CypherFace's API key into {places.api_key} (mode 0600, root)"

    def _is_the_example(self) -> bool:
        """That of these sources, or of a release that was here before."""
        examples = [self._example, *(release.path / files.EXAMPLE for release in existing(self._places))]
        config = self._places.config.read_bytes()
        return any(example.exists() and config == example.read_bytes() for example in examples)

    def _tell_what_is_missing(self, waiting: list[str]) -> None:
        self._hands.say("installed, not started" + (": it waits for you to" if waiting else ""))
        for step in waiting:
            self._hands.say(f"  - {step}")
        self._hands.say(f"then: systemctl restart {SERVICE}, or scripts/install again")

    # -- the switch ----------------------------------------------------------------------------------------------------

    def _put(self, release: Release) -> bool:
        """Units and link of ``release``; True when something changed."""
        # in a dry run the release is not there yet, and its units are still those of the sources
        own = release.path / "systemd"
        source = own if own.is_dir() else self._order.sources.root / "systemd"
        switched = not self._places.current.is_symlink() or self._places.current.readlink() != self._link_to(release)
        changed = files.put_units(self._hands, self._places, source, self._order.board)
        self._hands.link(self._places.current, self._link_to(release))
        if changed:
            self._services.reload()
        return changed or switched

    def _link_to(self, release: Release) -> Path:
        return release.path.relative_to(self._places.opt)

    def _activate(self, release: Release, previous: Release | None) -> None:
        running = self._services.active()
        before = self._doctor.look() if running else None
        changed = self._put(release)
        self._services.enable()
        if running and not changed:
            self._hands.say(f"edge-agent {release.name} runs already, {before or 'but its API does not answer'}")
            return
        why = self._start(before)
        if why is not None:
            self._roll_back(release, previous, before, why)
        self._prune(release)
        self._hands.say(f"edge-agent {release.name} runs")

    def _start(self, before: Health | None) -> str | None:
        """Restart and wait; why it is not well."""
        why = self._services.restart()
        if why is not None or self._hands.dry:
            return why
        return self._doctor.wait(before, self._order.health_s)

    def _prune(self, release: Release) -> None:
        prune(self._hands, self._places, release)

    def _roll_back(self, release: Release, previous: Release | None, before: Health | None, why: str) -> None:
        """Always raises CannotInstall: what was asked for did not happen."""
        said = self._services.journal()
        hint = f"journalctl -u {SERVICE}"
        if previous is None or previous == release:
            raise CannotInstall(
                f"edge-agent {release.name} is installed and not healthy: {why}{said}", hint=hint, exit_code=UNHEALTHY
            )
        self._hands.say(f"{release.name} is not healthy: {why}; going back to {previous.name}")
        self._put(previous)
        still = self._start(before)
        self._hands.remove(release.path)
        outcome = f"{previous.name} runs again" if still is None else f"{previous.name} is not well either: {still}"
        raise CannotInstall(f"cannot upgrade to {release.name}: {why}; {outcome}{said}", hint=hint, exit_code=UNHEALTHY)


class Removal:
    """Takes everything away but what the journal holds."""

    def __init__(self, places: Places, hands: Hands, services: Services) -> None:
        self._places, self._hands, self._services = places, hands, services

    def run(self, *, keep_data: bool) -> None:
        """``keep_data``: configuration, keys and state stay, and the user, so that nobody else gets its number."""
        places, hands = self._places, self._hands
        self._services.take_away()
        for path in (*(places.units / unit for unit in UNITS), places.drop_ins, places.tmpfiles, places.timer_stamp):
            hands.remove(path)
        for path in (places.run, places.opt):
            hands.remove(path)
        if not keep_data:
            for path in (places.sysusers, places.etc, places.state):
                hands.remove(path)
        self._services.forget(user=not keep_data)
        hands.say(f"kept: {places.etc}, {places.state}" if keep_data else "nothing is left but what the journal holds")
