"""Limits, passwords, tokens and grants, without a database."""

from __future__ import annotations

import pytest

from futago.access.limits import FailureLimit
from futago.access.model import AccessRole, AccountName, Permission, Principal, Via
from futago.access.passwords import hash_password, verify_password
from futago.access.tokens import csrf_token, draw_secret, hash_secret, is_csrf_token
from futago.runtime.faults import OperatorFault

S = 1_000_000_000


def test_failures_are_borne_up_to_the_limit_and_forgiven_with_time() -> None:
    limit = FailureLimit(failures_max=3, window_ns=60 * S)
    for at in (0, 10 * S, 20 * S):
        assert limit.wait_ns("a", at) == 0
        limit.failed("a", at)
    assert limit.wait_ns("a", 20 * S) == 40 * S
    assert limit.wait_ns("b", 20 * S) == 0
    assert limit.wait_ns("a", 60 * S) == 0
    limit.failed("a", 60 * S)
    assert limit.wait_ns("a", 61 * S) == 9 * S
    limit.succeeded("a")
    assert limit.wait_ns("a", 61 * S) == 0


def test_a_flood_of_strangers_does_not_fill_the_memory() -> None:
    limit = FailureLimit(keys_max=100)
    for n in range(1000):
        limit.failed(str(n), 0)
    assert len(limit._failed_at) == 100


def test_a_password_is_verified_and_nothing_else_is() -> None:
    hashed = hash_password("correct-horse")
    assert "correct-horse" not in hashed
    assert hashed.startswith("$argon2id$")
    assert verify_password(hashed, "correct-horse")
    assert not verify_password(hashed, "correct-hors")
    assert not verify_password("not a hash", "correct-horse")


@pytest.mark.parametrize("password", ["short", "x" * 201])
def test_a_password_out_of_bounds_is_refused(password: str) -> None:
    with pytest.raises(OperatorFault):
        hash_password(password)


def test_secrets_differ_and_only_their_hash_is_kept() -> None:
    first, second = draw_secret(), draw_secret()
    assert first != second
    assert len(hash_secret(first)) == 32
    assert hash_secret(first) != hash_secret(second)


def test_a_csrf_token_belongs_to_one_session() -> None:
    first, second = draw_secret(), draw_secret()
    assert is_csrf_token(first, csrf_token(first))
    assert not is_csrf_token(first, csrf_token(second))
    assert not is_csrf_token(first, "")


def test_only_the_administrator_defines() -> None:
    may = {role: {p for p in Permission if Principal(AccountName("x"), role, Via.TOKEN).may(p)} for role in AccessRole}
    assert may[AccessRole.ADMIN] == set(Permission)
    assert Permission.DEFINE not in may[AccessRole.OPERATOR]
    assert may[AccessRole.READER] == {Permission.READ}
