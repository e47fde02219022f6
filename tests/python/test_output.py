"""What workers print reaches the driver's terminal: names, streams, partial and huge lines, folding of
repeated lines, logging. Each program runs in an interpreter of its own, with pipes as its terminal."""

import os
import pty
import re
import subprocess
import sys
import textwrap

import pytest

import libray
from libray.core.output_labels import encode_label
from libray.driver.log_dedup import Deduplicator
from libray.driver.log_monitor import _File

PREFIX = re.compile(r"^\((?:(.*) )?pid=(\d+)\) (.*)$")


def lines_of(text):
    """[(name, line)] of what workers printed."""
    return [
        (m.group(1) or "", m.group(3)) for m in map(PREFIX.match, text.splitlines()) if m is not None
    ]


def test_names_and_streams(run_script):
    done = run_script("""
        import libray, sys
        libray.init(num_cpus=2)

        def scope():
            @libray.remote
            def speak(word):
                print("out", word)
                print("err", word, file=sys.stderr)

            @libray.remote
            class Plain:
                def __init__(self):
                    print("made")
                def speak(self):
                    print("spoken")

            @libray.remote
            class Described(object):
                def __init__(self):
                    print("made")
                    self.ready = 7
                def __repr__(self):
                    return f"Described({self.ready})"
                async def speak(self):
                    print("spoken")

            libray.get(speak.remote("one"))
            libray.get(speak.options(name="named").remote("two"))
            actors = [Plain.options(name="an actor").remote(), Described.remote()]
            libray.get([a.speak.remote() for a in actors])
        scope()
    """)
    out, err = lines_of(done.stdout), lines_of(done.stderr)
    assert ("speak", "out one") in out and ("named", "out two") in out
    assert ("speak", "err one") in err and ("named", "err two") in err
    assert ("Plain", "made") in out and ("Plain", "spoken") in out
    assert ("Described", "made") in out and ("Described(7)", "spoken") in out
    assert not any("out one" in line for _, line in err)


def test_output_comes_while_the_driver_waits(run_script):
    """Nobody has to end or to call: the line is there while the worker still runs."""
    done = run_script("""
        import libray, os, sys, threading, time
        libray.init(num_cpus=1)

        @libray.remote
        def slow():
            print("begun")
            time.sleep(60)

        read, write = os.pipe()
        saved = os.dup(1)
        os.dup2(write, 1)
        ref = slow.remote()
        text = os.read(read, 1000)
        os.dup2(saved, 1)
        print(b"(slow pid=" in text and b"begun" in text, flush=True)
        libray.cancel(ref, force=True)
    """)
    assert done.stdout.split()[0] == "True"


def test_odd_output(run_script):
    """Lines without an end, many lines, huge lines, bytes that are no text, output of C code and of
    children, output after the stream was replaced."""
    done = run_script("""
        import libray, os, subprocess, sys
        libray.init(num_cpus=1)

        @libray.remote
        def partial():
            print("no end", end="")

        @libray.remote
        def many():
            print("first\\nsecond\\n\\nfourth")

        @libray.remote
        def huge():
            print("x" * 3_000_000)

        @libray.remote
        def binary():
            sys.stdout.buffer.write(b"\\xff\\xfe bytes \\x00\\n")
            sys.stdout.flush()

        @libray.remote
        class Parent:
            def run(self):
                os.write(1, b"raw\\n")
                subprocess.run(["echo", "child"], check=True)
                sys.stdout.write("\\udc80 surrogate\\n")

        libray.get(partial.remote())
        libray.get(many.remote())
        libray.get(huge.remote())
        libray.get(binary.remote())
        libray.get(Parent.remote().run.remote())
    """)
    out = lines_of(done.stdout)
    assert ("partial", "no end") in out
    at = out.index(("many", "first"))
    assert out[at + 1 : at + 4] == [("many", "second"), ("many", ""), ("many", "fourth")]
    assert sum(len(line) for name, line in out if name == "huge") == 3_000_000
    assert any(name == "binary" and "bytes" in line for name, line in out)
    assert ("Parent", "raw") in out and ("Parent", "child") in out
    assert any(name == "Parent" and "surrogate" in line for name, line in out)


def test_last_words(run_script):
    """What was printed right before the end of the program, of an actor, or of a worker's process."""
    done = run_script("""
        import libray, os, sys, faulthandler
        libray.init(num_cpus=2)

        @libray.remote(max_retries=0)
        def dies():
            print("before the end")
            os._exit(3)

        @libray.remote
        class Leaver:
            def leave(self):
                print("leaving", end="")
                libray.exit_actor()

        @libray.remote
        def last():
            print("very last")

        for call in (dies.remote, Leaver.remote().leave.remote):
            try:
                libray.get(call())
            except libray.exceptions.RayError:
                pass
        libray.get(last.remote())
        raise RuntimeError("the driver ends here")
    """, check=False)
    out = lines_of(done.stdout)
    assert ("dies", "before the end") in out
    assert ("Leaver", "leaving") in out
    assert ("last", "very last") in out
    assert "the driver ends here" in done.stderr


