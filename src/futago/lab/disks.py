"""The disks of a lab host: a root (overlay over the golden root and the product, its upper half on an ext4 image of its
own) and, for members, the volume
of the database (another image). They outlive power cycles and are gone with the lab.

A *remote* volume stands for a disk behind a network: its image lies on a file system of its own, the shelf. If the shelf
hangs or fails, the block device does, as with iSCSI: processes wait where no signal reaches them, or read and write
errors, and the file system above gives up.

All mounts are made in the daemon's own mount namespace: no other process of the machine can hold them, and they vanish
with it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from futago.lab import machine
from futago.lab.topology import Node
from futago.runtime.faults import OperatorFault, Unknown

DATABASE_VOLUME = "var/lib/futago/pg"
SHELF_SPARE_MIB = 256  # what a file system needs for itself beside the image


@dataclass(frozen=True, slots=True)
class Disks:
    """The images of one host and where they are mounted.

    Args:
        home: the host's folder.
        lower: the read-only layers, topmost first.
        has_volume: it has a volume for the database.
        is_remote: that volume is a remote one.
    """

    home: Path
    lower: tuple[Path, ...]
    has_volume: bool
    is_remote: bool = False

    @property
    def root(self) -> Path:
        """The host's root as a whole."""
        return self.home / "root"

    @property
    def _disk(self) -> Path:
        return self.home / "disk"

    @property
    def _volume(self) -> Path:
        return self.root / DATABASE_VOLUME

    @property
    def _shelf(self) -> Path:
        return self.home / "shelf"

    @property
    def _volume_image(self) -> Path:
        return (self._shelf if self.is_remote else self.home) / "pg.img"

    def make(self, node: Node, *, lab: str, hosts_file: str) -> None:
        """Make the images, and what a machine gets once in its life: its name, its machine id."""
        for folder in (self.home, self._disk, self.root):
            folder.mkdir(parents=True, exist_ok=True)
        _format(self.home / "root.img", node.root_mib)
        if self.has_volume:
            if self.is_remote:
                _format(self.home / "shelf.img", node.volume_mib + SHELF_SPARE_MIB)
                self._mount_shelf()
            _format(self._volume_image, node.volume_mib)
            if self.is_remote:
                machine.unmount(self._shelf)
        self.mount()
        etc = self.root / "etc"
        (etc / "hostname").write_text(f"{node.name}\n", encoding="ascii")
        (etc / "hosts").write_text(hosts_file, encoding="ascii")
        (etc / "machine-id").write_text(
            hashlib.sha256(f"{lab}/{node.name}".encode()).hexdigest()[:32] + "\n", encoding="ascii"
        )
        units = etc / "systemd/system"
        units.mkdir(parents=True, exist_ok=True)
        for needless in ("systemd-ask-password-console.path", "systemd-ask-password-wall.path"):
            (units / needless).symlink_to("/dev/null")  # nobody types here; each would hold an inotify instance
        self.unmount()

    def mount(self) -> None:
        """Mount the images and the overlay."""
        self._wait_for_loops()
        machine.tool("mount", "-o", "loop,noatime", str(self.home / "root.img"), str(self._disk))
        for folder in ("upper", "work"):
            (self._disk / folder).mkdir(exist_ok=True)
        lower = ":".join(str(p) for p in self.lower)
        machine.tool(
            "mount",
            "-t",
            "overlay",
            "overlay",
            "-o",
            f"lowerdir={lower},upperdir={self._disk / 'upper'},workdir={self._disk / 'work'}",
            str(self.root),
        )
        if self.has_volume:
            self._volume.mkdir(parents=True, exist_ok=True)
            if self.is_remote:
                self._mount_shelf()
            machine.tool("mount", "-o", "loop,noatime", str(self._volume_image), str(self._volume))

    def _mount_shelf(self) -> None:
        self._shelf.mkdir(exist_ok=True)
        machine.tool("mount", "-o", "loop,noatime", str(self.home / "shelf.img"), str(self._shelf))

    def _wait_for_loops(self) -> None:
        """A loop device of an earlier life must be gone: else its dead file system would be mounted again."""
        end = time.monotonic() + 10
        while machine.loops_below(self.home):
            if time.monotonic() > end:
                raise Unknown(f"the disks in {self.home} are still in use")
            time.sleep(0.01)

    def hang(self, *, device: bool = False) -> None:
        """Let every write to the database's volume wait for ever; with `device`, the block device below it hangs."""
        machine.tool("fsfreeze", "--freeze", str(self._shelf if device else self._volume))

    def thaw(self) -> None:
        """End a hang; does nothing where there is none."""
        for point in self._hangable:  # the device first: what waits for it may be what the file system waits for
            machine.succeeds("fsfreeze", "--unfreeze", str(point))

    @property
    def _hangable(self) -> list[Path]:
        return [p for p in (self._shelf, self._volume) if self.has_volume and p.is_mount()]

    def detach(self, *, device: bool = False) -> None:
        """Let every access to the database's volume fail, until the host was off and on again.

        With `device`, it is the block device below it that fails.
        """
        machine.drop_unsynced(self._shelf if device else self._volume)

    def is_detached(self) -> bool:
        """Return whether the volume was detached since the host was powered on."""
        return not all(_is_writable(p) for p in self._hangable)

    def require_remote(self) -> None:
        """Refuse unless the volume is a remote one."""
        if not self.is_remote:
            raise OperatorFault(
                "The volume of this host is a disk of its own.",
                hint="Bring the lab up with `futago lab up --remote-volumes`.",
                code="lab.local-volume",
            )

    @property
    def root_spare(self) -> Path:
        """A folder on the file system below the host's root, outside what the host sees."""
        return self._disk

    @property
    def volume(self) -> Path:
        """Where the database's volume is mounted, as the daemon sees it."""
        return self._volume

    def lose_power(self) -> None:
        """Lose at once what was not synced. The mounts stay, dead, until `unmount`."""
        if self.has_volume and self.is_remote:  # first of all, and thawed: else the loss of what is above would wait
            machine.drop_unsynced(self._shelf)
            machine.succeeds("fsfreeze", "--unfreeze", str(self._shelf))
        if self.has_volume:
            machine.drop_unsynced(self._volume)
        machine.drop_unsynced(self._disk)

    def unmount(self) -> None:
        """Unmount everything; waits for the last process to be gone."""
        volume = (self._volume, self._shelf) if self.has_volume else ()
        for point in (*volume, self.root, self._disk):
            machine.unmount(point)


def _is_writable(folder: Path) -> bool:
    """Ask the file system itself; one that is full is writable."""
    probe = folder / "lab-probe"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fsync(fd)
        os.close(fd)
        probe.unlink()
    except OSError as e:
        return e.errno not in (errno.EIO, errno.EROFS)
    return True


def _format(image: Path, mib: int) -> None:
    if image.exists():
        return
    with image.open("wb") as f:
        f.truncate(mib << 20)
    machine.tool(
        "mkfs.ext4",
        "-q",
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        "-O",
        "^resize_inode",
        "-m",
        "0",
        str(image),
    )
