"""The way to CypherFace: its name, its certificate, its answer, our credentials, and the hosts of the pictures."""

from __future__ import annotations

import asyncio
import ssl
from datetime import datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from edge_agent.config import LOOPBACK_HOSTS, Config, CypherFaceSection
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.cypherface.exchange import tls_context
from edge_agent.cypherface.probe import Look, look
from edge_agent.doctor import probes
from edge_agent.doctor.clock import skew
from edge_agent.doctor.finding import Finding, Limits, Status, failed, measured, passed, unknown, warned, worst
from edge_agent.doctor.sources import Case
from edge_agent.errors import ConfigurationError, CypherFaceError, Transient

CONNECT_S = 10.0
LATENCY = Limits(warn=1000.0, fail=5000.0, unit="ms")
"""A verdict needs some four exchanges, and the customer waits."""
EXPIRY = Limits(warn=14.0, fail=0.0, unit="days", least=True)
CHECK_DNS = "resolvectl status; is the cable in, has the terminal an address (ip -brief address)?"
_CHECK_NET = "ip route; is a proxy or firewall in the way? docs/cypherface.md lists the hosts that must be open"
_CHECK_TLS = "check the date; whoever inspects TLS here: name its authority in cypherface.ca_bundle"


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def dns(case: Case) -> list[Finding]:
    id_ = "network.dns"
    if case.config is None:
        return case.without_config(id_)
    host, port = _host_and_port(case.config.cypherface.base_url)
    if _is_address(host):
        return [passed(id_, f"{host} is an address: there is no name to look up", host)]
    try:
        found = case.sources.resolve(host, port)
    except OSError as exc:
        return [failed(id_, f"cannot resolve {host}: {exc.strerror or exc}", CHECK_DNS)]
    return [passed(id_, f"{host} is {', '.join(found[:3])}", host)]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


# -- the certificate --------------------------------------------------------------------------------------------------


def tls(case: Case) -> list[Finding]:
    ids = ("network.tls", "network.tls_expiry")
    if case.config is None:
        return case.without_config(*ids)
    service = case.config.cypherface
    if service.base_url.startswith("http://"):
        return [unknown(id_, "cypherface.base_url is plain http on this machine: there is no TLS") for id_ in ids]
    host, port = _host_and_port(service.base_url)
    try:
        shaken = probes.handshake(host, port, tls_context(service), CONNECT_S)
    except ConfigurationError as exc:
        mend = exc.hint or "docs/configuration.md"
        return [failed("network.tls", exc.message, mend), unknown("network.tls_expiry", "see network.tls")]
    except ssl.SSLError as exc:
        why = f"{host} speaks no TLS that is understood here: {exc.reason or exc.strerror}"
        return [failed("network.tls", why, _CHECK_TLS), unknown("network.tls_expiry", "see network.tls")]
    except OSError as exc:
        return [unknown(id_, f"cannot connect to {host}: {exc.strerror or exc}") for id_ in ids]
    return [_trust(host, shaken), _expiry(host, shaken, case.sources.clock.wall())]


def _trust(host: str, shaken: probes.Handshake) -> Finding:
    id_ = "network.tls"
    if shaken.expired:
        return unknown(id_, "the certificate has expired: nobody looked at its issuer (network.tls_expiry)")
    if shaken.problem is not None:
        return failed(id_, f"the certificate of {host} is not trusted: {shaken.problem}", _CHECK_TLS)
    return passed(id_, f"the certificate of {host} is trusted")


def _expiry(host: str, shaken: probes.Handshake, now: datetime) -> Finding:
    id_ = "network.tls_expiry"
    mend = "is this terminal's date right (date)? Then tell CypherFace, or who runs the proxy with this certificate"
    if shaken.not_after is None:
        why = f"the certificate of {host} could not be read"
        return failed(id_, f"{why}: {shaken.problem}", mend) if shaken.expired else unknown(id_, why)
    days = (shaken.not_after - now).total_seconds() / 86400.0
    if shaken.expired and days >= 0:
        return failed(id_, f"{shaken.problem} (one of the issuers')", mend, days, limit=EXPIRY.fail, unit="days")
    ends = f"{shaken.not_after:%Y-%m-%d}"
    return measured(id_, days, EXPIRY, f"the certificate of {host} {'ended' if days < 0 else 'ends'} on {ends}", mend)


# -- the service ------------------------------------------------------------------------------------------------------


