"""What another user of the machine can do with a running cluster: nothing. Needs root, to become that user."""

import errno
import fcntl
import glob
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile

import pytest

import libray

NOBODY, ANOTHER = 65534, 64001
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


# ---- what another user made is not joined ------------------------------------------------------------------


@pytest.fixture
def shared():
    """A folder to which everybody has access, like /tmp."""
    folder = tempfile.mkdtemp(prefix="libray-shared-", dir="/tmp")
    os.chmod(folder, 0o1777)
    yield folder
    shutil.rmtree(folder)


class Trap:
    """A session of the user `victim` at whose sockets this process listens, with some pieces of another user's."""

    def __init__(self, base, victim, foreign):
        self.folder = os.path.join(base, "session-99999999-000000-1-aaaaaa")
        os.makedirs(self.folder, mode=0o700)
        with open(os.path.join(self.folder, "token"), "w") as token:
            token.write("0" * 32)
        self.lock = open(os.path.join(self.folder, "lock"), "w")
        fcntl.flock(self.lock, fcntl.LOCK_SH)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.path.join(self.folder, "node.sock")
        self.listener.bind(path)
        self.listener.listen(5)
        self.listener.setblocking(False)
        pieces = {"base": base, "session": self.folder, "token": self.folder + "/token",
                  "lock": self.folder + "/lock", "socket": path}
        for name, piece in pieces.items():
            owner = ANOTHER if name == foreign else victim
            os.chown(piece, owner, owner)
            os.chmod(piece, 0o777 if name == foreign else 0o700 if os.path.isdir(piece) else 0o600)

    def received(self):
        """Bytes that came in; None when nobody connected."""
        try:
            connection, _ = self.listener.accept()
        except BlockingIOError:
            return None
        with connection:
            connection.settimeout(5)
            return connection.recv(1 << 18)


@pytest.mark.parametrize("how", ["auto", "path"])
@pytest.mark.parametrize("foreign", ["base", "session", "token", "lock", "socket", "daemon"])
def test_a_session_with_something_of_another_user_is_not_joined(shared, foreign, how):
    base = os.path.join(shared, "base")
    trap = Trap(base, NOBODY, foreign)  # root listens: for "daemon" that alone is wrong

    def attempt():
        os.environ["LIBRAY_TMPDIR"] = base
        os.environ["LR_SECRET"] = "secret"
        try:
            libray.init(address="auto" if how == "auto" else trap.folder)
        except Exception as e:
            return f"{type(e).__name__}: {e}"
        return "joined"

    answer = as_nobody(attempt)
    assert answer != "joined"
    if foreign == "base" and how == "path":  # the session itself is looked at; who listens there is not this user
        assert "belongs to user 0" in answer
    elif how == "path":
        assert "belongs to user" in answer, answer
    assert trap.received() in (None, b"")


def test_the_daemon_refuses_another_user_before_the_first_byte(session):
    folder, _, _ = session
    path, store = os.path.join(folder, "node.sock"), os.path.join(folder, "store.sock")
    os.chmod(folder, 0o711)  # should the way there ever be open
    os.chmod(os.path.dirname(folder), 0o711)
    os.chmod(path, 0o666)
    os.chmod(store, 0o666)

    def attempt():
        got = []
        for where in (path, store):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                s.settimeout(3)
                s.connect(where)
                try:
                    text = s.recv(1 << 16)
                except (ConnectionResetError, TimeoutError) as e:
                    text = repr(e).encode()
                got.append(text.decode(errors="replace"))
        return got

    try:
        node, store_answer = as_nobody(attempt)
    finally:
        os.chmod(os.path.dirname(folder), 0o700)
        os.chmod(folder, 0o700)
        os.chmod(path, 0o600)
        os.chmod(store, 0o600)
    assert f"user {NOBODY} is not the user of this session" in node
    assert store_answer == ""
    assert libray.get(libray.put(1)) == 1


def test_copies_of_a_runtime_environment_are_nobody_elses(shared):
    """In a folder that everybody shares, another user made `packages` first."""
    os.mkdir(os.path.join(shared, "packages"))
    os.chmod(os.path.join(shared, "packages"), 0o777)
    os.chown(os.path.join(shared, "packages"), ANOTHER, ANOTHER)
    source = os.path.join(shared, "code")
    os.mkdir(source)
    os.chmod(source, 0o755)
    with open(os.path.join(source, "module.py"), "w") as f:
        f.write("x = 1\n")

    def attempt():
        from libray.core import runtime_env

        os.environ["LIBRAY_TMPDIR"] = shared
        os.umask(0)
        copy = runtime_env.package(source)
        owners = []
        at = copy
        while at != shared:
            status = os.stat(at)
            owners.append((status.st_uid, status.st_mode & 0o022))
            at = os.path.dirname(at)
        return sorted(os.listdir(copy)), sorted({tuple(o) for o in owners})

    assert as_nobody(attempt) == [["module.py"], [[NOBODY, 0]]]


@pytest.mark.parametrize("foreign", ["owner", "mode"])
def test_a_copy_that_was_swapped_is_not_entered(shared, foreign):
    copy = os.path.join(shared, "packages", "of-x", "copy-0")
    os.makedirs(copy)
    os.chown(copy, *((ANOTHER, ANOTHER) if foreign == "owner" else (NOBODY, NOBODY)))
    os.chmod(copy, 0o777)

    def attempt():
        from libray.core import runtime_env

        before, got = os.getcwd(), []
        for env in ({"working_dir": copy}, {"py_modules": [copy]}):
            try:
                runtime_env.enter(env)
                runtime_env.extend_path()
            except OSError as e:
                got.append(type(e).__name__)
        return got, os.getcwd() == before, copy in sys.path, runtime_env._is_copy(copy)

    assert as_nobody(attempt) == [["PermissionError"] * 2, True, False, False]


def test_tools_read_no_session_of_another_user(shared):
    trap = Trap(os.path.join(shared, "base"), ANOTHER, "daemon")
    tool = [sys.executable, "-m", "libray._cli"]
    env = {**os.environ, "LIBRAY_TMPDIR": os.path.dirname(trap.folder)}
    for command in (["status"], ["logs"], ["stop"], ["tasks"], ["stack"]):
        done = subprocess.run(
            [*tool, *command, "-s", trap.folder], env=env, capture_output=True, text=True, timeout=30
        )
        assert done.returncode != 0 and f"belongs to user {ANOTHER}" in done.stderr, (command, done)
    done = subprocess.run([*tool, "sessions"], env=env, capture_output=True, text=True, timeout=30)
    assert os.path.basename(trap.folder) not in done.stdout
