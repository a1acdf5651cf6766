"""What a JSON file must hold, checked where it is read: one parser, one set of rules, one kind of error.

A rule is a function of (value, name) that raises ValueError with the name, the rule and the value. Written by hand: the
four files that are read need six rules, and jsonschema would bring five packages whose messages name the rule, not the
remedy.
"""

import json
import math
from collections.abc import Callable
from typing import Any

Rule = Callable[[Any, str], None]


def parse(content: str | bytes) -> dict[str, Any]:
    """The JSON object in a text; raises ValueError for anything else, NaN and nesting without end included."""
    try:
        value = json.loads(content, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    require(isinstance(value, dict), "it is not a JSON object")
    return value


def require(holds: bool, words: str) -> None:
    """Raises ValueError with these words unless the condition holds."""
    if not holds:
        raise ValueError(words)


def text(value: Any, name: str) -> None:
    """Any text."""
    require(isinstance(value, str), f"{name} must be text (got {_shown(value)})")


def number(value: Any, name: str) -> None:
    """A finite number."""
    require(isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value),
            f"{name} must be a number (got {_shown(value)})")


def number_or_null(value: Any, name: str) -> None:
    """A finite number, or null where it is not known."""
    if value is not None:
        number(value, name)


def count(value: Any, name: str) -> None:
    """A whole number, 0 or more, that fits into 64 bits."""
    require(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63,
            f"{name} must be a whole number, 0 or more (got {_shown(value)})")


def one_of(*known: str) -> Rule:
    """One of these texts."""
    def rule(value: Any, name: str) -> None:
        require(isinstance(value, str) and value in known, f"{name} must be one of {', '.join(known)} (got "
                                                           f"{_shown(value)})")
    return rule


def list_of(item: Rule, length: int | None = None) -> Rule:
    """A list whose every item meets a rule; of this length, if one is given."""
    def rule(value: Any, name: str) -> None:
        require(isinstance(value, list) and length in (None, len(value)),
                f"{name} must be a list{f' of {length}' if length else ''} (got {_shown(value)})")
        for place, one in enumerate(value):
            item(one, f"{name}[{place}]")
    return rule


def mapping(fields: dict[str, Rule] | None = None, optional: dict[str, Rule] | None = None, others: Rule | None = None
            ) -> Rule:
    """A JSON object.

    Args:
        fields: names that must be there, with their rules.
        optional: names that may be there.
        others: the rule for every other name; None: others are left alone.
    """
    fields, known = fields or {}, {**(fields or {}), **(optional or {})}

    def rule(value: Any, name: str) -> None:
        require(isinstance(value, dict), f"{name or 'it'} must be a JSON object (got {_shown(value)})")
        lead = f"{name}." if name else ""
        for one in fields:
            require(one in value, f"{lead}{one} is missing")
        for one, item in value.items():
            own = known.get(one, others)
            if own:
                own(item, lead + one)
    return rule


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _shown(value: Any) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
