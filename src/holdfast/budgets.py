"""What a task may spend: reserved before a model call is sent, settled by what it took.

A reservation is recorded in the transaction that records the call's intent, and is part of what is
spent. So whatever a crash leaves open stays spent, and nothing is ever sent that wasn't counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from holdfast import codec, errors
from holdfast.branches import BudgetNeed, Waits
from holdfast.entries import Draft, settling
from holdfast.journal import Journal
from holdfast.models import Budget, BudgetRecord, Entry, nanos_of
from holdfast.states import EntryStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import Charge
from holdfast.usage import Usage

Reserve = Usage | Callable[[Mapping[str, Any]], Usage]
"""What a call may take at most: a `Usage`, or a function of its arguments by name."""

BYTES_PER_TOKEN = 4
"""The rule of thumb for English text ("What are tokens and how to count them?", OpenAI Help
Center). Other text takes more tokens: give `reserve` where the estimate must not be exceeded."""

OUTPUT_TOKENS = 4096
"""Tokens reserved for an answer where no argument says how many it may have."""

_OUTPUT_LIMITS = ("max_tokens", "max_output_tokens", "max_completion_tokens")


def estimate(arguments: Mapping[str, Any]) -> Usage:
    """Return what a call may take, by the size of its arguments and the answer they ask for.

    Its cost isn't known.
    """
    size = len(codec.encode(dict(arguments)))
    limits = (arguments.get(name) for name in _OUTPUT_LIMITS)
    given = [each for each in limits if isinstance(each, int) and not isinstance(each, bool)]
    return Usage(-(-size // BYTES_PER_TOKEN), max(given, default=OUTPUT_TOKENS))


class TooLittleError(Exception):
    """Too little of a budget is left for a call; `need` is what to wait for."""

    def __init__(self, need: BudgetNeed) -> None:
        super().__init__(need.text)
        self.need = need


class BudgetGate:
    """Lets the model calls of one work item pass that its task's budget allows.

    Args:
        journal: where they are recorded; it holds the lease.
        waits: what to do when too little is left.
    """

    def __init__(self, journal: Journal, waits: Waits) -> None:
        self._journal = journal
        self._waits = waits
        self._root_id = journal.task.root_id
        given = journal.task.budget
        self._budget = None if given is None else msgspec.msgpack.decode(given, type=Budget)

    @property
    def limits(self) -> bool:
        """Whether the task has a budget; without one nothing is reserved."""
        return self._budget is not None

    async def reserve(self, intent: Draft, usage: Usage) -> Entry:
        """Record a call's intent and reserve what it may take.

        Raises:
            UnknownPriceError: the budget limits money, and the call's price isn't known.
            TooLittleError: too little is left: give back what others want, `wait`, and try again.
        """
        charge = self._charge(intent.name, usage)
        found = self._read()  # so that waiting writes nothing
        if found is not None and not found.has(charge.tokens, charge.nanos):
            raise TooLittleError(_need(found, intent.name, charge))
        append = self._journal.extend((intent,))
        entry = append.entries[-1]
        now = self._journal.store.now()
        verb = verbs.reserve_budget(self._journal.lease, append, charge, now)
        if await self._journal.write(verb):
            return entry
        why = encode_payload("the budget didn't allow it")  # others were quicker
        await self._journal.record(settling(entry, EntryStatus.RELEASED, why))
        return await self.reserve(intent, usage)

    async def wait(self, need: BudgetNeed) -> None:
        """Wait, holding no slot, until so much is left.

        Raises:
            BudgetExhaustedError: there is nobody to wait.
        """

        def is_enough() -> bool:
            found = self._read()
            return found is None or found.has(need.tokens, need.nanos)

        if not await self._waits.until(need, is_enough):
            message = f"{need.text}. Nothing was sent. `holdfast budget {need.root_id}` adds to it."
            raise errors.BudgetExhaustedError(message)

    async def settle(self, intent: Entry, outcome: Draft, usage: Usage | None) -> Entry:
        """Record a call's outcome and what it took instead of what it had reserved.

        Args:
            intent: the call.
            outcome: what became of it.
            usage: what it took; what it doesn't know stays reserved. None: it is known to have
                taken nothing.
        """
        tokens, nanos = 0, 0
        if usage is not None:
            tokens = usage.input_tokens + usage.output_tokens or None
            nanos = None if usage.cost is None else nanos_of(usage.cost)
        outcome.ref, outcome.request = intent.seq, None
        journal = self._journal
        append = journal.extend((outcome,))
        await journal.write(
            verbs.settle_budget(
                journal.lease, append, self._root_id, intent.seq, tokens, nanos, journal.store.now()
            )
        )
        return append.entries[-1]

    def _charge(self, name: str, usage: Usage) -> Charge:
        if usage.cost is None and self._budget is not None and self._budget.cost is not None:
            message = (
                f"The budget of task {self._root_id} limits money, and what {name} costs isn't "
                f"known, so it was not called. Say what it may cost: "
                f"ctx.options(reserve=Usage(…, cost=…)).llm(…)."
            )
            raise errors.UnknownPriceError(message)
        tokens = usage.input_tokens + usage.output_tokens
        return Charge(self._root_id, tokens, nanos_of(usage.cost or 0.0))

    def _read(self) -> BudgetRecord | None:
        return self._journal.store.read(verbs.get_budget(self._root_id))


def _need(found: BudgetRecord, name: str, charge: Charge) -> BudgetNeed:
    """Return what a call waits for, saying what is left and what it may take."""
    parts: list[str] = []
    if found.token_limit is not None and found.tokens + charge.tokens > found.token_limit:
        whole = " alone, more than the whole budget" * (charge.tokens > found.token_limit)
        parts.append(
            f"{found.tokens:,} of {found.token_limit:,} tokens are spent or reserved, and {name} "
            f"may take {charge.tokens:,}{whole}"
        )
    if found.nano_limit is not None and found.nanos + charge.nanos > found.nano_limit:
        whole = " alone, more than the whole budget" * (charge.nanos > found.nano_limit)
        parts.append(
            f"{dollars(found.nanos)} of {dollars(found.nano_limit)} are spent or reserved, and "
            f"{name} may take {dollars(charge.nanos)}{whole}"
        )
    text = f"the budget is too small: {'; '.join(parts)}"
    return BudgetNeed(charge.root_id, charge.tokens, charge.nanos, text)


def dollars(nanos: int) -> str:
    """Return billionths of a US dollar for people."""
    return f"${nanos / 1e9:,.4f}"
