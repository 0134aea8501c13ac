"""The settings file: what is written is read back, and a mistake is refused with its place."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futago.runtime.faults import OperatorFault
from futago.setup.settings import (
    PROFILES,
    AgentSettings,
    FenceDevice,
    Juror,
    MemberSettings,
    PairSettings,
    Settings,
    dump,
    parse,
    parse_agent,
)
from futago.setup.thirdvote import SIZES, ThirdVote, kind_of

WHERE = Path("/etc/futago/futago.toml")

names = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
addresses = st.ip_addresses().map(str)
filled = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
fences = st.builds(
    FenceDevice,
    driver=st.just("ipmi"),
    address=addresses,
    user=filled,
    password_file=filled,
    options=st.dictionaries(
        st.sampled_from(["cipher", "port", "privilege"]), st.from_regex(r"[0-9A-Z]+", fullmatch=True)
    ),
    attempts=st.integers(1, 10),
    deadline_s=st.floats(1, 300),
)
jurors = st.builds(Juror, name=names, address=addresses, port=st.integers(1, 65535))

VOTES = {
    "fence": [ThirdVote(), ThirdVote(kind="none")],
    "register": [
        ThirdVote(),
        ThirdVote(kind="jury"),
        ThirdVote(kind="witness"),
        ThirdVote(kind="etcd", endpoints=["https://192.0.2.5:2379", "https://e2:2379"], user="u", password_file="/p"),
        ThirdVote("objectstore", ["https://s3.example.com"], "votes", "eu-central-1", user="AK", password_file="/p"),
    ],
}


@st.composite
def all_settings(draw: st.DrawFn) -> Settings:
    members = [
        MemberSettings(name, draw(addresses), draw(addresses), draw(words), draw(st.lists(fences, max_size=3)))
        for name in draw(st.lists(names, min_size=1, max_size=2, unique=True))
    ]
    own = {ipaddress.ip_address(a) for m in members for a in (m.service, m.heartbeat)}
    floating = draw(st.lists(st.ip_addresses().filter(lambda a: a not in own), max_size=3, unique=True))
    first, *more = [f"{a}/24" for a in floating] or [""]
    pair = PairSettings(
        name=draw(names),
        id=draw(words),
        floating_ip=first,
        floating_more=more,
        authority=draw(st.sampled_from(["register", "fence"])),
        profile=draw(st.sampled_from(sorted(PROFILES))),
        recovery=draw(st.sampled_from(["auto", "manual"])),
        fence_after=draw(st.sampled_from(["on", "stay_off"])),
    )
    vote = draw(st.sampled_from(VOTES[pair.authority]))
    seats = draw(st.sampled_from([0, *SIZES.get(kind_of(vote, authority=pair.authority), ())]))
    roster = draw(st.lists(jurors, min_size=seats, max_size=seats))
    return Settings(draw(st.sampled_from(members)).name, pair, members, roster, third_vote=vote)


@given(all_settings())
def test_whatever_settings_are_written_are_read_back_equal(settings: Settings) -> None:
    assert parse(dump(settings), where=WHERE) == settings


@given(names, words, st.lists(addresses, min_size=1, max_size=2))
def test_whatever_agent_settings_are_written_are_read_back_equal(name: str, pair: str, members: list[str]) -> None:
    settings = AgentSettings(name, pair, members)
    assert parse_agent(dump(settings), where=WHERE) == settings


GOOD = """\
me = "m1"
[pair]
name = "lab"
id = "0123456789abcdef"
floating_ip = "192.0.2.100/24"
[[members]]
name = "m1"
service = "192.0.2.11"
heartbeat = "198.51.100.11"
interface = "eth0"
[members.fence]
driver = "ipmi"
address = "192.0.2.201"
user = "admin"
password_file = "/etc/futago/secrets/fence-m1.password"
"""


@pytest.mark.parametrize(
    ("wrong", "right", "expected"),
    [
        ("heartbeet =", "heartbeat =", "did you mean `heartbeat`"),
        ("floatng_ip =", "floating_ip =", "did you mean `floating_ip`"),
        ('me = "m3"', 'me = "m1"', "not the name of a member"),
        ("service = 11", 'service = "192.0.2.11"', "Expected `str`, got `int` - at `$.members[0].service`"),
        ('service = "192.0.2.300"', 'service = "192.0.2.11"', "members.m1.service: '192.0.2.300'"),
        ('me = "M1"', 'me = "m1"', "me is `M1`"),
        ('driver = "ipmy"', 'driver = "ipmi"', "members.m1.fence.driver is `ipmy`"),
        ('floating_ip = "x"', 'floating_ip = "192.0.2.100/24"', "pair.floating_ip"),
        ('profile = "slow"\n[[members]]', "[[members]]", "pair.profile is `slow`; it must be one of default, fast, vm"),
        ("job_history_days = -1\n[[members]]", "[[members]]", "pair.job_history_days is -1; it must be 0 to 36500"),
        ("returns_max = -1\n[[members]]", "[[members]]", "pair.returns_max is -1; it must be 0"),
        ('floating_ip = "192.0.2.11/24"', 'floating_ip = "192.0.2.100/24"', "named twice, or is a member's own"),
        ('floating_more = ["fd00::1"]', 'floating_ip = "192.0.2.100/24"', "floating_more needs pair.floating_ip"),
        ('address = { kind = "carp" }\n[[members]]', "[[members]]", "pair.address.kind is `carp`; there is: netlink"),
        ('address = { kind = "aws-eip" }\n[[members]]', "[[members]]", "pair.address.region is missing"),
        ('address = { program = "/x" }\n[[members]]', "[[members]]", "program has no meaning for netlink"),
        ('address = { kind = "command", program = "x" }\n[[members]]', "[[members]]", "must be an absolute path"),
        (
            'address = { kind = "aws-secondary", region = "eu-central-1" }\n[[members]]',
            "[[members]]",
            "needs `eni` of every member",
        ),
        ('me "m1"', 'me = "m1"', "not valid TOML"),
        ('name = "Lab"', 'name = "lab"', "pair.name: `Lab` cannot be a name"),
    ],
)
def test_a_mistake_in_the_file_is_refused_with_file_place_and_suggestion(wrong: str, right: str, expected: str) -> None:
    text = GOOD.replace(right, wrong, 1)
    assert text != GOOD
    with pytest.raises(OperatorFault) as e:
        parse(text, where=WHERE)
    assert str(WHERE) in e.value.what
    assert expected in e.value.what
    assert e.value.hint


def test_pair_may_have_no_floating_ip_one_or_several() -> None:
    none = parse(GOOD.replace('floating_ip = "192.0.2.100/24"\n', ""), where=WHERE).pair
    assert none.addresses == none.on_subnet == ()
    two = 'floating_ip = "192.0.2.100/24"\nfloating_more = ["2001:db8::100/64"]'
    both = parse(GOOD.replace('floating_ip = "192.0.2.100/24"', two), where=WHERE).pair
    assert both.addresses == ("192.0.2.100", "2001:db8::100")
    assert both.on_subnet == ("192.0.2.100/24", "2001:db8::100/64")
    routed = 'floating_ip = "10.99.0.1/32"\naddress = { kind = "command", program = "/x" }'
    assert parse(GOOD.replace('floating_ip = "192.0.2.100/24"', routed), where=WHERE).pair.on_subnet == ()


def test_the_good_file_is_accepted() -> None:
    settings = parse(GOOD, where=WHERE)
    assert [d.driver for d in settings.own.fence] == ["ipmi"]
    assert settings.peer is None
    assert not settings.config().has_peer


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_a_jury_of_any_size_but_three_or_five_is_refused(count: int) -> None:
    rows = "".join(f'[[jurors]]\nname = "h{i}"\naddress = "192.0.2.{i}"\n' for i in range(count))
    with pytest.raises(OperatorFault, match=f"3 or 5 jurors, not {count}"):
        parse(GOOD + rows, where=WHERE)


def test_members_shoot_further_apart_than_a_shot_can_take() -> None:
    def of(*devices: FenceDevice) -> float:
        members = [
            MemberSettings("m1", "10.0.0.1", "10.0.1.1", "eth0", fence=list(devices)),
            MemberSettings("m2", "10.0.0.2", "10.0.1.2", "eth0"),
        ]
        return Settings("m1", PairSettings("p", "id"), members).config().fence_delay / 1e9

    device = FenceDevice("ipmi", address="10.0.2.1", user="u", password_file="/p", deadline_s=10)
    assert of() == 5.0
    assert of(device) == 11.0
    assert of(device, FenceDevice("command", program="/bin/x", attempts=2, deadline_s=3)) == 17.0