REPEATED = """
    import libray, os, time
    libray.init(num_cpus=4)

    @libray.remote
    class Speaker:
        def speak(self, i):
            print("a line of each", i)
            print("only of", "abcd"[i])

    speakers = [Speaker.remote() for _ in range(4)]
    libray.get([s.speak.remote(i) for i, s in enumerate(speakers)])
"""


def test_repeated_lines_are_folded(run_script):
    out = lines_of(run_script(REPEATED).stdout)
    repeated = [line for _, line in out if "a line of each" in line]
    assert len(repeated) == 2
    assert "[repeated 3x across cluster]" in repeated[1] and "LIBRAY_DEDUP_LOGS=0" in repeated[1]
    assert sorted(line for _, line in out if "only of" in line) == [f"only of {c}" for c in "abcd"]


@pytest.mark.parametrize("name", ["LIBRAY_DEDUP_LOGS", "RAY_DEDUP_LOGS"])
def test_folding_can_be_turned_off(run_script, name):
    out = lines_of(run_script(REPEATED, env={name: "0"}).stdout)
    assert len([line for _, line in out if "a line of each" in line]) == 4


def test_folding_rules():
    fold = Deduplicator()
    printed = [fold.add(f"step {i}", False, source=i % 3, origin=i, now=0.0) for i in range(6)]
    assert printed == [True] + 5 * [False]
    assert fold.add("step 6", True, 9, "error", 0.0), "errors and output are kept apart"
    assert fold.expire(4.9) == []
    (origin, line), = fold.expire(5.1)
    assert origin == 5 and line.startswith("step 5 [repeated 5x across cluster]")
    assert not fold.add("step 7", False, 1, 7, 6.0), "a line that was repeated is watched on"
    assert fold.flush() == [(7, "step 7")]
    same = Deduplicator()
    assert all(same.add("mine", False, 1, i, 0.0) for i in range(3)), "one worker's are never folded"
    assert all(same.add("...", False, i, i, 0.0) or True for i in range(3))
    assert all(same.add("  12 ", False, i, i, 0.0) for i in range(3)), "nothing but numbers"


def test_labels_inside_a_line():
    file = _File("/nowhere", 1, False)
    a, b = encode_label("a"), encode_label("b\n")
    assert file.split(a + b"one\ntw", 0.0) == [("a", b"one")]
    assert file.split(b"o" + b[:5], 0.0) == []
    assert file.split(b[5:] + b"three\n", 0.0) == [("a", b"two"), ("b ", b"three")]
    assert file.take_rest() == []


def test_log_to_driver_false(run_script):
    done = run_script("""
        import libray, glob
        context = libray.init(num_cpus=1, log_to_driver=False)

        @libray.remote
        def speak():
            print("words of a worker")

        libray.get(speak.remote())
        (path,) = glob.glob(context["session_dir"] + "/logs/worker-*.out")
        print("words of a worker" in open(path).read())
    """)
    assert done.stdout.split() == ["True"] and "words" not in done.stderr


def test_colour_on_a_terminal(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent("""
        import libray
        libray.init(num_cpus=1)

        @libray.remote
        def speak():
            print("words")

        libray.get(speak.remote())
        libray.shutdown()
    """))
    main, side = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    child = subprocess.Popen([sys.executable, str(program)], stdout=side, stdin=side, env=env)
    os.close(side)
    text = b""
    while True:
        try:
            piece = os.read(main, 4096)
        except OSError:  # EIO: the other side is closed
            break
        if not piece:
            break
        text += piece
    assert child.wait(timeout=60) == 0
    assert re.search(rb"\x1b\[36m\(speak pid=\d+\)\x1b\[0m words", text)


def test_each_driver_sees_its_own(run_script):
    context = libray.init(num_cpus=2)
    try:

        @libray.remote
        class Speaker:
            def speak(self):
                print("of the first driver")
                return 1

        keep = Speaker.options(name="speaker", namespace="shared", lifetime="detached").remote()
        done = run_script(f"""
            import libray
            libray.init(address={context["session_dir"]!r}, namespace="shared")

            @libray.remote
            def mine():
                print("of the second driver")

            libray.get([libray.get_actor("speaker").speak.remote(), mine.remote()])
        """)
        assert lines_of(done.stdout) == [("mine", "of the second driver")]
        libray.kill(keep)
    finally:
        libray.shutdown()


def test_logging(run_script):
    program = """
        import json, logging, sys
        import libray
        libray.init(num_cpus=1, logging_config=libray.LoggingConfig(encoding="JSON", log_level="INFO"))

        @libray.remote
        class Actor:
            def log(self):
                logging.getLogger("user").info("from the actor", extra={"shoe": 42})
                logging.getLogger("user").debug("too fine")

        libray.get(Actor.remote().log.remote())
        logging.info("from the driver")
    """
    done = run_script(program)
    import json

    (line,) = [line for _, line in lines_of(done.stderr) if "from the actor" in line]
    record = json.loads(line)
    assert record["levelname"] == "INFO" and record["message"] == "from the actor"
    assert record["shoe"] == 42 and record["actor_id"] and record["task_id"] and record["job_id"]
    (own,) = [line for line in done.stderr.splitlines() if line.startswith("{")]
    assert json.loads(own)["message"] == "from the driver"
    assert "too fine" not in done.stderr
    with pytest.raises(ValueError, match="Invalid encoding type"):
        libray.LoggingConfig(encoding="XML")


