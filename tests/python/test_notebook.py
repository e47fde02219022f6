"""A Jupyter notebook: its kernel has an event loop that runs already, its output is no terminal, its
cells are interrupted, its kernel is started anew."""

import os
import re
import threading

import pytest

from conftest import eventually
from test_process import session_processes

jupyter_client = pytest.importorskip("jupyter_client")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

START = """
import asyncio, os, time
import libray
context = libray.init(num_cpus=2)

@libray.remote
def double(x):
    print("doubling", x)
    return 2 * x

@libray.remote
def slow():
    time.sleep(100)

@libray.remote
class Counter:
    def __init__(self):
        self.n = 0
    def add(self):
        self.n += 1
        print("counted to", self.n)
        return self.n

print(context["session_dir"])
"""


class Notebook:
    """A kernel. run() executes one cell and gives the text below it, value() what its last line says."""

    def __init__(self):
        self.manager = jupyter_client.KernelManager(kernel_name="python3")
        self.manager.start_kernel()
        self.connect()

    def connect(self):
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def execute(self, source, fails, on_output):
        texts, values = [], []

        def output(message):
            content = message["content"]
            if message["msg_type"] == "stream":
                texts.append(content["text"])
            elif message["msg_type"] == "error":
                texts.append("\n".join(content["traceback"]))
            elif message["msg_type"] == "execute_result":
                values.append(content["data"]["text/plain"])
            on_output("".join(texts))

        reply = self.client.execute_interactive(
            source, timeout=60, output_hook=output, allow_stdin=False
        )
        text = re.sub(r"\x1b\[[0-9;]*m", "", "".join(texts))
        assert (reply["content"]["status"] == "error") == fails, text
        return text, values

    def run(self, source, fails=False, on_output=lambda text: None):
        return self.execute(source, fails, on_output)[0]

    def value(self, source):
        (value,) = self.execute(source, False, lambda text: None)[1]
        return value

    def session(self, source=START):
        return self.value(source + "\ncontext['session_dir']").strip("'")

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def notebook():
    made = Notebook()
    yield made
    made.close()


def test_tasks_actors_and_await(notebook):
    session = notebook.session()
    assert notebook.value("libray.get([double.remote(i) for i in range(4)])") == "[0, 2, 4, 6]"
    assert notebook.value("await double.remote(21)") == "42"
    assert (
        notebook.value(
            "counter = Counter.remote()\n"
            "await asyncio.gather(*[counter.add.remote() for _ in range(3)])"
        )
        == "[1, 2, 3]"
    )
    # A class and a function of a cell, and their later versions.
    assert (
        notebook.value(
            "class Pair:\n    def __init__(self, a): self.a = a\n"
            "@libray.remote\ndef pair(x): return Pair(x)\n"
            "isinstance(libray.get(pair.remote(1)), Pair)"
        )
        == "True"
    )
    source = "@libray.remote\ndef pair(x): return Pair(x + 1)\nlibray.get(pair.remote(1)).a"
    assert notebook.value(source) == "2"
    error = notebook.run(
        "@libray.remote\ndef fails(): return 1 / 0\nlibray.get(fails.remote())", fails=True
    )
    assert "ZeroDivisionError" in error and "return 1 / 0" in error, "the line of the cell is shown"
    assert "ignore_reinit_error" in notebook.run("libray.init()", fails=True)
    assert notebook.value("libray.init(ignore_reinit_error=True)['session_dir']") == repr(session)


def test_workers_print_into_the_cell(notebook):
    notebook.run(START)
    text = notebook.run("libray.get(double.remote(7)); time.sleep(1)")
    assert "(double pid=" in text and "doubling 7" in text
    text = notebook.run("c = Counter.remote(); await c.add.remote(); await asyncio.sleep(1)")
    assert "(Counter pid=" in text and "counted to 1" in text


# Not `await`: Jupyter's kernel interrupts one, also of asyncio.sleep, only when its loop happens to wake.
@pytest.mark.parametrize("wait", ["libray.get(slow.remote())", "libray.wait([slow.remote()])"])
def test_interrupt_of_a_cell(notebook, wait):
    notebook.run(START + "slow = slow.options(num_cpus=0.1)\n")
    for _ in range(2):
        timers = []

        def interrupt(text, timers=timers):
            if "waits" in text and not timers:
                timers.append(threading.Timer(0.5, notebook.manager.interrupt_kernel))
                timers[0].start()

        text = notebook.run("print('waits', flush=True)\n" + wait, fails=True, on_output=interrupt)
        timers[0].join()
        assert "KeyboardInterrupt" in text or "CancelledError" in text, text
        assert notebook.value("libray.get(double.remote(4))") == "8"
        assert notebook.value("await double.remote(5)") == "10"


@pytest.mark.parametrize("now", [True, False])
def test_restart_of_the_kernel(notebook, now):
    session = notebook.session(START + "waits = [slow.remote() for _ in range(3)]")
    assert session_processes(session)
    notebook.client.stop_channels()
    notebook.manager.restart_kernel(now=now)
    notebook.connect()
    eventually(lambda: not session_processes(session))
    again = notebook.session()
    assert again != session and os.path.isdir(again)
    assert notebook.value("libray.get(double.remote(5))") == "10"


def test_shutdown_and_init_in_cells(notebook):
    first = notebook.session()
    notebook.run("libray.shutdown()")
    eventually(lambda: not session_processes(first))
    assert notebook.value("libray.get(double.remote(1))") == "2", "it starts by itself"


def test_a_whole_notebook_is_executed(tmp_path):
    """As `jupyter execute` does it, from a file."""
    import nbformat

    cells = [START, "libray.get(double.remote(3))", "await double.remote(4)", "libray.shutdown()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    values = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.outputs
        if output["output_type"] == "execute_result"
    ]
    assert values == ["6", "8"]
    session = "".join(output["text"] for output in notebook.cells[0].outputs).split()[-1]
    eventually(lambda: not session_processes(session))
