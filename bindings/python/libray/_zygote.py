"""The warm process from which Python workers are forked: everything is imported, nothing runs. The
node daemon starts it by its path and speaks one line per message over the socket whose number is
in LIBRAY_ZYGOTE_FD:

    fork SPAWN          with two descriptors, the worker's stdout and stderr; what follows the line is
                        the worker's runtime environment as a packed map, if it has one
    ready | pid SPAWN PID | exit PID WAIT_STATUS     the answers

It has one thread and never joins the node, so that a fork is always safe. What a worker leaves behind becomes its child, and
is killed; when the socket ends, for the daemon was killed, so are the workers.
"""

import os
import sys

if __name__ == "__main__":
    # Started by path: the folder of the package itself must not be on sys.path, its parent must.
    _package = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != _package]
    if os.path.dirname(_package) not in sys.path:
        sys.path.insert(0, os.path.dirname(_package))

# Numeric libraries start a thread per CPU at import; a worker has its share of CPUs, and threads do
# not survive forks.
if "OMP_NUM_THREADS" not in os.environ:
    os.environ["LIBRAY_OMP_NUM_THREADS"] = "1"  # not the user's word: tasks with more CPUs get more
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


limit = None  # of open files, as the user gave it


def _receive(sock):
    """One message and its descriptors; (b"", []) at the end."""
    import array
    import socket

    fds = array.array("i")
    data, ancillary, _, _ = sock.recvmsg(32768, socket.CMSG_SPACE(4 * fds.itemsize))
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def _child(spawn, env, fds, parent, sock, children):
    import resource

    import libray._libray as extension

    if limit is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    os.setpgid(0, 0)
    if not extension.die_with_parent(parent):
        os._exit(1)
    os.dup2(fds[0], 1)
    os.dup2(fds[1], 2)
    for fd in fds + list(children):
        os.close(fd)
    sock.close()
    os.environ["LIBRAY_WORKER"] = str(spawn)
    os.environ.pop("LIBRAY_ZYGOTE_FD", None)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    code = 1
    try:
        import gc

        gc.enable()
        from libray.core import runtime_env
        from libray.worker import main as worker

        if env:
            runtime_env.enter(extension.decode(env, 1))
        code = worker.run()
    except BaseException:
        _say_exception()
    try:
        import atexit

        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _say_exception():
    import traceback

    try:
        traceback.print_exc()
    except OSError:  # no room for the log
        pass


def _cannot(spawn, sock, error):
    """No worker came of it: the daemon says why and tries again."""
    try:
        print(f"cannot start a worker: {error}", file=sys.stderr, flush=True)
    except OSError:  # no room for the log either
        pass
    sock.send(b"pid %d %d\n" % (spawn, -(error.errno or 1)))


def _fork(message, fds, sock, children, poll):
    import select

    line, _, env = message.partition(b"\n")
    spawn = int(line.split()[1])
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as e:
        return _cannot(spawn, sock, e)
    if pid == 0:
        _child(spawn, env, fds, parent, sock, children)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as e:  # its end would never be known
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        return _cannot(spawn, sock, e)
    import socket

    # With the descriptor: by the time that the daemon reads it the number may mean another process.
    socket.send_fds(sock, [b"pid %d %d\n" % (spawn, pid)], [pidfd])
    children[pidfd] = pid
    poll.register(pidfd, select.POLLIN)


def _raise_file_limit():
    """A descriptor per worker: as many as may be had. The workers get the user's limit back."""
    global limit
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            limit = (soft, hard)
        except (OSError, ValueError):
            pass


def _preload():
    """Imports what the driver uses too, once there is nothing else to do: later workers share
    it."""
    import importlib

    for name in os.environ.get("LIBRAY_PYTHON_PRELOAD", "").split(","):
        if name:
            try:
                importlib.import_module(name)
            except ImportError:
                pass


def _own_children():
    own = os.getpid()
    try:
        with open(f"/proc/self/task/{own}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # a kernel without that file
        pass
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == own:
                    found.append(int(entry))
        except OSError:
            pass
    return found


def _end_orphans(kept):
    """Kills all children but these, what they leave behind, which comes to this process, and so on to the last."""
    while True:
        orphans = [pid for pid in _own_children() if pid not in kept]
        if not orphans:
            return
        for pid in orphans:  # not waited for: the number is still its own
            os.kill(pid, 9)
        for pid in orphans:
            os.waitpid(pid, 0)


def main():
    import gc
    import select
    import socket

    from libray import _libray as extension
    from libray.core import runtime_env
    from libray.worker import main as worker  # everything that a worker needs
    from libray.api import foreign  # noqa: F401
    import cloudpickle  # noqa: F401

    sock = socket.socket(fileno=int(os.environ["LIBRAY_ZYGOTE_FD"]))
    sock.set_inheritable(False)
    sock.setblocking(True)
    os.set_inheritable(sock.fileno(), False)
    extension.adopt_orphans()
    extension.outlive_parent()  # it has something to do then
    runtime_env.enter_job()
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    children = {}
    helpers = set(_own_children())  # of modules that were imported here
    _raise_file_limit()
    worker.find_title_room()
    gc.collect()
    gc.disable()
    gc.freeze()
    sock.send(b"ready\n")
    idle_ms = 1000
    while True:
        events = poll.poll(idle_ms)
        if not events and idle_ms is not None:
            idle_ms = None
            workers = set(children.values())
            _preload()
            helpers.update(pid for pid in _own_children() if pid not in workers)
            gc.freeze()
            continue
        for fd, _ in events:
            if fd != sock.fileno():
                pid = children.pop(fd)
                poll.unregister(fd)
                os.close(fd)
                _, status = os.waitpid(pid, 0)
                _end_orphans(helpers.union(children.values()))
                sock.send(b"exit %d %d\n" % (pid, status))
                continue
            line, fds = _receive(sock)
            if not line:
                return _end_orphans(helpers)
            if line.startswith(b"fork ") and len(fds) == 2:
                _fork(line, fds, sock, children, poll)
            elif line.startswith(b"fork "):  # its descriptors did not fit into this process
                _cannot(int(line.split()[1]), sock, OSError(24, os.strerror(24)))
            for f in fds:
                os.close(f)


if __name__ == "__main__":
    import libray._zygote

    libray._zygote.main()
