"""The board: memory, heat, power. What a board does not tell is ``unknown``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edge_agent.doctor.finding import Finding, Limits, failed, measured, passed, unknown, warned
from edge_agent.doctor.sources import Case, text_of

MEMORY = Limits(warn=192.0, fail=64.0, unit="MB", least=True)
"""The pack `open` needs about 200 MB to load."""
TEMPERATURE = Limits(warn=75.0, fail=85.0, unit="°C")
"""A Raspberry Pi slows down from 80 °C on and is at its end at 85 °C; a Jetson's limits are higher."""
VCGENCMD = ("vcgencmd", "get_throttled")
PROGRAM_S = 5.0

# vcgencmd get_throttled: the bits of now, and 16 higher those since the boot
_UNDERVOLTAGE = 1 << 0
_SLOWED = 1 << 1 | 1 << 2 | 1 << 3
_SINCE_BOOT = 16

_SUPPLY = "use the board's own power supply and a short, thick cable; take hungry USB devices off"
_COOLING = "let air to the board: a heat sink, a fan, out of the sun; then: edge-agent doctor --only temperature"


def memory(case: Case) -> list[Finding]:
    text = text_of(case.sources.proc / "meminfo") or ""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        return [unknown("memory.available", "the kernel does not tell (MemAvailable in /proc/meminfo)")]
    available_mb = int(found[1]) / 1000.0
    mend = "see what takes it: ps aux --sort=-rss | head; then: systemctl restart edge-agent"
    return [measured("memory.available", available_mb, MEMORY, f"{available_mb:.0f} MB can still be used", mend)]


def temperature(case: Case) -> list[Finding]:
    zones = list(_zones(case.sources.sys))
    if not zones:
        return [unknown("temperature.board", "this machine has no sensor that the kernel knows")]
    degrees, name = max(zones)
    return [measured("temperature.board", degrees, TEMPERATURE, f"{degrees:.0f} °C ({name})", _COOLING)]


def _zones(sys: Path) -> Iterator[tuple[float, str]]:
    """Degrees and name; a sensor that is switched off tells nonsense or nothing."""
    for zone in sorted(sys.glob("class/thermal/thermal_zone*")):
        text = text_of(zone / "temp")
        if text is not None and re.fullmatch(r"-?\d+", text) and -40_000 <= int(text) <= 150_000:
            yield int(text) / 1000.0, text_of(zone / "type") or zone.name


def power(case: Case) -> list[Finding]:
    flags = _throttled(case)
    if flags is not None:
        return [_pi_voltage(flags), _pi_speed(flags)]
    return [_voltage(case.sources.sys), _speed(case.sources.sys)]


def _throttled(case: Case) -> int | None:
    """The firmware's word; None where there is no vcgencmd, or it may not ask."""
    try:
        said = case.sources.run(VCGENCMD, PROGRAM_S)
    except OSError:
        return None
    found = re.search(r"throttled=0x([0-9a-fA-F]+)", said)
    return int(found[1], 16) if found else None


def _pi_voltage(flags: int) -> Finding:
    id_, said = "power.undervoltage", f"0x{flags:x}"
    if flags & _UNDERVOLTAGE:
        return failed(id_, "the voltage is too low now", _SUPPLY, said, limit="0x0")
    if flags >> _SINCE_BOOT & _UNDERVOLTAGE:
        return warned(id_, "the voltage was too low since the boot", _SUPPLY, said, limit="0x0")
    return passed(id_, "the voltage was high enough since the boot", said, limit="0x0")


def _pi_speed(flags: int) -> Finding:
    id_, said = "power.throttling", f"0x{flags:x}"
    if flags & _SLOWED:
        return warned(id_, "the firmware slows the processor down now", _COOLING, said, limit="0x0")
    if flags >> _SINCE_BOOT & _SLOWED:
        return warned(id_, "the firmware slowed the processor down since the boot", _COOLING, said, limit="0x0")
    return passed(id_, "the processor was not slowed down since the boot", said, limit="0x0")


def _voltage(sys: Path) -> Finding:
    """hwmon: the Pi's own driver without vcgencmd, and a Jetson's counters of its over-current alarms."""
    id_ = "power.undervoltage"
    events = [(path, text_of(path)) for path in sorted(sys.glob("class/hwmon/hwmon*/oc*_event_cnt"))]
    events += [
        (alarm, text_of(alarm))
        for alarm in sorted(sys.glob("class/hwmon/hwmon*/in0_lcrit_alarm"))
        if text_of(alarm.parent / "name") == "rpi_volt"
    ]
    counts = {path.name: int(text) for path, text in events if text is not None and text.isdigit()}
    if not counts:
        return unknown(id_, "this board has no sensor for it that the kernel knows (no vcgencmd, no hwmon alarm)")
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    if any(counts.values()):
        return warned(
            id_, f"the supply was at its limit since the boot ({told})", _SUPPLY, max(counts.values()), limit=0
        )
    return passed(id_, f"no alarm since the boot ({told})", 0, limit=0)


def _speed(sys: Path) -> Finding:
    """The kernel's cooling devices that slow a processor down."""
    id_ = "power.throttling"
    coolers = {
        device.name: int(state)
        for device in sorted(sys.glob("class/thermal/cooling_device*"))
        if re.search(r"cpu|processor", text_of(device / "type") or "", re.IGNORECASE)
        and (state := text_of(device / "cur_state") or "").isdigit()
    }
    if not coolers:
        return unknown(id_, "the kernel does not tell here (no vcgencmd, no cooling device of a processor)")
    slowed = max(coolers.values())
    if slowed:
        return warned(id_, "the kernel slows the processor down, for its heat", _COOLING, slowed, limit=0)
    return passed(id_, "the kernel does not slow the processor down", 0, limit=0)
