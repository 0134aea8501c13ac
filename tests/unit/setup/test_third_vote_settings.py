"""The settings of the third vote: what fits together, and what is said where it does not."""

from __future__ import annotations

import pytest

from futago.setup.thirdvote import ThirdVote, kind_of, problem

ETCD = ThirdVote(kind="etcd", endpoints=["https://192.0.2.5:2379"])
STORE = ThirdVote(
    kind="objectstore",
    endpoints=["https://s3.eu-central-1.amazonaws.com"],
    bucket="votes",
    region="eu-central-1",
    user="AKID",
    password_file="/etc/futago/secrets/vote",
)


@pytest.mark.parametrize(
    ("vote", "authority", "jurors"),
    [
        (ThirdVote(), "register", 0),
        (ThirdVote(), "register", 3),
        (ThirdVote(kind="jury"), "register", 5),
        (ThirdVote(kind="witness"), "register", 1),
        (ThirdVote(kind="none"), "fence", 0),
        (ThirdVote(), "fence", 0),
        (ETCD, "register", 0),
        (STORE, "register", 0),
    ],
)
def test_what_fits_together_is_accepted(vote: ThirdVote, authority: str, jurors: int) -> None:
    assert problem(vote, authority=authority, jurors=jurors) == ""


@pytest.mark.parametrize(
    ("vote", "authority", "jurors", "expected"),
    [
        (ThirdVote(kind="zookeeper"), "register", 0, "it must be one of etcd, jury, none, objectstore, witness"),
        (ThirdVote(kind="none"), "register", 0, 'authority is "register"'),
        (ThirdVote(kind="jury"), "fence", 0, 'authority is "fence"'),
        (ThirdVote(), "fence", 3, "no meaning for the third vote none"),
        (ThirdVote(kind="jury"), "register", 4, "3 or 5 jurors, not 4"),
        (ThirdVote(kind="witness"), "register", 3, "one juror, not 3"),
        (ThirdVote(kind="etcd"), "register", 0, "endpoints is missing"),
        (ThirdVote(kind="jury", bucket="b"), "register", 0, "bucket has no meaning for the kind jury"),
        (ThirdVote(kind="etcd", endpoints=["192.0.2.5:2379"]), "register", 0, "https://host:port"),
        (ThirdVote(kind="etcd", endpoints=["https://a:2379/v3"]), "register", 0, "a server and nothing else"),
        (ThirdVote(kind="etcd", endpoints=["https://a:99999"]), "register", 0, "is no URL"),
        (ThirdVote(kind="etcd", endpoints=["http://a:1"], user="u"), "register", 0, "go together"),
        (ThirdVote(kind="etcd", endpoints=["http://a:1"], prefix="a//b"), "register", 0, "prefix is `a//b`"),
    ],
)
def test_what_does_not_fit_is_named(vote: ThirdVote, authority: str, jurors: int, expected: str) -> None:
    assert expected in problem(vote, authority=authority, jurors=jurors)


def test_kind_follows_the_authority_where_none_is_named() -> None:
    assert kind_of(ThirdVote(), authority="register") == "jury"
    assert kind_of(ThirdVote(), authority="fence") == "none"
    assert kind_of(ETCD, authority="register") == "etcd"
