r"""Makes patterns that an automaton without Unicode tables can search for in any text. Pure.

`\w`, `\d`, `\s` and `\b` mean thousands of characters each in Unicode; hyperscan takes minutes to compile a few hundred
patterns with them. So they are widened: to anything at all, or to nothing in between. The automaton then finds all that
the pattern finds and some more, and `re` confirms. Where widening a part could narrow the whole (look-around,
back-references, atomic groups), there is no such pattern.
"""

from __future__ import annotations

import re

ANY = "(?s:.*)"  # together with a repetition that follows; an automaton is cut in two here
_REPETITION = re.compile(r"(?:[*+?]|\{\d*,?\d*\})\??")
NOTHING = "(?:)"
_CLASSES, _BOUNDARIES = frozenset("wWdDsS"), frozenset("bB")
# Look-around, back-references, conditions, atomic groups, possessive repetition.
IMPURE = re.compile(r"\(\?(?:[=!(>]|<[=!]|P=)|\\[1-9]|[*+?}]\+")
_VERBOSE = re.compile(r"\(\?[a-zA-Z]*x")
_CASELESS = re.compile(r"\(\?[a-zA-Z]*i")
_GROUP = re.compile(r"\(\?(?:P<\w+>|[a-zA-Z-]*[:)])")
# What ASCII letters match besides themselves when case does not matter.
_OTHER_CASES = {"i": "[iI\u0130\u0131]", "k": "[kK\u212a]", "s": "[sS\u017f]"}


def is_unicode(text: str) -> bool:
    """Return whether a pattern's meaning for text beyond ASCII needs Unicode's tables."""
    if _CASELESS.search(text):  # even of ASCII letters: U+017F is an s, U+212A a k
        return True
    return any((part[:1] == "\\" and part[1] in _CLASSES | _BOUNDARIES) or _is_wide(part) for part in parts(text))


def widened(text: str) -> str | None:
    """Return a pattern that is found wherever `text` is, without a need for Unicode's tables; None if there is none."""
    if IMPURE.search(text) or _VERBOSE.search(text):
        return None
    is_caseless = _CASELESS.search(text) is not None
    made: list[str] = []
    at = end = 0
    for part in parts(text):
        begin, at = at, at + len(part)
        if begin < end:
            continue  # of a repetition
        made.append(_wider(part, is_caseless=is_caseless))
        if made[-1] == ANY and (repetition := _REPETITION.match(text, at)):
            end = repetition.end()
    return "".join(made)


def _wider(part: str, *, is_caseless: bool) -> str:
    if part[0] == "\\":
        return ANY if part[1] in _CLASSES else NOTHING if part[1] in _BOUNDARIES else part
    if is_caseless and (part[0] == "[" or len(part) == 1):
        return _any_case(part)
    return ANY if _is_wide(part) else part


def _any_case(part: str) -> str:
    """Return what is found wherever one character or class is, in any case."""
    if part[0] == "[":
        return ANY
    return _OTHER_CASES.get(part.lower(), part if part.isascii() else ANY)


def parts(text: str) -> list[str]:
    """Return a valid pattern in pieces: escapes, character classes and the beginnings of special groups whole, everything
    else one by one.
    """
    found, at = [], 0
    while at < len(text):
        end = at + (2 if text[at] == "\\" else 1)
        if text[at] == "[":
            end = _class_end(text, at)
        elif group := _GROUP.match(text, at):
            end = group.end()
        found.append(text[at:end])
        at = end
    return found


def _class_end(text: str, at: int) -> int:
    end = at + (2 if text[at + 1 : at + 2] == "^" else 1)
    if text[end : end + 1] == "]":  # the first one is meant as itself
        end += 1
    while end < len(text) and text[end] != "]":
        end += 2 if text[end] == "\\" else 1
    return end + 1


def _is_wide(part: str) -> bool:
    """Return whether a character class holds one of the classes that Unicode makes large."""
    return part[:1] == "[" and any(escape[1] in _CLASSES for escape in re.findall(r"\\.", part, re.S))
