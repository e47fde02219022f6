"""Runtime environments: what `runtime_env=` of init, tasks and actors asks for, and how a worker takes it on.

A driver or task checks and merges environments when a function's options are packed, on the calling thread; the
packed map travels with the resources (`ray_task_options.resources_msgpack`), so that tasks of one environment share
workers. The worker's side, `enter`, runs once in a process that the zygote just forked. The environment of a whole job is
set around its zygote instead (`for_job`).

`working_dir` and `py_modules` are copied first, once per content and process that asks: what changes in the original
later is not seen, and what tasks write stays in the copy. A driver's copies lie beside the sessions until it ends, a
worker's in the session; those of a driver that was killed are removed by the next one that makes some.
"""

from __future__ import annotations

# zipfile, tempfile and the like are imported where they are used: together they take 20 ms, which
# every start would pay twice, in the driver and in the zygote.
import atexit
import fcntl
import json
import os
import re
import sys
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from .. import _libray
from . import process, sessions

ENVIRONMENT = "LIBRAY_RUNTIME_ENV"  # of this process, as JSON
_FIELDS = {"env_vars", "working_dir", "py_modules", "excludes", "config", "eager_install"}
_INSTEAD = {
    "pip": "install the packages into the driver's Python environment: workers use the same",
    "uv": "install the packages into the driver's Python environment: workers use the same",
    "conda": "start the driver in the conda environment: workers use the same",
    "container": "start the driver inside the container",
    "image_uri": "start the driver inside the container",
    "py_executable": "start the driver with that interpreter: workers use the same",
    "nsight": "profile the driver, or set env_vars",
    "worker_process_setup_hook": "call the function at the beginning of the task or constructor",
}
_MAX_BYTES = 512 << 20
_folder: Tuple[str, Any] = ("", None)  # this process's copies, and the lock that tells that it lives


def check(env: Any) -> Dict[str, Any]:
    """The environment as a plain dict of what libray can do; errors name the field and what to use instead."""
    if env is None:
        return {}
    if not isinstance(env, dict):
        raise TypeError(f"runtime_env must be dict or RuntimeEnv, but got: {type(env)}")
    for field, value in env.items():
        if value is None or field in _FIELDS:
            continue
        if field in _INSTEAD:
            raise NotImplementedError(
                f"runtime_env['{field}'] is not supported by libray: {_INSTEAD[field]}"
            )
        raise ValueError(f"runtime_env has no field '{field}'; libray knows {sorted(_FIELDS)}")
    out: Dict[str, Any] = {}
    if env.get("env_vars"):
        out["env_vars"] = _check_variables(env["env_vars"])
    excludes = tuple(env.get("excludes") or ())
    if env.get("working_dir"):
        out["working_dir"] = package(env["working_dir"], excludes)
    if env.get("py_modules"):
        out["py_modules"] = [package(m, excludes, True) for m in _modules(env["py_modules"])]
    return out


def _check_variables(variables: Any) -> Dict[str, str]:
    if not isinstance(variables, dict):
        raise TypeError(
            f"runtime_env['env_vars'] must be of type Dict[str, str], got {type(variables)}"
        )
    for key, value in variables.items():
        for item, what in ((key, "key"), (value, "value")):
            if not isinstance(item, str):
                raise TypeError(
                    f"runtime_env['env_vars'] must be of type Dict[str, str], but the {what} {item!r} is of "
                    f"type {type(item)}"
                )
    return dict(variables)


def _modules(given: Any) -> List[str]:
    if not isinstance(given, (list, tuple)):
        raise TypeError(
            f"runtime_env['py_modules'] must be a list of paths or modules, got {type(given)}"
        )
    paths: List[str] = []
    for item in given:
        if hasattr(item, "__path__"):
            paths.append(next(iter(item.__path__)))
        elif hasattr(item, "__file__"):
            paths.append(item.__file__)
        else:
            paths.append(os.fspath(item))
    return paths


def merge(outer: Dict[str, Any], inner: Dict[str, Any]) -> Dict[str, Any]:
    """`inner` on top of `outer`: variables one by one, other fields as a whole."""
    if not outer or not inner:
        return inner or outer
    out = {**outer, **inner}
    if "env_vars" in outer and "env_vars" in inner:
        out["env_vars"] = {**outer["env_vars"], **inner["env_vars"]}
    return out