def reach(case: Case) -> list[Finding]:
    """One request without credentials: whether it answers, how soon, and what time it is there."""
    ids = ("api.reach", "api.latency", "clock.skew")
    if case.config is None:
        return case.without_config(*ids)
    service = case.config.cypherface
    limit_s = service.timeouts.connect_s + CONNECT_S
    host, _ = _host_and_port(service.base_url)
    try:
        sources = case.sources
        seen = asyncio.run(look(service, limit_s=limit_s, transport=sources.transport, clock=sources.stopwatch))
    except (Transient, ConfigurationError) as exc:
        return [_unreached(host, exc), *(unknown(id_, "CypherFace did not answer: see api.reach") for id_ in ids[1:])]
    mend = "measure the line (ping, mtr): a mobile link in a cellar needs another antenna"
    return [
        _answered(host, seen),
        measured("api.latency", seen.latency_ms, LATENCY, f"the first answer took {seen.latency_ms:.0f} ms", mend),
        skew(seen, case.sources.clock.wall()),
    ]


def _unreached(host: str, error: Transient | ConfigurationError) -> Finding:
    if isinstance(error, ConfigurationError) or error.code == "tls":
        return unknown("api.reach", "there is no secure connection: see network.tls")
    return failed("api.reach", f"{host}: {error.message}", _CHECK_NET)


def _answered(host: str, seen: Look) -> Finding:
    if seen.status >= 500:
        return warned(
            "api.reach", f"{host} answers {seen.status}", "wait; the queue keeps everything meanwhile", seen.status
        )
    return passed("api.reach", f"{host} answers", seen.status)


def token(case: Case) -> list[Finding]:
    """Ask for an access token and throw it away. The agent's own stays as it is."""
    id_ = "api.token"
    if case.config is None:
        return case.without_config(id_)
    try:
        asyncio.run(_issue(case.config.cypherface, case.sources.transport))
    except CypherFaceError as exc:
        return [_refused(id_, exc, case)]
    return [passed(id_, "CypherFace takes merchant id and API key")]


async def _issue(service: CypherFaceSection, transport: httpx.AsyncBaseTransport | None) -> None:
    async with CypherFaceClient(service, transport=transport) as client:
        await client.issue()


def _refused(id_: str, error: CypherFaceError, case: Case) -> Finding:
    if error.code.startswith("secret_"):
        online = ((case.status or {}).get("network") or {}).get("state") == "online"
        if online:
            return passed(id_, "the agent forwards with them; this user cannot read the API key")
        return unknown(id_, "the API key cannot be read: see credentials.api_key")
    if isinstance(error, Transient) and error.code not in {"captive_portal", "bad_answer"}:
        return unknown(id_, f"CypherFace could not be asked: {error.message}")
    return failed(id_, error.message, error.hint or "check cypherface.merchant_id and the API key")


# -- the hosts of the pictures ----------------------------------------------------------------------------------------


def upload_hosts(case: Case) -> list[Finding]:
    id_ = "upload.hosts"
    if case.config is None:
        return case.without_config(id_)
    found = [_upload_host(host, case.config, case) for host in case.config.cypherface.upload_hosts]
    status = worst(found)
    detail = "; ".join(finding.detail for finding in found)
    good = sum(finding.status is Status.PASS for finding in found)
    mend = next((finding.mend for finding in found if finding.status is Status.FAIL), None)
    return [Finding(id_, status, detail, good, len(found), "hosts", mend)]


def _upload_host(entry: str, config: Config, case: Case) -> Finding:
    """``entry``: as in cypherface.upload_hosts."""
    id_ = "upload.hosts"
    if entry.startswith("*."):
        return unknown(id_, f"{entry} names no host that could be asked")
    host, port = _host_and_port(f"https://{entry}")
    plain = host in LOOPBACK_HOSTS and config.cypherface.base_url.startswith("http://")
    try:
        case.sources.resolve(host, port)
        if plain:
            probes.connect(host, port, CONNECT_S)
            return passed(id_, f"{entry} takes connections")
        shaken = probes.handshake(host, port, tls_context(config.cypherface), CONNECT_S)
    except ConfigurationError:
        return unknown(id_, f"{entry}: cypherface.ca_bundle cannot be used")
    except OSError as exc:  # of ssl too
        return failed(id_, f"{entry}: {exc.strerror or exc}", _CHECK_NET)
    if shaken.problem is not None:
        return failed(id_, f"{entry}: its certificate is not trusted: {shaken.problem}", _CHECK_TLS)
    return passed(id_, f"{entry} is trusted")
