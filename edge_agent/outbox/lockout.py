"""Lock-out: too many spoof or not_verified outcomes within a window close the terminal, or it for one user."""

from __future__ import annotations

from edge_agent.outbox.ages import Moment
from edge_agent.outbox.audit import Entry
from edge_agent.outbox.core import Core
from edge_agent.outbox.records import Lockout


class Lockouts(Core):
    """Counts on the running clock, so a restart or a changed wall clock does not reset them."""

    def user_hmac(self, user_id: str) -> str:
        """The keyed name of a user for logs and metrics: 64 hex digits."""
        return self._keys.user_hmac(user_id).hex()

    def record_failure(self, user_id: str, kind: str) -> None:
        """Count one failure beyond those that ``reject`` and ``commit_verdict`` count themselves."""
        with self._change() as now:
            user_hmac = self._keys.user_hmac(user_id)
            self._count_failure(user_hmac, kind, now, terminal=True)
            self._chain.append(Entry("failure", user_hmac=user_hmac, detail={"kind": kind}), now)

    def locked_until(self, user_id: str) -> Lockout | None:
        """The longer of the terminal's and the user's lock-out, or None."""
        if not self.limits.max_failures:
            return None
        user_hmac = self._keys.user_hmac(user_id)
        with self._database.reading():
            now = self._now()
            rows = self._query("failures", since_s=now.running_s - self.limits.failure_window_s).fetchall()
        # a row that does not authenticate counts as well: tampering must not open a lock
        at_terminal = [r["at_running_s"] for r in rows if r["terminal"] or not self._mac_fits("failures", r)]
        of_user = [r["at_running_s"] for r in rows if r["user_hmac"] == user_hmac]
        locks = [
            Lockout(scope, retry_after_s)
            for scope, times in (("terminal", at_terminal), ("user", of_user))
            if (retry_after_s := self._locked_for_s(times, now)) > 0
        ]
        return max(locks, key=lambda lock: lock.retry_after_s, default=None)

    def _locked_for_s(self, times: list[float], now: Moment) -> float:
        most = self.limits.max_failures
        if len(times) < most:
            return 0.0
        return sorted(times)[-most] + self.limits.failure_window_s - now.running_s

    def _count_failure(self, user_hmac: bytes, kind: str, now: Moment, *, terminal: bool) -> None:
        values = {
            "user_hmac": user_hmac,
            "kind": kind,
            "terminal": int(terminal),
            "at_running_s": float(now.running_s),
        }
        self._query("insert_failure", **self._sealed_values("failures", values))
