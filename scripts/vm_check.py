"""What ``scripts/vm-check`` does inside the machine, as root, with the system's Python and nothing else.

Each step is a function that prints what it saw and raises AssertionError when that is not what was promised. A later
step needs the earlier ones, but runs all the same: one run shows everything that is wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SHARE = Path("/mnt/share")
CHECKOUT = SHARE / "checkout"
WORK = Path("/var/tmp/vm-check")
UNIT = "edge-agent.service"
PROGRAM = "/opt/edge-agent/current/bin/edge-agent"
MODELS = "/var/lib/edge-agent/models"
CONFIG = Path("/etc/edge-agent/config.yaml")
SCENE = Path("/var/lib/edge-agent/scene.jpg")
SANDBOX_KEY = "5a9db0c0-ffee-4000-8000-5a9db0c0ffee"
VIVID = Path("/sys/bus/platform/drivers/vivid")
CAMERA = Path("/dev/video0")
TIMESYNC_FLAG = Path("/run/systemd/timesync/synchronized")
CUSTOMER, SOURCE, SOMEBODY_ELSE = "frame_1280x720_obama.jpg", "id_obama_1.jpg", "id_clooney_1.jpg"
"""What the camera shows, what was enrolled, and what the camera shows the second time."""
PATIENCE_S = 300.0
"""Emulation is 20 times slower than a machine, and others may share the host."""

CAMERAS = {
    "v4l2": "{source: v4l2, device: /dev/video0, size: [640, 480], fps: 5, stale_after_s: 300}",
    "replay": f"{{source: replay, path: {SCENE}, size: [1280, 720], fps: 5, stale_after_s: 300}}",
}


def configuration(camera: str) -> str:
    """Every clock of a session is stretched, and three frames vote, not five: one takes more than a minute to judge.

    The limits of the gate are those of a kiosk.
    """
    return f"""
terminal_id: vm-check
camera: {CAMERAS[camera]}
models: {{pack: scrfd-minifas, threads: 2}}
gate: {{max_track_gap_s: 300}}
session: {{search_timeout_s: 600, verdict_timeout_s: 600, liveness_frames: 3, capture_window_s: 5, result_valid_s: 3600}}
cypherface:
  base_url: http://127.0.0.1:8799/
  merchant_id: 5a9db0c0ffee5a9db0c0ffee
  api_key: {{credential: cypherface-api-key}}
  upload_hosts: ["127.0.0.1:8799"]
  timeouts: {{connect_s: 60, request_s: 300}}
"""


class Skipped(Exception):
    """The step cannot be tried here, and why."""


# -- hands ------------------------------------------------------------------------------------------------------------


def run(*command: object, expect: int | None = 0, timeout_s: float = 1800.0) -> str:
    """Stdout and stderr of a command that must end with ``expect`` (None: anyhow)."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout_s, check=False)
    output = done.stdout + done.stderr
    if expect is not None:
        assert done.returncode == expect, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{output}"
    return output


def show(text: str) -> None:
    """Lines of the transcript."""
    for line in text.strip().splitlines():
        print(f"    {line}")


def wait_for(what: str, probe: Callable[[], object], timeout_s: float = PATIENCE_S) -> float:
    """Seconds until ``probe`` gave something true."""
    began_s = time.monotonic()
    while not probe():
        assert time.monotonic() - began_s < timeout_s, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.5)
    return time.monotonic() - began_s


def prop(name: str, unit: str = UNIT) -> str:
    return run("systemctl", "show", "--value", f"--property={name}", unit).strip()


def main_pid() -> int:
    return int(prop("MainPID"))


def active() -> bool:
    return (prop("ActiveState"), prop("SubState")) == ("active", "running")


