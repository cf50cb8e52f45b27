"""ModeSelector: which modes a goal needs, by explicit rules, and which rule said so."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from holdfast import errors

DEFAULT = "default"
"""What the rule is called that applies when no other does."""

_READ = 2000
_POLITE = re.compile(
    r"^(?:(?:please|hi|hello|hey|(?:can|could|would|will) you|i(?:'d| would) like you to"
    r"|i (?:want|need) you to|let'?s|we (?:need|want) to|help me(?: to)?)\b[\s,!.]*)+",
    re.IGNORECASE,
)


class Rule(msgspec.Struct, frozen=True):
    """One rule of a selector.

    Args:
        name: what it is called in a selection.
        pattern: a regular expression that is searched for in the goal, whatever its capitals;
            politeness at its beginning is left out.
        modes: the pipeline, by the names of its modes.

    Raises:
        UsageError: the pattern is no regular expression, or there is no mode.
    """

    name: str
    pattern: str
    modes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what can't select anything."""
        try:
            re.compile(self.pattern)
        except re.error as error:
            message = f"The pattern of the rule {self.name!r} is no regular expression: {error}."
            raise errors.UsageError(message) from None
        if not self.modes:
            raise errors.UsageError(f"The rule {self.name!r} names no mode.")


class Selection(msgspec.Struct, frozen=True):
    """What a selector chose.

    Args:
        modes: the pipeline, by the names of its modes.
        rule: the name of the rule that matched first.
        why: what it matched, in words.
    """

    modes: tuple[str, ...]
    rule: str
    why: str


RULES = (
    Rule("cause", r"^why\b.*\b(fail|break|crash|hang|slow|wrong|error|not work)", ("debug",)),
    Rule(
        "question",
        r"^(what|how|where|which|who|when|why|is|are|does|do|did|explain|describe|summari[sz]e"
        r"|tell me|show me)\b",
        ("chat",),
    ),
    Rule(
        "release",
        r"^(release|publish|ship|tag)\b|\b(cut|prepare|make) (a|the) (new )?release\b",
        ("testing", "release"),
    ),
    Rule("operations", r"^(deploy|restart|roll ?back|monitor|scale|drain)\b", ("ops",)),
    Rule(
        "run tests",
        r"^(run|execute|check|re-?run)\b.*\b(tests?|checks|suite|linters?)\b|^verify\b",
        ("testing",),
    ),
    Rule(
        "fix",
        r"^(fix|debug|repair|solve|resolve)\b|\b(this bug|regression|traceback|stack ?trace)\b"
        r"|\bfail(s|ing|ed)?\b|\bcrash(es|ing|ed)?\b|\bbroken\b",
        ("debug", "implementation", "testing"),
    ),
    Rule(
        "design",
        r"^(design|architect|sketch|propose|compare|evaluate)\b|\b(rfc|adr|design doc)\b",
        ("design",),
    ),
    Rule("plan", r"^(plan|outline|break down|estimate)\b", ("planning",)),
    Rule(
        "write tests",
        r"\b(write|add|extend|improve)\b.*\b(tests?|coverage)\b",
        ("implementation", "testing"),
    ),
    Rule(
        "change",
        r"^(implement|add|build|create|write|change|refactor|rename|remove|delete|update|upgrade"
        r"|migrate|port|support|replace|convert|optimi[sz]e|make|move|split|merge|extract|document"
        r"|translate|simplify|clean ?up|allow|introduce|use)\b",
        ("planning", "implementation", "testing"),
    ),
)
"""The built-in rules, for English; the first that matches counts."""


class ModeSelector:
    """Chooses the modes for a goal. The first rule that matches counts; `chat` when none does.

    Args:
        rules: in their order, such as `[Rule("docs", "^document", ("implementation",)), *RULES]`.
        default: the modes when no rule matches.
    """

    def __init__(self, rules: Iterable[Rule] = RULES, default: tuple[str, ...] = ("chat",)) -> None:
        self.rules = tuple(rules)
        self.default = default

    def select(self, goal: str) -> Selection:
        """Return the modes for a goal, and which rule says so.

        Args:
            goal: in a person's words; what counts are its first 2,000 characters.
        """
        text = _POLITE.sub("", goal[:_READ].strip())
        for rule in self.rules:
            found = re.search(rule.pattern, text, re.IGNORECASE)
            if found is not None:
                why = f"the rule {rule.name!r} matched {found[0]!r}"
                return Selection(rule.modes, rule.name, why)
        return Selection(self.default, DEFAULT, "no rule matched")
