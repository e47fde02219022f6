"""What another user of the machine can do with a running cluster: nothing. Needs root, to become that user."""

import errno
import glob
import json
import os
import socket
import stat
import struct

import pytest

import libray

NOBODY = 65534
_DENIED = (errno.EACCES, errno.EPERM, errno.ENOENT)  # ENOENT: the way there is closed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@libray.remote
class Holder:
    """A worker that stays and has an object of the store mapped."""

    def hold(self, value):
        self.value = value
        return os.getpid()


@pytest.fixture(scope="module")
def session():
    context = libray.init(num_cpus=2)
    holder = Holder.remote()
    pid = libray.get(holder.hold.remote(libray.put(bytes(4 << 20))), timeout=60)
    folder = context.address_info["session_dir"]
    yield folder, processes(folder, pid), holder
    libray.shutdown()


def processes(folder, *known):
    """Everything that belongs to the session: this driver, the daemon, shards, zygote, workers."""
    found = {os.getpid(), *known}
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as f:
                text = f.read()
        except OSError:
            continue
        if folder.encode() in text:
            found.add(int(path.split("/")[2]))
    return sorted(found)


def as_nobody(attempt):
    """Runs attempt() in a child that is another user; what it returns (JSON)."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer = {"error": "died"}
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            assert os.geteuid() == NOBODY
            answer = attempt()
        except BaseException as e:
            answer = {"error": repr(e)}
        finally:
            os.write(write, json.dumps(answer).encode())
            os._exit(0)
    os.close(write)
    text = b""
    while True:
        part = os.read(read, 1 << 16)
        if not part:
            break
        text += part
    os.close(read)
    os.waitpid(child, 0)
    return json.loads(text)


def opened(paths):
    """Those of the paths that can be opened."""
    got = []
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as e:
            if e.errno not in _DENIED + (errno.ENXIO,):
                got.append(f"{path}: {e}")
            if e.errno == errno.ENXIO and not stat.S_ISSOCK(os.stat(path).st_mode):
                got.append(path)
        else:
            os.close(fd)
            got.append(path)
    return got


def tree(folder):
    for where, folders, names in os.walk(folder):
        yield where
        for name in folders + names:
            yield os.path.join(where, name)


def test_the_other_user_is_a_real_one(session):
    """The way of asking finds an open file when there is one."""
    assert as_nobody(lambda: opened(["/proc/self/status", "/etc/passwd"])) == ["/proc/self/status", "/etc/passwd"]


def test_no_file_of_the_session_can_be_read(session):
    folder, _, _ = session
    paths = list(tree(folder))
    assert {"token", "session.json", "node.sock"} <= {os.path.basename(p) for p in paths}
    assert as_nobody(lambda: opened(paths)) == []
    base = os.path.dirname(folder)
    assert as_nobody(lambda: opened([base])) == []
    # Not only by the way there: each is private by itself, in case that somebody opens the folder.
    loose = [p for p in paths if not os.path.islink(p) and os.stat(p).st_mode & 0o077]
    assert loose == []


def test_no_socket_can_be_connected(session):
    folder, pids, _ = session
    sockets = [p for p in tree(folder) if stat.S_ISSOCK(os.stat(p).st_mode)]
    assert {os.path.basename(p) for p in sockets} >= {"node.sock", "store.sock", "gcs-0.sock"}

    def attempt():
        got = []
        for path in sockets:
            for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
                with socket.socket(socket.AF_UNIX, kind) as s:
                    try:
                        s.connect(path)
                        got.append(path)
                    except PermissionError:
                        pass
        return got

    assert as_nobody(attempt) == []
    # Names of the abstract kind have no permissions: there must be none.
    own = inodes(pids)
    with open("/proc/net/unix") as f:
        rows = [line.split() for line in f.readlines()[1:]]
    assert [r[7] for r in rows if len(r) > 7 and r[7].startswith("@") and r[6] in own] == []


def test_no_process_can_be_signalled_or_looked_into(session):
    _, pids, _ = session
    assert len(pids) >= 5

    def attempt():
        got = []
        for pid in pids:
            try:
                os.kill(pid, 0)
                got.append(pid)
            except ProcessLookupError:  # a worker that was not needed any more
                pass
            except PermissionError:
                pass
        return got + opened(f"/proc/{pid}/{name}" for pid in pids for name in ("mem", "environ", "maps", "syscall"))

    assert as_nobody(attempt) == []


def test_no_shared_memory_can_be_opened_through_proc(session):
    _, pids, _ = session
    paths, memfds = [], 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/fd/*") + glob.glob(f"/proc/{pid}/map_files/*"):
            try:
                memfds += "memfd:" in os.readlink(path)
            except OSError:
                continue
            paths.append(path)
    assert memfds > 0
    assert as_nobody(lambda: opened(paths)) == []
    # The fuzz targets, which may run at the same time, keep their journals there.
    assert [n for n in os.listdir("/dev/shm") if "ray" in n and "fuzz" not in n] == []


def inodes(pids):
    """Inodes of the sockets that the processes have open."""
    found = set()
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/fd/*"):
            try:
                target = os.readlink(path)
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


def endpoints(name):
    """(local address, state, inode) of every socket in /proc/net/NAME."""
    try:
        with open(f"/proc/net/{name}") as f:
            rows = [line.split() for line in f.readlines()[1:]]
    except FileNotFoundError:
        return
    for row in rows:
        address = bytes.fromhex(row[1].split(":")[0])
        words = struct.unpack(f"<{len(address) // 4}I", address)
        packed = struct.pack(f">{len(words)}I", *words)
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        yield socket.inet_ntop(family, packed), row[3], row[9]


def test_nothing_listens_off_the_machine(session):
    _, pids, _ = session
    with socket.socket() as probe:  # the way of asking finds what listens everywhere
        probe.bind(("0.0.0.0", 0))
        probe.listen()
        own = inodes([os.getpid()])
        assert "0.0.0.0" in [a for a, state, inode in endpoints("tcp") if state == "0A" and inode in own]
    own = inodes(pids)
    assert own
    for name in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        found = [a for a, _, inode in endpoints(name) if inode in own]
        assert [a for a in found if not a.startswith("127.") and a != "::1"] == [], name
