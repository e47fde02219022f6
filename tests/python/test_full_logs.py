"""A disk that is full: what workers print is lost, and said to be, and nothing else comes of it."""

import tempfile

import pytest

COMMON = """
import ctypes, glob, os, resource, sys, time
import libray

@libray.remote
class Speaker:
    def pid(self):
        return os.getpid()
    def say(self, word, n=1):
        for i in range(n):
            print(word, i)
            print(word, i, file=sys.stderr)
        return n

@libray.remote
def say(word):
    print(word)
    return os.getpid()

def text_of(folder, pid, kind):
    with open(glob.glob(f"{folder}/logs/worker-*-{pid}.{kind}")[0]) as f:
        return f.read()
"""

# A whole session on a disk of 24 MB that the program fills and empties. Only this program sees the disk.
SMALL_DISK = COMMON + """
libc = ctypes.CDLL(None, use_errno=True)
NEW_NAMESPACE, PRIVATE, RECURSIVE = 0x20000, 1 << 18, 1 << 14
base = sys.argv[1]
if (libc.unshare(NEW_NAMESPACE) or libc.mount(b"none", b"/", None, PRIVATE | RECURSIVE, None)
        or libc.mount(b"none", base.encode(), b"tmpfs", 0, b"size=24m,mode=700")):
    print("no mount:", os.strerror(ctypes.get_errno()))
    raise SystemExit(0)
os.environ["LIBRAY_TMPDIR"] = base

def fill():
    fd = os.open(f"{base}/ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (1 << 20, 4096, 1):
        try:
            while True:
                os.write(fd, bytes(size))
        except OSError:
            pass
    os.close(fd)

def free():
    os.unlink(f"{base}/ballast")
"""


@pytest.fixture
def on_a_small_disk(run_script):
    def run(source, timeout=120):
        with tempfile.TemporaryDirectory() as disk:  # paths of sockets are short
            done = run_script(SMALL_DISK + source, disk, timeout=timeout)
        if done.stdout.startswith("no mount"):
            pytest.skip(done.stdout)
        return done

    return run


def test_a_worker_whose_file_may_not_grow(run_script):
    """The same for any reason that the system has: here a limit of file sizes. No task fails for a print."""
    done = run_script(COMMON + """
folder = libray.init(num_cpus=2)["session_dir"]
actor = Speaker.remote()
pid = libray.get(actor.pid.remote())
libray.get(actor.say.remote("before"))
old = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
assert libray.get(actor.say.remote("lost", 500), timeout=60) == 500
resource.prlimit(pid, resource.RLIMIT_FSIZE, old)
assert libray.get(actor.say.remote("after"), timeout=60) == 1
for kind in ("out", "err"):
    text = text_of(folder, pid, kind)
    assert "before 0" in text and "after 0" in text and "lost 499" not in text, text
    assert text.count("bytes of output are lost here: File too large") == 1, text
print("done")
""")
    assert "done" in done.stdout
    # The driver shows what its user is to know, with the name of whom it is about.
    assert "(Speaker pid=" in done.stdout and "bytes of output are lost here" in done.stdout
    assert "after 0" in done.stdout and "after 0" in done.stderr


def test_a_full_disk(on_a_small_disk):
    """Journal, logs and session on it: tasks and actors go on, new workers start, the driver is told once."""
    done = on_a_small_disk("""
folder = libray.init(num_cpus=2, object_store_memory=64 << 20)["session_dir"]
actor = Speaker.remote()
pid = libray.get(actor.pid.remote(), timeout=60)
libray.get(actor.say.remote("before"), timeout=60)
fill()
assert libray.get(actor.say.remote("lost", 2000), timeout=60) == 2000
assert libray.get([say.remote("lost") for _ in range(200)], timeout=60)
new = Speaker.options(num_cpus=0).remote()
assert libray.get(new.say.remote("lost", 2000), timeout=60) == 2000
until = time.monotonic() + 12  # one that repeats itself would have done so by then
while time.monotonic() < until:
    libray.get(actor.say.remote("lost", 20), timeout=60)
    time.sleep(0.05)
free()
assert libray.get(actor.say.remote("after"), timeout=60) == 1
text = text_of(folder, pid, "out")
assert "before 0" in text and "after 0" in text, text
assert "bytes of output are lost here: No space left on device" in text, text
another = Speaker.options(num_cpus=0).remote()
assert libray.get(another.say.remote("anew"), timeout=60) == 1
while "there is room for logs again" not in open(f"{folder}/logs/rayd.log").read():
    libray.get(actor.say.remote("after"), timeout=60)
    assert time.monotonic() < until + 30
    time.sleep(0.05)
print("done")
""")
    assert "done" in done.stdout, done.stderr
    assert done.stderr.count("the disk of ") == 1, done.stderr
    assert "tasks go on" in done.stderr and "LIBRAY_TMPDIR" in done.stderr
    assert "anew 0" in done.stdout


def test_a_log_that_may_not_grow_does_not_end_the_daemon(run_script):
    """A limit of file sizes, as `ulimit -f` gives: an error like another, not the signal that kills."""
    done = run_script(COMMON + """
folder = libray.init(num_cpus=1)["session_dir"]
assert libray.get(say.remote("one"), timeout=60)
import json
daemon = json.load(open(f"{folder}/session.json"))["pid"]
size = os.path.getsize(f"{folder}/logs/rayd.log")
old = resource.prlimit(daemon, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
waiting = [say.options(num_cpus=100 + i).remote("never") for i in range(3)]  # each is a line
assert libray.get([say.remote("two") for _ in range(100)], timeout=60)
time.sleep(1)
resource.prlimit(daemon, resource.RLIMIT_FSIZE, old)
waiting.append(say.options(num_cpus=200).remote("never"))
until = time.monotonic() + 20
while "lines of this log are lost" not in open(f"{folder}/logs/rayd.log").read():
    libray.get(say.remote("four"), timeout=60)
    assert time.monotonic() < until
print("done")
""")
    assert "done" in done.stdout, done.stderr
    assert "is full" in done.stderr, done.stderr
