"""Tokens: only what this pair sealed, unchanged, in time and for its purpose, opens the door."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futago.runtime.faults import OperatorFault
from futago.setup import token
from futago.setup.token import Purpose, Token

KEY = b"k" * 32
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def made(**changes: object) -> Token:
    fields: dict[str, object] = {
        "pair_id": "0123456789abcdef",
        "ca_sha256": "ab" * 32,
        "members": ("192.0.2.11", "198.51.100.11"),
        "now_utc": NOW,
    }
    purpose = changes.pop("purpose", Purpose.JOIN)
    assert isinstance(purpose, Purpose)
    return token.make(purpose, **{**fields, **changes})  # type: ignore[arg-type]


def verify(word: str, *, key: bytes = KEY, purpose: Purpose = Purpose.JOIN, at: datetime = NOW) -> Token:
    return token.verify(word, key, purpose=purpose, pair_id="0123456789abcdef", now_utc=at)


def code_of(word: str, **given: object) -> str:
    with pytest.raises(OperatorFault) as e:
        verify(word, **given)  # type: ignore[arg-type]
    assert e.value.hint
    return e.value.code


def test_a_token_says_to_its_verifier_and_to_the_newcomer_what_was_put_in() -> None:
    ticket = made()
    word = token.seal(ticket, KEY)
    assert verify(word) == ticket == token.read(word)


def test_a_token_is_one_shell_safe_word() -> None:
    word = token.seal(made(), KEY)
    assert shlex.quote(word) == word
    assert not word.startswith("-")


def test_two_tokens_are_never_equal() -> None:
    assert token.seal(made(), KEY) != token.seal(made(), KEY)


def test_a_token_sealed_with_another_key_is_refused_as_forged() -> None:
    assert code_of(token.seal(made(), b"x" * 32)) == "token.forged"


def test_a_token_of_another_pair_is_refused_as_such() -> None:
    assert code_of(token.seal(made(pair_id="ffff"), KEY)) == "token.pair"


def test_a_token_is_good_until_its_end_and_not_from_then_on() -> None:
    word = token.seal(made(life=timedelta(hours=1)), KEY)
    assert verify(word, at=NOW + timedelta(minutes=59, seconds=59))
    assert code_of(word, at=NOW + timedelta(hours=1)) == "token.expired"


def test_an_enroll_token_does_not_let_join() -> None:
    assert code_of(token.seal(made(purpose=Purpose.ENROLL), KEY)) == "token.purpose"


@given(st.text(max_size=300))
def test_no_text_that_is_not_a_token_passes(text: str) -> None:
    assert code_of(text).startswith("token.")


SEALED = token.seal(made(), KEY)


@given(st.data())
def test_a_token_with_any_character_changed_or_cut_off_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(SEALED) - 1))
    other = data.draw(st.sampled_from([c for c in "ABCabc019-_.~" if c != SEALED[at]]))
    changed = data.draw(
        st.sampled_from([SEALED[:at], SEALED[:at] + other + SEALED[at + 1 :], SEALED[:at] + SEALED[at + 1 :]])
    )
    assert code_of(changed).startswith("token.")


def test_a_word_too_long_to_be_a_token_is_refused_without_being_read() -> None:
    assert code_of("futago1-" + "A" * token.TOKEN_CHARS_MAX + ".AAAA") == "token.malformed"
