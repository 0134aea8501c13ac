"""The demo: a lab with a protected pair, something to watch, and the page's URL on this machine's loopback.

Everything in it is the product, set up by its own commands, and real senders; nothing of the demo itself is in the way.
"""

from __future__ import annotations

import signal
import threading
from importlib import resources

from futago.lab import relay
from futago.lab.lab import Lab
from futago.lab.pair import admin_password, apply, form_pair, wait_protected
from futago.lab.progress import Say, say, step
from futago.runtime.faults import FutagoFault, Unknown

_REUSE_WITHIN_S = 15.0

# A device that tells of doors, now and then of trouble: the same message to both members.
_DEVICE = """n=0
tell() {
  for member in 10.91.1.11 10.91.1.12; do
    logger --udp -n $member -P 514 --rfc5424=notime,nohost,notq -t rack -p local0.info "$1 (message $n)"
  done
}
while sleep 2; do
  n=$((n+1))
  tell "door $((n % 7)) $([ $((n % 2)) = 0 ] && echo opened || echo closed)"
  [ $((n % 30)) != 0 ] || tell "ERROR rack fan stopped"
  [ $((n % 10)) != 0 ] || for member in 10.91.1.11 10.91.1.12; do
    snmptrap -m '' -v 2c -c public $member:162 $n 1.3.6.1.4.1.55555.1 1.3.6.1.4.1.55555.1.1 s SEQ=$n
  done
done
"""
_MAIL = [
    "/opt/labtools/bin/python",
    "-u",
    "-m",
    "aiosmtpd",
    "-n",
    "-l",
    "10.91.1.50:25",
    "-c",
    "aiosmtpd.handlers.Debugging",
]

_GUIDE = """
The pair is protected. Its page (the certificate is the pair's own):

    {url}        user admin, password {password}

Three things to try, in another terminal:

  1. Pull the plug of the member that serves, and watch the page:
         {futago} lab fault power-cut primary{name}
  2. See what the other one says, bring the first one back, and let it rejoin:
         {futago} lab exec m2{name} -- futago status
         {futago} lab heal{name}
         {futago} lab exec primary{name} -- futago recover
  3. Hand the service over as planned, while jobs and messages go on:
         {futago} lab exec primary{name} -- futago switchover

More to break: {futago} lab fault --list
"""


def run_demo(name: str, *, detach: bool, first_port: int) -> int:
    """Bring the demo up, print how to use it, and (unless detached) stay until Ctrl-C, then take everything down.

    Returns:
        The exit code.
    """
    lab = Lab(name)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        url = _bring_up(lab, first_port=first_port, say=say)
        print(_guide(lab, url), flush=True)
        if detach:
            print(f"It goes on by itself. Take it down: .venv/bin/futago lab down --name {name}")
            return 0
        print("Ctrl-C takes everything down.", flush=True)
        stop.wait()
    except KeyboardInterrupt:
        say("")
        _take_down(lab, keep_logs=False)
    except FutagoFault:
        _take_down(lab, keep_logs=True)
        raise
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _take_down(lab: Lab, *, keep_logs: bool) -> None:
    """Once begun, it is not interrupted: half a lab helps nobody."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lab.down(say=say, keep_logs=keep_logs)


def _bring_up(lab: Lab, *, first_port: int, say: Say) -> str:
    """Return the page's URL once the pair is protected. A demo that runs already and is well is kept as it is."""
    if lab.is_up():
        try:
            wait_protected(lab, deadline_s=_REUSE_WITHIN_S)
            say(f"  ok the lab `{lab.name}` is up already, and its pair protected")
            return relay.start(lab.places, first_port=first_port)
        except Unknown:
            say(f"  !! the lab `{lab.name}` is up, but holds no protected pair: starting afresh")
            lab.down(say=say)
    lab.up(say=say)
    form_pair(lab, say=say)
    with step("sample monitors, jobs and a schedule: futago apply", say=say):
        apply(lab, resources.files("futago.lab").joinpath("demo.yaml").read_text(encoding="utf-8"))
    with step("a device that sends, a mail server", say=say):
        lab.host("c1").run(["systemd-run", "--unit=mail", "-q", *_MAIL])
        lab.host("dev1").run(["systemd-run", "--unit=device", "-q", "/bin/sh", "-c", _DEVICE])
    return relay.start(lab.places, first_port=first_port)


def _guide(lab: Lab, url: str) -> str:
    name = "" if lab.name == "lab" else f" --name {lab.name}"
    return _GUIDE.format(url=url, password=admin_password(lab), futago=".venv/bin/futago", name=name)
