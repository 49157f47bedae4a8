"""Who may call, and as what: the configuration's users, groups and tokens, resolved to numbers and secrets."""

from __future__ import annotations

import grp
import hmac
import logging
import os
import pwd
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from edge_agent.api.peer import Credentials, Peer, Role
from edge_agent.config import GROUP_OF_THE_INSTALLATION, UNMAPPED_ID, ApiSection, SecretRef
from edge_agent.errors import AgentError, ConfigurationError
from edge_agent.moments import told
from edge_agent.types import JsonObject

log = logging.getLogger(__name__)

TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]{32,1024}=*")
"""What a bearer token may be made of (RFC 6750), and how long it must be not to be guessed."""
REFUSAL_LOG_S: Final = 60.0
"""Refusals of one kind are logged once in this time; the status counts them all."""
ROLES: Final[tuple[Role, ...]] = ("pos", "enrol", "admin")
EVERY_ROLE: Final[frozenset[Role]] = frozenset(ROLES)


@dataclass(frozen=True, slots=True)
class Grants:
    """Who has which roles. Immutable: a reload makes new ones."""

    users: Mapping[int, frozenset[Role]] = field(default_factory=dict)
    groups: Mapping[int, frozenset[Role]] = field(default_factory=dict)
    tokens: tuple[tuple[Role, bytes], ...] = field(default=(), repr=False)

    def roles_of(self, credentials: Credentials) -> frozenset[Role]:
        """All roles of a process: of its user and of its groups."""
        found = self.users.get(credentials.uid, frozenset())
        for gid in credentials.groups:
            found |= self.groups.get(gid, frozenset())
        return EVERY_ROLE if "admin" in found else found

    def by_token(self, given: bytes) -> Peer | None:
        """Whose token this is. Every token is compared, and each in constant time."""
        found: Peer | None = None
        for role, token in self.tokens:
            if hmac.compare_digest(token, given):
                found = Peer(f"token:{role}", EVERY_ROLE if role == "admin" else frozenset({role}))
        return found


class Access:
    """The grants in force, and a count of who was refused. Used from the event loop's thread, but for ``prepare``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Until ``take`` nobody but root and the daemon's own user is admitted."""
        self.grants = Grants(_own_users())
        self.refused: Counter[str] = Counter()
        self.fault: AgentError | None = None
        """Why not everybody whom the configuration names is admitted."""
        self._clock = clock
        self._logged_s: dict[str, float] = {}

    def prepare(self, api: ApiSection, *, strict: bool) -> Callable[[], None]:
        """Look up names and read tokens; what it returns puts them in force. May block: call it in a thread.

        strict: raises ConfigurationError (user_unknown, group_unknown, token_unusable, secret_*) when one of them
        cannot be had. Otherwise those are left out, and ``fault`` says why.
        """
        grants, problems = resolve(api)
        if problems and strict:
            raise problems[0]

        def take() -> None:
            self.grants = grants
            self.fault = problems[0] if problems else None

        return take

    def peer_of(self, credentials: Credentials) -> Peer | None:
        """The caller behind a Unix socket; None when it has no role."""
        roles = self.grants.roles_of(credentials)
        return Peer(credentials.caller, roles) if roles else None

    def refuse(self, code: str, detail: str) -> None:
        """Count a refusal, and log it now and then."""
        self.refused[code] += 1
        now_s = self._clock()
        if now_s - self._logged_s.get(code, -REFUSAL_LOG_S) >= REFUSAL_LOG_S:
            self._logged_s[code] = now_s
            times = self.refused[code]
            moment = told("access_refused", code=code, times=times)
            log.warning("refused: %s (%d times since the start)", detail, times, extra=moment)

    def describe(self) -> JsonObject:
        """For the status: what was refused since the start, by code."""
        return {"refused": dict(self.refused), "tokens": [role for role, _ in self.grants.tokens]}


def resolve(api: ApiSection) -> tuple[Grants, list[ConfigurationError]]:
    """The grants of a configuration, without what could not be resolved, and why not."""
    problems: list[ConfigurationError] = []
    users: dict[int, frozenset[Role]] = _own_users()
    groups: dict[int, frozenset[Role]] = {}
    for role in ROLES:
        members = getattr(api.roles, role)
        _grant(users, role, (_number(name, user_id, problems) for name in members.users))
        _grant(groups, role, (_number(name, group_id, problems) for name in members.groups))
    if api.socket_group is not None:
        optional = api.socket_group == GROUP_OF_THE_INSTALLATION  # whether it is missed is the socket's business
        _grant(groups, "pos", [_number(api.socket_group, group_id, [] if optional else problems)])
    return Grants(users, groups, _tokens(api, problems)), problems


def _own_users() -> dict[int, frozenset[Role]]:
    return {uid: EVERY_ROLE for uid in (0, os.geteuid()) if uid != UNMAPPED_ID}


def _grant(whom: dict[int, frozenset[Role]], role: Role, numbers: Iterable[int | None]) -> None:
    for number in numbers:
        if number is not None and number != UNMAPPED_ID:
            whom[number] = whom.get(number, frozenset()) | {role}


def _number(name: str | int, look_up: Callable[[str], int], problems: list[ConfigurationError]) -> int | None:
    if isinstance(name, int):
        return name
    try:
        return look_up(name)
    except ConfigurationError as exc:
        problems.append(exc)
        return None


def user_id(name: str) -> int:
    """Raises ConfigurationError user_unknown."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError as exc:
        raise _unknown("user", name) from exc


def group_id(name: str) -> int:
    """Raises ConfigurationError group_unknown."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as exc:
        raise _unknown("group", name) from exc


def _unknown(kind: str, name: str) -> ConfigurationError:
    return ConfigurationError(
        f"cannot admit the {kind} {name}: there is none of this name",
        code=f"{kind}_unknown",
        hint=f"check the section api of the configuration; list all with: getent {'passwd' if kind == 'user' else kind}",
    )


def _tokens(api: ApiSection, problems: list[ConfigurationError]) -> tuple[tuple[Role, bytes], ...]:
    references: tuple[tuple[Role, str, SecretRef | None], ...] = (
        ("pos", "token", api.token),
        ("enrol", "enrol_token", api.enrol_token),
        ("admin", "admin_token", api.admin_token),
    )
    found: dict[Role, bytes] = {}
    for role, key, reference in references:
        try:
            if reference is not None:
                found[role] = _token(key, reference, found)
        except ConfigurationError as exc:
            problems.append(exc)
    return tuple(found.items())


def _token(key: str, reference: SecretRef, others: Mapping[Role, bytes]) -> bytes:
    token = reference.read()
    if not TOKEN.fullmatch(token):
        why = "it must be 32-1024 characters of A-Z a-z 0-9 . _ ~ + / -"
    elif token in others.values():
        why = "another role has the same one"
    else:
        return token
    raise ConfigurationError(
        f"cannot use api.{key} ({reference}): {why}", code="token_unusable", hint="make one with: openssl rand -hex 32"
    )
