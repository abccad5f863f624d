"""Tabs: what all calls of one key to one deployment have in common, worked out and encoded once.

A call's books repeat who pays, where it goes and which accounts bind it. A tab keeps these, the shares to hold on and the bytes that
the journal gets, for as long as the rules, the key and the windows of its accounts stay the same.
"""

from typing import final

import msgspec

from gateway.allowance import Notices, notices
from gateway.journal_records import Party
from gateway.keys import Key
from gateway.record import Record
from gateway.scopes import Bound, Rules, Static, binding, static_binding
from gateway.shares import Share, Shares

MOST = 50_000

_encode = msgspec.msgpack.Encoder().encode

_Place = tuple[str, str | None, str, str | None, str | None, str, bool]
_Names = tuple[str | None, tuple[str, ...]]


@final
class Tab:
    """`party` is a Party's bytes. `until` is when a window ends or an amount changes by itself, in Unix seconds.

    A call that was held on a tab settles on it, whatever has ended meanwhile: other shares make another tab.
    """

    __slots__ = ("as_of", "bound", "deployment", "key", "model", "notices", "party", "provider", "shares", "until")

    def __init__(self, key: Key, record: Record, bound: tuple[Bound, ...], shares: tuple[Share, ...]) -> None:
        self.key = key
        self.model = record.model
        self.provider = record.provider
        self.deployment = record.deployment
        self.bound = bound
        self.shares = shares
        self.notices: Notices = notices(shares)
        self.party = msgspec.Raw(_encode(_party(key, record, shares)))
        self.until = 0.0
        self.as_of = -1

    def of(self, record: Record) -> bool:
        """Whether a record still says what the call's tab was made for: after a fallback it may name another model."""
        return self.model == record.model and self.deployment == record.deployment and self.provider == record.provider


@final
class Tabs:
    """Every tab in use, for one set of rules."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._rules: Rules | None = None
        self._statics: dict[_Place, tuple[Key, Static]] = {}
        self._plain: dict[_Place, Tab] = {}
        self._named: dict[tuple[_Place, _Names], Tab] = {}

    def of(self, rules: Rules, key: Key, record: Record, unix: float) -> Tab:
        """The tab of a call to the deployment that its record names, with the shares of this moment."""
        if rules is not self._rules or len(self._statics) + len(self._named) > MOST:
            self._rules = rules
            self._statics, self._plain, self._named = {}, {}, {}
        place = (
            key.id,
            record.model,
            record.metric_model,
            record.provider,
            record.deployment,
            record.endpoint,
            record.stream,
        )
        tab = self._plain.get(place)
        if tab is None or tab.key is not key:
            return self._look_up(rules, key, record, place, unix)
        if unix >= tab.until or tab.as_of != self._shares.forgotten:
            tab = self._plain[place] = self._renewed(tab, key, record, tab.bound, unix)
        return tab

    def _look_up(self, rules: Rules, key: Key, record: Record, place: _Place, unix: float) -> Tab:
        of, static = self._statics.get(place, (None, None))
        if static is None or of is not key:
            static = static_binding(rules, key, record.metric_model, record.provider or "")
            self._statics[place] = key, static
        if not (static.customer or static.tag):
            tab = self._plain[place] = self._renewed(None, key, record, static.bound, unix)
            return tab
        names = (record.user if static.customer else None, tuple(record.tags or ()) if static.tag else ())
        named = self._named.get((place, names))
        if named is None or named.key is not key:
            named = self._named[place, names] = self._renewed(None, key, record, binding(static, *names), unix)
        elif unix >= named.until or named.as_of != self._shares.forgotten:
            named = self._named[place, names] = self._renewed(named, key, record, named.bound, unix)
        return named

    def _renewed(self, tab: Tab | None, key: Key, record: Record, bound: tuple[Bound, ...], unix: float) -> Tab:
        """The tab itself, if its shares are those of this moment."""
        shares = tuple([self._shares.of(one, unix) for one in bound])
        if tab is None or shares != tab.shares:
            tab = Tab(key, record, bound, shares)
        tab.until = min([share.stale_at for share in shares], default=float("inf"))
        tab.as_of = self._shares.forgotten
        return tab


def _party(key: Key, record: Record, shares: tuple[Share, ...]) -> Party:
    return Party(
        record.endpoint,
        key.id,
        key.team_id,
        key.org_id,
        key.user_id,
        record.model,
        record.provider,
        record.deployment,
        record.stream,
        tuple([(share.account.id, share.counts) for share in shares]),
    )
