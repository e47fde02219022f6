"""`ray._common.test_utils`: what tests of programs for Ray wait with."""

import asyncio
import inspect
import os
import subprocess
import sys
import tempfile
import time
import traceback
from typing import Any, Callable, Dict, Optional

import ray


@ray.remote(num_cpus=0)
class SignalActor:
    """An event that tasks wait for: `wait`, `send(clear=False)`, `cur_num_waiters`."""

    def __init__(self) -> None:
        self.ready_event = asyncio.Event()
        self.num_waiters = 0

    def send(self, clear: bool = False) -> None:
        self.ready_event.set()
        if clear:
            self.ready_event.clear()

    async def wait(self, should_wait: bool = True) -> None:
        if should_wait:
            self.num_waiters += 1
            try:
                await self.ready_event.wait()
            finally:
                self.num_waiters -= 1

    async def cur_num_waiters(self) -> int:
        return self.num_waiters


@ray.remote(num_cpus=0)
class Semaphore:
    """A counter that tasks take from: `acquire`, `release`, `locked`."""

    def __init__(self, value: int = 1) -> None:
        self._semaphore = asyncio.Semaphore(value)

    async def acquire(self) -> None:
        await self._semaphore.acquire()

    async def release(self) -> None:
        self._semaphore.release()

    async def locked(self) -> bool:
        return self._semaphore.locked()


def _give_up(timeout: float, last: Optional[str]) -> None:
    text = f"The condition wasn't met before the timeout expired ({timeout}s)."
    raise RuntimeError(text + (f" Last exception: {last}" if last else ""))


def wait_for_condition(
    condition_predictor: Callable[..., Any],
    timeout: float = 10,
    retry_interval_ms: float = 100,
    raise_exceptions: bool = False,
    **kwargs: Any,
) -> None:
    """Calls the condition until it is true; RuntimeError after `timeout` seconds."""
    deadline, last = time.monotonic() + timeout, None
    while True:
        try:
            if condition_predictor(**kwargs):
                return
        except Exception:
            if raise_exceptions:
                raise
            last = traceback.format_exc()
        if time.monotonic() >= deadline:
            _give_up(timeout, last)
        time.sleep(retry_interval_ms / 1000)


async def async_wait_for_condition(
    condition_predictor: Callable[..., Any],
    timeout: float = 10,
    retry_interval_ms: float = 100,
    **kwargs: Any,
) -> None:
    """The same for a condition that may be a coroutine function."""
    deadline, last = time.monotonic() + timeout, None
    while True:
        try:
            met = condition_predictor(**kwargs)
            if inspect.isawaitable(met):
                met = await met
            if met:
                return
        except Exception:
            last = traceback.format_exc()
        if time.monotonic() >= deadline:
            _give_up(timeout, last)
        await asyncio.sleep(retry_interval_ms / 1000)


def run_string_as_driver(
    driver_script: str, env: Optional[Dict[str, str]] = None, encode: str = "utf-8"
) -> str:
    """Runs the text as a program of its own and returns what it printed; CalledProcessError when it fails."""
    process = subprocess.Popen(
        [sys.executable, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_driver_env(env),
    )
    output = process.communicate(driver_script.encode(encode))[0]
    if process.returncode:
        print(output.decode(encode, "replace"))
        raise subprocess.CalledProcessError(
            process.returncode, process.args, output, process.stderr
        )
    return output.decode(encode, "replace")


def _driver_env(env: Optional[Dict[str, str]]) -> Optional[Dict[str, str]]:
    """An environment that a test gave keeps what leads to libray."""
    if env is None:
        return None
    kept = {k: os.environ[k] for k in ("PYTHONPATH", "LIBRAY_AS_RAY") if k in os.environ}
    return {**kept, **env}


def is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


class FakeTimer:
    """A clock that moves when it is told to."""

    def __init__(self, start_time: Optional[float] = None) -> None:
        self._now = time.time() if start_time is None else start_time

    def time(self) -> float:
        return self._now

    def reset(self, start_time: Optional[float] = None) -> None:
        self._now = time.time() if start_time is None else start_time

    def advance(self, by: float) -> None:
        self._now += by

    def realistic_sleep(self, amount: float) -> None:
        self._now += amount + 0.001


def write_script(text: str) -> str:
    """A temporary file with the text; its path."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
        file.write(text)
    return file.name