class OverSocket(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect("/run/edge-agent/api.sock")


def call(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the terminal API."""
    connection = OverSocket("edge-agent")
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else {}
    finally:
        connection.close()


def start_verification(user: str) -> str:
    """The id; the answer comes at once."""
    body = json.dumps({"user_id": user}).encode()
    key = f"vm-{time.monotonic_ns()}"
    status, record = call("POST", "/v1/verifications", body, Idempotency_Key=key, Content_Type="application/json")
    assert status == 201, record
    return str(record["id"])


def outcome(verification: str, timeout_s: float = 900.0) -> dict[str, Any]:
    """The record once it no longer works."""
    record: dict[str, Any] = {}

    def ended() -> bool:
        record.update(call("GET", f"/v1/verifications/{verification}")[1])
        return record["state"] not in {"searching", "captured", "matching"}

    seconds = wait_for("an outcome", ended, timeout_s)
    error = (record["error"] or {}).get("code")
    kept = {name: record[name] for name in ("state", "approved", "reasons", "similarity", "attempts")}
    show(f"after {seconds:.0f} s: {json.dumps({**kept, 'error': error})}")
    return record


def judged() -> int:
    """Frames that were looked at since the start of the service."""
    return sum(call("GET", "/v1/status")[1]["frames"].values())


def ready() -> bool:
    with contextlib.suppress(OSError, ValueError):
        return call("GET", "/v1/ready")[0] == 200
    return False


def configure(camera: str) -> None:
    """Another camera, and a restart; returns when it is ready."""
    CONFIG.write_text(configuration(camera))
    run("systemctl", "restart", UNIT, timeout_s=PATIENCE_S)
    wait_for("ready", ready)


@contextlib.contextmanager
def sandbox() -> Iterator[None]:
    """The embedded CypherFace, with faces."""
    command = [PROGRAM, "sandbox", "--pack", "scrfd-minifas", "--models-dir", MODELS, "--api-key", SANDBOX_KEY]
    with (WORK / "sandbox.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            show(f"sandbox: {process.stdout.readline()}")
            yield
        finally:
            process.terminate()
            process.wait(60)


# -- steps ------------------------------------------------------------------------------------------------------------


def before() -> None:
    """What there is before anything is installed."""
    show(run("uname", "-srm") + run("systemctl", "--version").splitlines()[0])
    (WORK / "before.json").write_text(json.dumps(sorted(everything())))
    show(run(CHECKOUT / "scripts/install", "--dry-run", "--wheelhouse", SHARE / "wheels"))
    assert set(everything()) == set(json.loads((WORK / "before.json").read_text())), "the dry run changed something"


def install() -> None:
    """From the wheelhouse, without a network."""
    (WORK / "config.yaml").write_text(configuration("v4l2"))
    (WORK / "api-key").write_text(SANDBOX_KEY)
    began_s = time.monotonic()
    command = [CHECKOUT / "scripts/install", "--wheelhouse", SHARE / "wheels", "--config", WORK / "config.yaml",
               "--api-key", WORK / "api-key", "--pack", "scrfd-minifas", "--pack-from", SHARE / "assets/models",
               "--health-timeout", PATIENCE_S]  # fmt: skip
    show(run(*command))
    show(f"took {time.monotonic() - began_s:.0f} s")
    again = run(*command)
    show(again)
    changes = [line for line in again.splitlines() if re.match(r"  (write|copy|make|remove|link) ", line)]
    assert changes == [], "the second time changed something"


def hardened() -> None:
    """It is active (running), and the hardening is in force in the kernel, not only in the unit."""
    wait_for("active", active)
    show(run("systemctl", "status", "--no-pager", "--lines=3", UNIT))
    show(run("systemd-analyze", "security", "--no-pager", UNIT).splitlines()[-1])
    pid = main_pid()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    kernel = {name: status[name].strip() for name in ("NoNewPrivs", "Seccomp", "CapEff", "CapBnd", "Uid")}
    show(json.dumps(kernel))
    assert (kernel["NoNewPrivs"], kernel["Seccomp"], int(kernel["CapEff"], 16)) == ("1", "2", 0)
    assert "0" not in kernel["Uid"].split()
    root = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if line.split()[4] == "/"]
    show(" ".join(root[-1]))
    assert "ro" in root[-1][5].split(",")
    exposure = run("systemd-analyze", "security", "--threshold=16", UNIT).splitlines()[-1]
    assert "Overall exposure" in exposure


def frames() -> None:
    """Frames from the V4L2 device, judged by the models, under the hardening."""
    wait_for("ready", ready)
    seen, verification = judged(), start_verification("nobody")
    seconds = wait_for("five judged frames", lambda: judged() >= seen + 5)
    held = {str(link.readlink()) for link in Path(f"/proc/{main_pid()}/fd").iterdir() if link.is_symlink()}
    show(f"5 frames judged after {seconds:.1f} s; open: {sorted(f for f in held if f.startswith('/dev/video'))}")
    assert str(CAMERA) in held
    status, record = call("DELETE", f"/v1/verifications/{verification}")
    show(f"cancelled: {status} {record['state']}")


def clock() -> None:
    """Under the hardening only systemd knows whether the clock is right: not without a network, then as corrected."""
    configure("v4l2")  # the longer a process hears "no", the more seldom it asks
    assert not TIMESYNC_FLAG.exists(), "that file would have answered"
    assert not clock_synchronised()
    correct_the_clock()
    show(run("timedatectl", "show", "--property=NTPSynchronized"))
    seconds = wait_for("the agent knows that the clock is right", clock_synchronised)
    assert not TIMESYNC_FLAG.exists(), "that file would have answered"
    show(f"not synchronised; then as a time service corrects it: the agent's records say so after {seconds:.0f} s")


def clock_synchronised() -> bool:
    """What a new verification's record says."""
    status, record = call("DELETE", f"/v1/verifications/{start_verification('nobody')}")
    assert status == 200, record
    return bool(record["clock_synchronised"])


def correct_the_clock() -> None:
    """What a time service does at the end: tell the kernel by adjtimex(2) that the error is small."""
    status, error_us = 0x0010, 0x0004 | 0x0008  # ADJ_STATUS; ADJ_MAXERROR | ADJ_ESTERROR
    # modes, offset, freq, maxerror, esterror, status (STA_UNSYNC is not set): the beginning of struct timex
    values = struct.pack("@Illlli", status | error_us, 0, 0, 1000, 1000, 0)
    timex = ctypes.create_string_buffer(values, 1024)
    assert ctypes.CDLL(None).adjtimex(timex) != 5, "the kernel still says TIME_ERROR"


def verification() -> None:
    """Enrol, verify the right person, then somebody else, against the embedded sandbox."""
    shutil.copy(SHARE / "assets" / CUSTOMER, SCENE)
    configure("replay")
    with sandbox():
        picture = (SHARE / "assets" / SOURCE).read_bytes()
        status, body = call("PUT", "/v1/users/customer-1/source", picture, Content_Type="image/jpeg")
        show(f"enrolled: {status} {body}")
        assert status < 300
        record = outcome(start_verification("customer-1"))
        assert (record["state"], record["approved"]) == ("verified", True)
        shutil.copy(SHARE / "assets" / SOMEBODY_ELSE, SCENE)
        record = outcome(start_verification("customer-1"))
        assert (record["state"], record["approved"]) == ("not_verified", False)


def watchdog() -> None:
    """A process that hangs (SIGSTOP) is replaced."""
    pid, restarts = main_pid(), int(prop("NRestarts"))
    os.kill(pid, signal.SIGSTOP)
    began_s = time.monotonic()
    wait_for("another process", lambda: active() and main_pid() not in {0, pid}, 600)
    show(f"stopped {pid}; {main_pid()} runs {time.monotonic() - began_s:.0f} s later")
    show("\n".join(line for line in run("journalctl", "--no-pager", "-o", "cat", "-u", UNIT, "-n", 40).splitlines()
                   if "atchdog" in line or "restart job" in line))  # fmt: skip
    assert int(prop("NRestarts")) == restarts + 1
    wait_for("ready", ready)


def config_roll_back() -> None:
    """A configuration that breaks the agent is taken back."""
    if "No such command" in run(PROGRAM, "config", "apply", "--help", expect=None):
        raise Skipped("this version has no `edge-agent config apply`")
    wait_for("ready", ready)
    good, pid = CONFIG.read_text(), main_pid()
    (WORK / "wrong.yaml").write_text(good.replace("terminal_id", "terminal_ld"))
    show(run(PROGRAM, "config", "apply", WORK / "wrong.yaml", expect=2))
    assert CONFIG.read_text() == good, "a file with a mistake was put in place"
    # well formed, but the models of that pack are not on this machine
    (WORK / "broken.yaml").write_text(good.replace("pack: scrfd-minifas", "pack: open"))
    show(run(PROGRAM, "config", "apply", "--watch-s", 120, WORK / "broken.yaml", expect=1, timeout_s=900))
    assert CONFIG.read_text() == good, "an unhealthy configuration stayed"
    wait_for("ready", ready)
    assert (active(), main_pid()) == (True, pid)


def camera_taken_away() -> None:
    """The driver lets go of the camera in a session: down the recovery ladder to a new process, and back."""
    configure("v4l2")
    pid, restarts = main_pid(), int(prop("NRestarts"))
    lose_the_camera()
    taken: dict[str, int] = {}
    seconds = wait_for("another process", lambda: noted(taken) and active() and main_pid() not in {0, pid}, 900)
    show(f"steps taken: {json.dumps(taken)}; {pid} ended by itself and {main_pid()} runs, {seconds:.0f} s later")
    show(said_of("camera"))
    assert min(taken["reopen"], taken["respawn"]) > 0, "the ladder was not climbed"
    assert int(prop("NRestarts")) == restarts + 1
    wait_for("it is missed again", lambda: camera_state() == "lost")
    (VIVID / "bind").write_text("vivid.0")
    wait_for("the camera", CAMERA.exists)
    seconds = wait_for("the camera is found", lambda: camera_state() == "ok")
    show(f"bound again; found after {seconds:.1f} s without a session; {prop('StatusText')}")
    seen, verification = judged(), start_when_possible()
    show(f"frames after {wait_for('frames', lambda: judged() > seen):.1f} s")
    call("DELETE", f"/v1/verifications/{verification}")


def lose_the_camera() -> None:
    """In the middle of a session, which fails and says why; the agent lives on."""
    seen, verification = judged(), start_verification("nobody")
    wait_for("frames", lambda: judged() > seen)
    (VIVID / "unbind").write_text("vivid.0")
    wait_for("no camera", lambda: not CAMERA.exists())
    show("unbound while searching")
    record = outcome(verification)
    assert (record["state"], record["error"]["code"]) == ("failed", "camera_unavailable")
    assert not ready(), "a lost camera is not told"
    wait_for("the status in words", lambda: "camera" in prop("StatusText"))
    show(prop("StatusText"))
    assert active()
    assert call("GET", "/v1/health")[0] == 200


def camera_state() -> str:
    """Empty while the agent does not answer: it may be restarting."""
    with contextlib.suppress(OSError, ValueError):
        return str(call("GET", "/v1/status")[1]["camera"]["state"])
    return ""


def noted(taken: dict[str, int]) -> bool:
    """Write down how often each step of the ladder was taken; a new process begins at none. Always true."""
    with contextlib.suppress(OSError, ValueError):
        steps = call("GET", "/v1/status")[1]["camera"]["steps_taken"]
        taken.update({step: max(times, taken.get(step, 0)) for step, times in steps.items()})
    return True


def said_of(word: str) -> str:
    """The service's lines in the journal with this word, of the last minutes."""
    lines = run("journalctl", "--no-pager", "-o", "cat", "-u", UNIT, "-n", 80).splitlines()
    return "\n".join(line for line in lines if word in line)


def start_when_possible() -> str:
    """A verification, as soon as the agent takes one again."""
    found: list[str] = []

    def started() -> bool:
        with contextlib.suppress(AssertionError):
            found.append(start_verification("nobody"))
        return bool(found)

    wait_for("a verification is taken", started)
    return found[0]


def maintenance() -> None:
    """The daily check, beside the running agent."""
    run("systemctl", "is-active", "edge-agent-maintenance.timer")
    show(run("systemctl", "list-timers", "--no-pager", "edge-agent-maintenance.timer").splitlines()[1])
    if "No such command" in run(PROGRAM, "audit", "verify", "--help", expect=None):
        raise Skipped("this version has no `edge-agent audit verify`; the timer is active")
    run("systemctl", "start", "edge-agent-maintenance.service", expect=None, timeout_s=900)
    show(run("journalctl", "--no-pager", "-o", "cat", "-u", "edge-agent-maintenance.service", "-n", 20))
    assert prop("Result", "edge-agent-maintenance.service") == "success"


def sources(version: str) -> Path:
    """A copy of the sources with another version."""
    copy = WORK / f"sources-{version}"
    shutil.copytree(CHECKOUT, copy)
    for name in ("pyproject.toml", "edge_agent/__init__.py"):
        file = copy / name
        file.write_text(
            re.sub(r'^(version|__version__) = ".*"$', rf'\1 = "{version}"', file.read_text(), flags=re.MULTILINE)
        )
    return copy


def running_version() -> str:
    return str(call("GET", "/v1/status")[1]["version"])


def releases() -> list[str]:
    return sorted(path.name for path in Path("/opt/edge-agent/releases").iterdir())


def upgrade() -> None:
    """A newer release beside the old one."""
    show(run(sources("9.0.1") / "scripts/install", "--wheelhouse", SHARE / "wheels", "--health-timeout", PATIENCE_S))
    show(f"runs {running_version()}; there are {releases()}")
    assert running_version() == "9.0.1"
    assert len(releases()) == 2


def upgrade_roll_back() -> None:
    """A release whose daemon ends at once: the previous one runs again."""
    broken, there = sources("9.0.2"), releases()
    daemon = broken / "edge_agent/cli/run.py"
    begins = "    config, source = begin("
    assert begins in daemon.read_text(), f"{daemon} begins otherwise: this step would break nothing"
    daemon.write_text(daemon.read_text().replace(begins, f"    raise SystemExit(9)\n{begins}"))
    show(run(broken / "scripts/install", "--wheelhouse", SHARE / "wheels", "--health-timeout", 120, expect=1))
    wait_for("active", active)
    show(f"runs {running_version()}; there are {releases()}")
    assert (running_version(), releases()) == ("9.0.1", there)


def uninstall() -> None:
    """Nothing is left but what the journal holds."""
    show(run("/opt/edge-agent/current/scripts/install", "--uninstall"))
    earlier = set(json.loads((WORK / "before.json").read_text()))
    left = sorted(set(everything()) - earlier)
    show(f"paths that were not there before: {left}")
    assert left == []
    assert run("getent", "passwd", "edge-agent", expect=None) == ""
    assert run("getent", "group", "edge-agent", expect=None) == ""
    units = run("systemctl", "list-units", "--all", "--no-legend", "edge-agent*")
    assert units.strip() == "", units


JOURNAL = ("/var/log", "/run/log")
NOT_OURS = (
    "/proc",
    "/sys",
    "/dev",
    "/mnt",
    "/tmp",
    "/var/tmp",
    "/run/systemd",
    "/run/udev",
    "/run/user",
    "/run/credentials",
    *JOURNAL,
)
BACKUPS = re.compile(r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-|/etc/\.pwd\.lock")
"""What the system's own tools for users keep of the state before."""


def everything() -> Iterator[str]:
    """List every path of the machine but those that the kernel, systemd and this check make."""
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if not str(Path(folder, name)).startswith(NOT_OURS)]
        found = (str(Path(folder, name)) for name in (*folders, *names))
        yield from (path for path in found if not BACKUPS.fullmatch(path))
    users = Path("/etc/passwd").read_text().splitlines() + Path("/etc/group").read_text().splitlines()
    yield from (f"user or group {line}" for line in users)


STEPS = (before, install, hardened, frames, clock, verification, watchdog, config_roll_back, camera_taken_away, maintenance,
         upgrade, upgrade_roll_back, uninstall)  # fmt: skip


def attempt(step: Callable[[], None]) -> str:
    """ok, skipped or FAILED."""
    name = step.__name__.replace("_", " ")
    print(f"== {name}: {(step.__doc__ or '').strip()}")
    try:
        step()
    except Skipped as reason:
        show(f"skipped: {reason}")
        return "skipped"
    except (AssertionError, OSError, subprocess.SubprocessError, KeyError, ValueError) as exc:
        show(f"FAILED: {type(exc).__name__}: {exc}")
        show(run("journalctl", "--no-pager", "-o", "short-monotonic", "-u", UNIT, "-n", 30, expect=None))
        return "FAILED"
    return "ok"


def main() -> int:
    """Exit code 0 when no step failed. Arguments name the steps; without any, all of them."""
    WORK.mkdir(exist_ok=True)
    results: list[tuple[str, str, float]] = []
    chosen = [step for step in STEPS if step.__name__ in sys.argv[1:]]
    for step in chosen or STEPS:
        began_s = time.monotonic()
        result = attempt(step)
        results.append((step.__name__.replace("_", " "), result, time.monotonic() - began_s))
        print(f"   -> {result}, {results[-1][2]:.0f} s")
    print("\n" + "\n".join(f"{name:<20} {result:<8} {seconds:6.0f} s" for name, result, seconds in results))
    return 1 if any(result == "FAILED" for _, result, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