def current() -> Dict[str, Any]:
    """The environment of this process: the job's, with that of the task or actor on top."""
    text = os.environ.get(ENVIRONMENT)
    return dict(json.loads(text)) if text else dict(_mine)


THREADS = "OMP_NUM_THREADS"
THREADS_BY_LIBRAY = "LIBRAY_OMP_NUM_THREADS"  # set when the number of threads is not the user's
_own: Dict[str, Any] = {}  # of this worker beyond the job's: what it submits inherits it
_mine: Dict[str, Any] = {}  # of this worker as a whole


def for_call(env: Any, cpus: float) -> Dict[str, Any]:
    """What a task or actor with the option `runtime_env=env` asks of its worker beyond the job's environment. A
    call with several CPUs also asks for numeric libraries with as many threads, which they decide when they are
    loaded: hence for a worker of its own kind."""
    out = merge(_own, check(env)) if env else _own
    if cpus >= 2 and not _user_set_threads():
        out = {**out, "threads": int(cpus)}
    return out


def _user_set_threads() -> bool:
    return THREADS in os.environ and THREADS_BY_LIBRAY not in os.environ


# ---- copies --------------------------------------------------------------------------------------------


def package(path: Any, excludes: Tuple[str, ...] = (), is_module: bool = False) -> str:
    """A private copy of a directory (or of what a .zip file holds). A module's
    copy is the folder above it, to be put on sys.path."""
    import shutil
    import tempfile

    source = os.path.abspath(os.path.expanduser(os.fspath(path)))
    if "://" in str(path):
        raise ValueError(f"runtime_env cannot fetch {path}: give a local directory or .zip file")
    is_zip = source.endswith((".zip", ".whl")) and os.path.isfile(source)
    if not is_zip and not os.path.isdir(source) and not (is_module and os.path.isfile(source)):
        raise ValueError(f"the directory of the runtime_env does not exist: {source}")
    if _is_copy(source):
        return source  # inherited from the caller
    files = list(_files(source, excludes)) if not is_zip else [(source, "", None)]
    target = os.path.join(_own_folder(), "copy-" + _digest(files, is_module, source))
    if not os.path.isdir(target):
        made = tempfile.mkdtemp(prefix="new-", dir=_own_folder())
        inside = os.path.join(made, os.path.basename(source)) if is_module and not is_zip else made
        _copy(source, files, inside, is_zip)
        try:
            os.rename(made, target)
        except OSError:  # another thread was faster
            shutil.rmtree(made, ignore_errors=True)
    return target


def _is_copy(source: str) -> bool:
    """Whether it is one that a process of this user made here."""
    above = os.path.dirname(source)
    if not os.path.basename(source).startswith("copy-") or os.path.basename(os.path.dirname(above)) != "packages":
        return False
    try:
        for folder in (os.path.dirname(above), above, source):
            os.close(sessions.open_own(folder))
    except OSError:
        return False
    return True


