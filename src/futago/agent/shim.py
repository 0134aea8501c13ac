"""The shim: a few lines of sh that own one run, so that its exit code survives the agent; and how it is started.

The agent starts the shim in a session of its own and may then die: the shim writes the exit code where the next agent
finds it. It makes `started` exclusively (noclobber is O_EXCL), so of two shims for one run, the second ends without a
trace: a run starts at most once however often agents die. While the agent lives, it makes the exit code durable
    itself (in batches); the shim calls sync only when the agent is gone.

Source: POSIX.1-2017 sh, `set -C`, `<>`; dash, bash and busybox open with O_EXCL under noclobber.
"""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from futago.link.orders import Order
from futago.runtime.faults import Refused

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# $1 directory of the run  $2 command  $3 user id  $4 group id  $5 soft limit of descriptors  $6 the agent
SHIM = r"""
IFS= read -r stat < /proc/$$/stat || exit 0
set -C
{ printf '%s\n' "$stat" > "$1/started"; } 2>/dev/null || exit 0
set +C
ulimit -S -n "$5" 2>/dev/null
cd "$HOME" 2>/dev/null || cd /
if [ -n "$3" ]; then
    setpriv --reuid="$3" --regid="$4" --init-groups -- /bin/sh -c "$2"
else
    /bin/sh -c "$2"
fi
code=$?
cd /
printf '%s end\n' "$code" 1<> "$1/exit"
kill -0 "$6" 2>/dev/null || sync "$1/exit" "$1"
exit 0
"""

SCRIPT_FD = 3  # a script is read through it: its directory is closed to the users that commands run as

_RESET = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD]


@dataclass(frozen=True, slots=True)
class Account:
    """As whom a command runs. `uid` None: as the agent itself, without a change."""

    uid: int | None
    gid: int
    name: str
    home: str
    login_shell: str


def account(user: str) -> Account:
    """Return the account of `user` ("": the agent's own).

    Raises:
        Refused: there is no such user on this host, or the agent may not become it.
    """
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    except KeyError as e:
        if user:
            raise Refused(f"the user `{user}` does not exist on this host") from e
        return Account(uid=None, gid=os.getegid(), name=str(os.geteuid()), home="/", login_shell="/bin/sh")
    is_self = entry.pw_uid == os.geteuid()
    if not is_self and os.geteuid() != 0:
        raise Refused(f"the agent does not run as root and cannot become `{user}`")
    return Account(
        uid=None if is_self else entry.pw_uid,
        gid=entry.pw_gid,
        name=entry.pw_name,
        home=entry.pw_dir,
        login_shell=entry.pw_shell,
    )


def environment(order: Order, who: Account) -> dict[str, str]:
    """Return the whole environment of the command: a small fixed one, the order's own, and what says which run it
    is.
    """
    fixed = {
        "PATH": PATH,
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "HOME": who.home,
        "USER": who.name,
        "LOGNAME": who.name,
    }
    run = {
        "FUTAGO_RUN_ID": order.run_id,
        "FUTAGO_JOB": order.job,
        "FUTAGO_JOB_NET": order.net,
        "FUTAGO_SESSION": str(order.session_id),
    }
    return {**fixed, "SHELL": who.login_shell or "/bin/sh", **order.env, **run}


def spawn(order: Order, where: Path, *, nofile_soft: int) -> int:
    """Start the shim of a run whose order is durable in `where`; return its process id.

    Raises:
        Refused: nothing was started.
    """
    who = account(order.user)
    uid, gid = ("", "") if who.uid is None else (str(who.uid), str(who.gid))
    argv = [
        "/bin/sh",
        "-c",
        SHIM,
        "futago-run",
        str(where),
        order.command,
        uid,
        gid,
        str(nofile_soft),
        str(os.getpid()),
    ]
    files = _files(where)
    env = environment(order, who)
    if order.script:
        files.append((os.POSIX_SPAWN_OPEN, SCRIPT_FD, str(where / "script"), os.O_RDONLY, 0))
        env["FUTAGO_SCRIPT"] = f"/proc/self/fd/{SCRIPT_FD}"
    return _start(argv, env, files)


def spawn_stop(order: Order, where: Path, *, pid: int, nofile_soft: int) -> int:
    """Start the stop command of a run, as its user, with its environment, writing to its output; return its process id.
    FUTAGO_RUN_PID is the session (and the shim) of the run.

    Raises:
        Refused: nothing was started.
    """
    who = account(order.user)
    env = {**environment(order, who), "FUTAGO_RUN_PID": str(pid)}
    change = [] if who.uid is None else ["setpriv", f"--reuid={who.uid}", f"--regid={who.gid}", "--init-groups", "--"]
    begin = f'ulimit -S -n {nofile_soft} 2>/dev/null; cd "$HOME" 2>/dev/null || cd /; exec "$@"'
    argv = ["/bin/sh", "-c", begin, "futago-stop", *change, "/bin/sh", "-c", order.stop_command]
    return _start(argv, env, _files(where))


def _files(where: Path) -> list[tuple[int, ...] | tuple[int, int, str, int, int]]:
    return [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(where / "output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]


def _start(argv: list[str], env: dict[str, str], files: Sequence[tuple[object, ...]]) -> int:
    try:
        return os.posix_spawn("/bin/sh", argv, env, file_actions=files, setsid=True, setsigmask=[], setsigdef=_RESET)
    except (OSError, ValueError) as e:
        raise Refused(f"the command could not be started: {e}") from e
