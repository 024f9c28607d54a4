"""Lists of exceptions, by filters and in pages: in an order that is stable while others are opened, or the latest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import nlargest

from actors.domain.answers import Page, Reply, ok
from actors.domain.commands import ListExceptions
from actors.domain.exception_kinds import meaning_of
from actors.domain.exception_state import StockException
from actors.domain.keys import split_stock_key
from actors.domain.reading import LINES_PER_PAGE_MAX, paged
from actors.domain.rules import Rules
from actors.domain.state import ShardState
from actors.domain.turn import Turn
from actors.domain.views import exception_view


def list_exceptions(turn: Turn, command: ListExceptions) -> Reply:
    """Exceptions by shard and number, or the latest first. OK payload: ``Page`` of ``ExceptionView``."""
    rules = turn.books.rules

    def within(shard: ShardState, after: str) -> Iterator[tuple[str, StockException | None]]:
        first = _number(after)
        rest = sorted((number_of(one), one) for one in shard.exceptions.values() if number_of(one) > first)
        for number, exception in rest:
            yield str(number), exception if _is_wanted(rules, command, exception) else None

    if command.newest_first:
        found, token = _newest_first(turn, command, lambda exception: _is_wanted(rules, command, exception))
    else:
        found, token = paged(turn, command.page_token, command.page_size, within, _weight)
    return ok(Page([exception_view(rules, exception) for exception in found], token))


def _is_wanted(rules: Rules, command: ListExceptions, exception: StockException) -> bool:
    kind, stock_key, _, source_id, _, _, _, reject_reason = exception.fields
    if command.kinds and kind not in command.kinds:
        return False
    if command.states and exception.state not in command.states:
        return False
    if command.stock_key and stock_key != command.stock_key:
        return False
    if command.warehouse_id and (not stock_key or split_stock_key(stock_key).warehouse_id != command.warehouse_id):
        return False
    if command.source_id and source_id != command.source_id:
        return False
    if exception.open_time_ms < command.open_from_ms or 0 < command.open_to_ms <= exception.open_time_ms:
        return False
    if not command.priorities and not command.team:
        return True
    meaning = meaning_of(rules, kind, reject_reason)
    if command.priorities and meaning.priority not in command.priorities:
        return False
    return not command.team or meaning.team == command.team


def _weight(exception: StockException) -> int:
    """In lines of a page: one that keeps its event is longer."""
    return 1 + len(exception.payload) // 3


def _newest_first(
    turn: Turn, command: ListExceptions, wanted: Callable[[StockException], bool]
) -> tuple[list[StockException], str]:
    """One pass over all there are, which are bounded. A token says what was last."""
    before = _place(command.page_token)
    rest = []
    for shard in turn.books.shards.values():
        for exception in shard.exceptions.values():
            place = (exception.open_time_ms, shard.id, number_of(exception))
            if (before is None or place < before) and wanted(exception):
                rest.append((place, exception))
    found, lines = [], 0
    for place, exception in nlargest(command.page_size, rest, key=lambda one: one[0]):
        found.append(exception)
        before = place
        lines += _weight(exception)
        if lines >= LINES_PER_PAGE_MAX:
            break
    token = ":".join(map(str, before)) if before is not None and len(found) < len(rest) else ""
    return found, token


def number_of(exception: StockException) -> int:
    """Its number in its shard."""
    return int(exception.id.rsplit("-", 1)[1])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _place(token: str) -> tuple[int, ...] | None:
    parts = token.split(":")
    return tuple(map(_number, parts)) if len(parts) == 3 else None  # noqa: PLR2004  time, shard, number
