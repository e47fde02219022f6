"""Where this user's sessions lie, for what is needed before the runtime runs. libray/session/session.h has the rules, and
docs/security.md says why: a path proves nothing, so owner and mode are looked at through a descriptor."""

from __future__ import annotations

import os
import stat

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def base_path() -> str:
    """LIBRAY_TMPDIR, else /tmp/libray-UID. A folder that everybody may write to, such as /tmp, stands for one of this
    user's in it. Is not made."""
    base = os.path.abspath(os.environ.get("LIBRAY_TMPDIR") or f"/tmp/libray-{os.geteuid()}")
    try:
        status = os.lstat(base)
    except OSError:
        return base
    shared = stat.S_ISDIR(status.st_mode) and status.st_mode & _OTHERS_WRITE and status.st_mode & stat.S_ISVTX
    if shared and status.st_uid in (0, os.geteuid()):
        return os.path.join(base, f"libray-{os.geteuid()}")
    return base


def open_own(path: str) -> int:
    """A descriptor of a folder that belongs to this user and to which nobody else may write."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE:
        return fd
    os.close(fd)
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path!r} belongs to user {status.st_uid}, not to this one: it is not used")
    raise PermissionError(
        f"{path!r} may be written by other users (mode {stat.S_IMODE(status.st_mode):04o}): chmod go-w it"
    )


def own_folder(path: str) -> str:
    """Makes the folder when it is absent, for this user alone whatever the umask; what is there must be so too."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    os.close(open_own(path))
    return path


def make_base() -> str:
    """The base, made and checked as ray_init does it."""
    base = base_path()
    above = os.path.realpath(os.path.dirname(base))
    while True:
        mode = os.stat(above).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PermissionError(
                f"session base {base!r} can be replaced by any user, who may write to {above!r}: chmod o-w that, or "
                "set LIBRAY_TMPDIR to another folder"
            )
        if above == os.path.dirname(above):
            break
        above = os.path.dirname(above)
    try:
        return own_folder(base)
    except PermissionError:
        status = os.lstat(base) if base == f"/tmp/libray-{os.geteuid()}" else None
        if status is None or not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise
        os.chmod(base, 0o700)  # ours alone by its name: whatever opened it to others is put right
        return base


def _head_of(folder: str) -> str:
    """Where the head of its cluster listens; empty when the node is in none, or no longer."""
    import json

    try:
        with open(os.path.join(folder, "cluster.json"), encoding="utf-8") as file:
            cluster = json.load(file)
        return "" if cluster["ended"] else str(cluster["head"])
    except (OSError, ValueError, KeyError):
        return ""


def running(head: str = "") -> str:
    """The newest session of this user whose node is alive; with `head` (HOST:PORT), of those that belong to the cluster
    of that head. Empty when there is none."""
    import fcntl

    base = base_path()
    try:
        os.close(open_own(base))
        names = sorted((n for n in os.listdir(base) if n.startswith("session-")), reverse=True)
    except OSError:
        return ""
    for name in names:
        folder = os.path.join(base, name)
        try:
            fd = open_own(folder)
        except OSError:
            continue
        try:
            lock = os.open("lock", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
        except OSError:
            continue
        finally:
            os.close(fd)
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its daemon holds it
            if not head or head == _head_of(folder):
                return folder
        except OSError:
            continue
        finally:
            os.close(lock)
    return ""
