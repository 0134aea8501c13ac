"""The heart: the primary loses its power under a whole night's load, the pair is brought back, and the other one loses its power.

Nothing may be lost, nothing may happen twice, and people wait a few seconds.
"""

from __future__ import annotations

from load import Night

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import wait_for_pair, wait_protected


def other(member: str) -> str:
    return "m2" if member == "m1" else "m1"


def test_a_power_cut_of_the_primary_loses_nothing_and_repeats_nothing_and_again_after_the_recovery(pair: Lab) -> None:
    night = Night(pair)
    night.start()
    try:
        first = str(wait_protected(pair)["primary"])
        night.start_net()
        night.wait_for_starts(6)
        night.pull()
        cut_primary(night, first)
        night.wait_for_mails(1)  # two pings in a row have failed, whichever member counted them
        night.plug()
        night.wait_for_mails(2)

        recover(pair, on=other(first))
        assert pair.host(first).is_on()

        second = str(wait_protected(pair)["primary"])
        assert second == other(first), "a recovery must not move the service"
        night.start_net()
        night.wait_for_starts(46)
        night.pull()
        cut_primary(night, second)
        night.wait_for_mails(3)
        night.plug()
        night.wait_for_mails(4)
        night.reckon()
    finally:
        night.senders.close()
        night.sink.stop()
        night.writer.stop()
        recover(pair, on=str(wait_for_pair(pair, key="state", value="solo", deadline_s=60)["primary"]))
    assert all(cut.outage_s < 10 for cut in night.cuts)


def cut_primary(night: Night, member: str) -> None:
    """Cut its power; the other serves, alone, in a newer epoch."""
    before = wait_protected(night.lab)
    at = int(night.lab.host(member).power_cut()["at"])
    cut = night.note(at)
    after = wait_for_pair(night.lab, key="primary", value=other(member), deadline_s=10)
    assert after["epoch"] > before["epoch"] and not after["protected"]
    assert after["command"] == "futago recover"
    print(f"power cut of {member}: the first write was acknowledged {cut.outage_s:.2f} s later; {after['last_switch']}")


def recover(lab: Lab, *, on: str) -> None:
    """The one command."""
    done = lab.host(on).run([PROGRAM, "recover"], deadline_s=300)
    print(done.stderr + done.stdout)
    wait_protected(lab)
