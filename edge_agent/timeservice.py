"""Whether a time service keeps the wall clock right, asked of systemd: ``ProtectClock=`` hides the kernel's own word.

timedate1 reads that same word for us, whoever keeps the time (timesyncd, chrony, ntpd). It is asked through ``busctl``
as a child of the event loop, so that neither the loop nor the store's thread waits; both read the last answer. D-Bus
starts timedated for each question and writes that to the journal, hence the long pauses.
"""

from __future__ import annotations

import asyncio
import logging
import os
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

TIMEDATE1 = "org.freedesktop.timedate1"
QUESTION = ("busctl", "get-property", TIMEDATE1, "/org/freedesktop/timedate1", TIMEDATE1, "NTPSynchronized")
ANSWERS = {"b true": True, "b false": False}
"""As busctl prints a boolean."""
ASK_S = 60.0
"""Ten times what it takes on a slow board that has to start timedated; then the child is killed."""
FIRST_PAUSE_S = 60.0
"""After a "no" the question comes again, each time after twice as long."""
LONGEST_PAUSE_S = 960.0
SURE_S = 3600.0
"""A "yes" holds so long: the kernel itself takes it back no sooner than some nine hours after the last correction."""

Ask = Callable[[], Awaitable[str]]
"""What busctl printed. Raises OSError when it cannot be started, TimeoutError when it does not end."""


async def ask_systemd() -> str:
    """Run busctl, with nothing of our environment but where programs are: it holds the service manager's socket."""
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    child = await asyncio.create_subprocess_exec(*QUESTION, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(ASK_S):
            output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return output.decode(errors="replace").strip()


class TimeService:
    """``watch`` as a loop of the agent; ``told`` from any thread, at once."""

    def __init__(self, ask: Ask = ask_systemd, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._ask = ask
        self._sleep = sleep
        self._answer: bool | None = None
        self._problem: str | None = None

    def told(self) -> bool | None:
        """The last answer; None while there is none."""
        return self._answer

    async def watch(self) -> None:
        """Ask for ever, seldom."""
        doubt_s = FIRST_PAUSE_S
        while True:
            self._answer = await self._asked()
            if self._answer:
                doubt_s = FIRST_PAUSE_S
            await self._sleep(SURE_S if self._answer else doubt_s)
            if not self._answer:
                doubt_s = min(2 * doubt_s, LONGEST_PAUSE_S)

    async def _asked(self) -> bool | None:
        try:
            said = await self._ask()
        except TimeoutError:
            said = f"no answer within {ASK_S:.0f} s"
        except OSError as exc:
            said = f"{QUESTION[0]}: {exc.strerror or exc}"
        self._note(None if said in ANSWERS else said or "an empty answer")
        return ANSWERS.get(said)

    def _note(self, problem: str | None) -> None:
        """Say it once, not with every question."""
        if problem is not None and problem != self._problem:
            log.warning("systemd does not tell whether the clock is synchronised: %s", problem)
        self._problem = problem