def test_own_logger(run_script):
    done = run_script("""
        import logging
        import libray
        libray.init(num_cpus=1, logging_level="warning", logging_format="%(levelname)s!%(message)s")
        logging.getLogger("libray").warning("said")
        logging.getLogger("libray").info("not said")
    """)
    assert done.stderr.splitlines() == ["WARNING!said"]


def test_files_tell_pid_and_job(fresh):
    context = fresh(num_cpus=1)

    @libray.remote
    def speak():
        print("words", flush=True)
        return os.getpid()

    pid = libray.get(speak.remote())
    job = libray.get_runtime_context().get_job_id()[:8]
    names = os.listdir(os.path.join(context["session_dir"], "logs"))
    assert any(re.fullmatch(rf"worker-\d+-{job}-{pid}\.out", name) for name in names), names


def test_a_reader_that_goes_away(run_script, tmp_path):
    """`program | head -1`: the program itself ends in order."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent("""
        import libray, sys
        libray.init(num_cpus=1)

        @libray.remote
        def speak(i):
            print("line", i)

        for i in range(50):
            libray.get(speak.remote(i))
        print("fine", file=sys.stderr)
        libray.shutdown()
        sys.stderr.flush()
        import os
        os._exit(0)
    """))
    child = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child.stdout.readline()
    child.stdout.close()
    assert "fine" in child.stderr.read()
    assert child.wait(timeout=60) == 0


def test_odd_names_among_the_logs(run_script):
    """Whatever a task makes in the folder of the logs, the lines of the others are shown."""
    done = run_script("""
        import libray, os, sys, time
        context = libray.init(num_cpus=1)

        @libray.remote
        def odd(folder, job):
            for name in (b"caf\\xe9.out", b"worker-1-\\xff-2.out", b"\\xff\\xfe"):
                with open(os.path.join(os.fsencode(folder), name), "wb") as f:
                    f.write(b"x\\n")
            os.mkdir(os.path.join(folder, f"worker-7-{job}-7.out"))
            os.mkfifo(os.path.join(folder, f"worker-8-{job}-8.out"))
            os.rename(os.path.join(os.fsencode(folder), b"\\xff\\xfe"), os.path.join(os.fsencode(folder), b"\\xfe"))
            print("first")

        @libray.remote
        def plain():
            print("second")

        libray.get(odd.remote(os.path.join(context["session_dir"], "logs"), libray._libray.context()["job"][:8]))
        time.sleep(0.3)
        libray.get(plain.remote())
        time.sleep(0.3)
        libray.get(plain.remote())
    """)
    lines = [line.split(") ", 1)[1] for line in done.stdout.splitlines()]
    assert lines[:2] == ["first", "second"], done.stdout + done.stderr
    assert "Exception" not in done.stderr


def test_a_stream_that_raises_ends_no_thread(run_script):
    """What the program put in the place of its standard output may fail as it likes."""
    done = run_script("""
        import libray, sys, time
        libray.init(num_cpus=1)

        class Odd:
            failed = 0

            def write(self, text):
                if "first" in text:
                    Odd.failed += 1
                    raise RuntimeError("not today")
                return sys.__stdout__.write(text)

            def flush(self):
                sys.__stdout__.flush()

        sys.stdout = Odd()

        @libray.remote
        def speak(text):
            print(text)

        libray.get(speak.remote("first"))
        while not Odd.failed:
            time.sleep(0.01)
        libray.get(speak.remote("second"))
        libray.shutdown()
    """)
    assert "second" in done.stdout and "Exception in thread" not in done.stderr


def test_a_task_that_closes_its_output_leaves_that_of_others_alone(run_script):
    done = run_script("""
        import libray, sys
        libray.init(num_cpus=1)

        @libray.remote
        def close(stream, part):
            stream = getattr(sys, stream)
            print("before", file=stream)
            {"it": stream, "buffer": stream.buffer, "raw": stream.buffer.raw}[part].close()

        @libray.remote
        def speak(word):
            print("out", word)
            print("err", word, file=sys.stderr)
            return word

        for n, stream in enumerate(("stdout", "stderr")):
            for part in ("it", "buffer", "raw"):
                libray.get(close.remote(stream, part))
                libray.get(speak.remote(part + str(n)))
        libray.shutdown()
        """)
    said = [line for _, line in lines_of(done.stdout)]
    for word in ("it0", "buffer0", "raw0", "it1", "buffer1", "raw1"):
        assert "out " + word in said, done.stdout
