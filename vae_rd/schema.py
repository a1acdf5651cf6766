"""What a JSON file must hold, checked where it is read: one parser, one set of rules, one kind of error.

A rule is a function of (value, name) that raises ValueError with the name, the rule and the value. Written by hand: the
four files that are read need six rules, and jsonschema would bring five packages whose messages name the rule, not the
remedy.
"""

import hashlib
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


def checksum(content: dict[str, Any]) -> str:
    """sha256 of a JSON object's content, with which our files end."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def require(holds: bool, words: str) -> None:
    """Raises ValueError with these words unless the condition holds."""
    if not holds:
        raise ValueError(words)


def text(value: Any, name: str) -> None:
    """Any text."""
    _expect(isinstance(value, str), value, name, "text")


def number(value: Any, name: str) -> None:
    """A finite number."""
    _expect(isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value), value, name,
            "a number")


def number_or_null(value: Any, name: str) -> None:
    """A finite number, or null where it is not known."""
    if value is not None:
        number(value, name)


def count(value: Any, name: str) -> None:
    """A whole number, 0 or more, that fits into 64 bits."""
    _expect(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63, value, name,
            "a whole number, 0 or more")


def one_of(*known: str) -> Rule:
    """One of these texts."""
    words = f"one of {', '.join(known)}"

    def rule(value: Any, name: str) -> None:
        _expect(isinstance(value, str) and value in known, value, name, words)
    return rule


def list_of(item: Rule, length: int | None = None) -> Rule:
    """A list whose every item meets a rule; of this length, if one is given."""
    words = f"a list{f' of {length}' if length else ''}"

    def rule(value: Any, name: str) -> None:
        _expect(isinstance(value, list) and length in (None, len(value)), value, name, words)
        for index, one in enumerate(value):
            item(one, f"{name}[{index}]")
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
        _expect(isinstance(value, dict), value, name or "it", "a JSON object")
        lead = f"{name}." if name else ""
        for one in fields:
            require(one in value, f"{lead}{one} is missing")
        for one, item in value.items():
            field_rule = known.get(one, others)
            if field_rule:
                field_rule(item, lead + one)
    return rule


def _expect(holds: bool, value: Any, name: str, rule: str) -> None:
    if not holds:  # the value is written out for a failure only: a large export checks a million
        raise ValueError(f"{name} must be {rule} (got {_shown(value)})")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _shown(value: Any) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