def _own_folder() -> str:
    """Where this process's copies go. Any thread."""
    import tempfile

    global _folder
    if _folder[1] is not None and os.path.isdir(_folder[0]):
        return _folder[0]
    session = process.session_dir() if _libray.is_worker() else ""
    base = sessions.own_folder(os.path.join(session or sessions.make_base(), "packages"))
    _prune(base)
    made = tempfile.mkdtemp(prefix="of-", dir=base)
    lock = open(os.path.join(made, "lock"), "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    _folder = (made, lock)
    if not session:
        atexit.register(_remove, made, os.getpid())
    return made


def forget() -> None:
    """In a forked child: copies and environment are the parent's."""
    global _folder, _own, _mine
    _folder, _own, _mine = ("", None), {}, {}


def _remove(path: str, pid: int) -> None:
    import shutil

    if os.getpid() == pid:  # not in a fork of it
        shutil.rmtree(path, ignore_errors=True)


def _prune(base: str) -> None:
    """Removes the copies of processes that are gone."""
    import shutil

    for name in os.listdir(base):
        path = os.path.join(base, name)
        try:
            with open(os.path.join(path, "lock")) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue


_Entry = Tuple[str, str, Optional[str]]  # path, path below the source, what a link to something of the source says


def _files(source: str, excludes: Tuple[str, ...]) -> Iterator[_Entry]:
    """Every file and empty folder that neither `excludes` nor a .gitignore or .rayignore leaves out. Links to folders
    outside are followed; those to folders of the source itself stay links, so that cycles do no harm. What is neither a
    file nor a folder, such as a named pipe, does not travel."""
    if os.path.isfile(source):
        yield source, "", None
        return
    root = os.path.realpath(source)
    waiting = [(source, "", [_Ignore(excludes, "")], ())]  # what counts for it, real paths of the folders above it
    while waiting:
        folder, below, rules, above = waiting.pop()
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        here = rules + _ignore_files(folder, names, below)
        above += (os.path.realpath(folder),)
        if not names and below:
            yield folder, below, None
        for name in names:
            path = os.path.join(folder, name)
            is_folder = os.path.isdir(path)
            if is_folder and name in ("__pycache__", ".git"):
                continue
            if any(r.leaves_out(below + name, is_folder) for r in here):
                continue
            if not is_folder:
                if os.path.isfile(path):
                    yield path, below + name, None
                continue
            real = os.path.realpath(path) if os.path.islink(path) else ""
            if real and (real + os.sep).startswith(root + os.sep):
                at = os.path.join(root, below)
                yield path, below + name, os.path.relpath(real, at)
            elif real not in above:
                waiting.append((path, below + name + os.sep, here, above))


def _ignore_files(folder: str, names: List[str], below: str) -> List["_Ignore"]:
    found = []
    for name in (".gitignore", ".rayignore"):
        if name == ".gitignore" and os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE") == "1":
            continue
        if name in names:
            try:
                with _open_file(os.path.join(folder, name)) as file:
                    found.append(_Ignore(file.read().decode(errors="surrogateescape").splitlines(), below))
            except OSError:  # a folder or pipe of that name
                continue
    return found


class _Ignore:
    """Patterns as in a .gitignore file in the folder `below`."""

    def __init__(self, lines: Any, below: str) -> None:
        self.below = below
        self.rules = [_rule(line) for line in lines if line.strip() and not line.startswith("#")]

    def leaves_out(self, relative: str, is_folder: bool) -> bool:
        path, out = relative[len(self.below) :], False
        for matches, negated, folders_only in self.rules:  # the last one decides
            if (is_folder or not folders_only) and matches(path):
                out = not negated
        return out


# Of a pattern; compiled when one is read.
_PARTS = r"\A\*\*/|/\*\*\Z|/\*\*/|\*+|\?|\[[!^]?\]?[^\]]*\]|\\.|."


def _rule(line: str) -> Tuple[Callable[[str], Any], bool, bool]:
    """(match, negated, only folders) of a line."""
    line = line.strip()
    negated = line.startswith("!")
    line = line[negated:]
    body = line.strip("/")
    anywhere = "/" not in line.rstrip("/")
    out = "(?:.*/)?" if anywhere else ""
    for part in re.findall(_PARTS, body, re.S):
        if part == "**/":
            out += "(?:.*/)?"
        elif part == "/**":
            out += "/.+"
        elif part == "/**/":
            out += "/(?:.*/)?"
        elif part[0] == "*":
            out += "[^/]*"
        elif part == "?":
            out += "[^/]"
        elif part[0] == "[" and len(part) > 1:
            inside = part[1:-1]
            out += "[" + ("^" + inside[1:] if inside[:1] == "!" else inside).replace("\\", "\\\\") + "]"
        else:
            out += re.escape(part[-1])
    return re.compile(out, re.S).fullmatch, negated, line.endswith("/")


def _digest(files: List[_Entry], is_module: bool, source: str) -> str:
    import hashlib

    state = hashlib.sha256(f"{is_module}:{source}".encode(errors="surrogateescape"))
    total = 0
    for path, relative, link in files:
        try:
            if link is not None or relative.endswith(os.sep):
                state.update(f"\0{relative}\0{link}\0".encode(errors="surrogateescape"))
                continue
            with _open_file(path) as f:
                status = os.fstat(f.fileno())
                total += status.st_size
                if total > _MAX_BYTES:
                    raise ValueError(
                        f"the directory of the runtime_env holds more than {_MAX_BYTES >> 20} MiB: leave "
                        "files out with runtime_env['excludes'], or give tasks its path"
                    )
                head = f"\0{relative}\0{status.st_size}\0{status.st_mode & 0o111:o}\0"
                state.update(head.encode(errors="surrogateescape"))
                for block in iter(lambda: f.read(1 << 20), b""):
                    state.update(block)
        except OSError:  # one that cannot be read
            continue
    return state.hexdigest()[:32]


def _open_file(path: str) -> Any:
    """For reading; never waits, whatever has taken the file's place since it was looked at."""
    import stat

    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    raise OSError(f"{path!r} is not a file")


def _copy(source: str, files: List[_Entry], target: str, is_zip: bool) -> None:
    import shutil
    import zipfile

    if is_zip:
        with zipfile.ZipFile(source) as archive:
            archive.extractall(target)
        inside = os.listdir(target)
        if len(inside) == 1 and os.path.isdir(os.path.join(target, inside[0])):
            top = os.path.join(target, inside[0])  # an archive of one folder stands for the folder
            for name in os.listdir(top):
                os.rename(os.path.join(top, name), os.path.join(target, name))
            os.rmdir(top)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    for path, relative, link in files:
        to = os.path.join(target, relative) if relative else target
        try:
            os.makedirs(os.path.dirname(to), exist_ok=True)
            if link is not None:
                os.symlink(link, to)
            elif not relative.endswith(os.sep):
                with _open_file(path) as original, open(to, "wb") as copy:
                    shutil.copyfileobj(original, copy)
                shutil.copystat(path, to)
        except OSError:
            continue


# ---- taking it on ----------------------------------------------------------------------------------------


def _expand(value: str) -> str:
    """`${NAME}` stands for what the variable is where the worker starts."""
    return re.sub(r"\$\{(\w+)\}", lambda m: os.environ.get(m.group(1), ""), value)


_HOOK = "RAY_RUNTIME_ENV_HOOK"  # "module.function", which changes the environment of a job


def hooked(env: Any) -> Any:
    """What the function that RAY_RUNTIME_ENV_HOOK names makes of the environment given to `init`."""
    name = os.environ.get(_HOOK)
    if not name:
        return env
    import importlib

    module, _, function = name.rpartition(".")
    if not module:
        raise ValueError(f"{_HOOK}={name!r} must be of the form 'module.function'")
    return getattr(importlib.import_module(module), function)(env)


def for_job(env: Any) -> Dict[str, str]:
    """Environment variables that give a zygote, and so every worker of the job, this environment."""
    checked = check(env)
    if not checked:
        return {}
    variables = {k: _expand(v) for k, v in checked.get("env_vars", {}).items()}
    return {**variables, ENVIRONMENT: json.dumps(checked)}


def enter_job() -> None:
    """In a zygote: the job's working directory."""
    if current().get("working_dir"):
        _enter_folder(current()["working_dir"])


def _enter_folder(path: str) -> None:
    fd = sessions.open_own(path)  # nobody has put another one in its place
    os.fchdir(fd)
    os.close(fd)


def enter(env: Dict[str, Any]) -> None:
    """In a worker that was just forked: the environment of its tasks on top of the job's."""
    global _own
    threads = env.pop("threads", 0)
    if threads and not _user_set_threads():
        os.environ[THREADS] = str(threads)
    if not env:
        return
    _own = env
    for name, value in env.get("env_vars", {}).items():
        os.environ[name] = _expand(value)
    if env.get("working_dir"):
        _enter_folder(env["working_dir"])
    os.environ[ENVIRONMENT] = json.dumps(merge(current(), env))


def extend_path() -> None:
    """In a worker, once sys.path is that of the driver: the copies come first, then what PYTHONPATH names, which
    Python itself reads only when it starts. From here on the environment is this process's, not that of programs
    that it starts."""
    global _mine
    env = _mine = current()
    os.environ.pop(ENVIRONMENT, None)
    for copy in env.get("py_modules", []):
        os.close(sessions.open_own(copy))
    first = [env["working_dir"]] if env.get("working_dir") else []
    named = os.environ["PYTHONPATH"] if "PYTHONPATH" in env.get("env_vars", {}) else ""
    sys.path[:0] = first + list(env.get("py_modules", [])) + [p for p in named.split(os.pathsep) if p]


def describe() -> str:
    """For people: this process's environment as JSON."""
    return json.dumps(current(), sort_keys=True)
