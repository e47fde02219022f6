"""`install_as_ray`: what `import ray` gives, where it holds, and what is not there."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile

import libray
import pytest

RAY = """
import libray
ray = libray.install_as_ray()
"""


def run(source, *flags, timeout=60, **env):
    done = subprocess.run(
        [sys.executable, *flags, "-c", source],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_module_is_what_libraries_look_for():
    out = run(
        RAY
        + """
import importlib.metadata, importlib.util, sys, types
assert type(sys.modules["ray"]) is types.ModuleType and ray.__spec__.name == "ray"
assert importlib.util.find_spec("ray") is not None
assert importlib.metadata.version("ray") == ray.__version__
print(*[int(part) for part in ray.__version__.split(".")])
import ray as again
assert again is ray and ray.get is libray.get and ray.ObjectID is ray.ObjectRef
for name in "exceptions actor util experimental remote_function runtime_context job_config types runtime_env internal".split():
    assert getattr(ray, name).__name__ == f"ray.{name}", name
from ray.actor import ActorClass, ActorHandle, exit_actor
from ray.exceptions import RayTaskError
assert RayTaskError.__module__ == "ray.exceptions" and RayTaskError is libray.exceptions.RayTaskError
print(ray.ObjectRef[int])
"""
    )
    assert len(out[0].split()) == 3


def test_all_public_modules_import():
    names = []
    root = os.path.join(os.path.dirname(libray.__file__), "ray")
    for folder, inner, files in os.walk(root):
        if importlib.util.find_spec("dask") is None and "dask" in inner:
            inner.remove("dask")
        for file in files:
            if file.endswith(".py") and file != "ray_backend.py":  # needs joblib
                path = os.path.relpath(os.path.join(folder, file), os.path.dirname(root))
                names.append(path[:-3].replace(os.sep, ".").replace(".__init__", ""))
    assert "ray.util.queue" in names
    run(RAY + "import importlib\n" + "\n".join(f"importlib.import_module('{n}')" for n in names))


def test_holds_in_workers_before_the_first_unpickling(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import ray\nfrom ray.util.queue import Queue\nclass Box:\n"
        "    def __reduce__(self): return (make, ())\n"
        "def make():\n    assert 'libray' in ray.__file__\n    return Box()\n"
    )
    out = run(
        RAY
        + """
import mine
ray.init(num_cpus=1)
@ray.remote
def f(box):
    import ray
    return type(box).__name__, ray.__name__, ray.is_initialized(), "libray" in ray.__file__
print(*ray.get(f.remote(mine.Box())))
""",
        PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
    )
    assert out == ["Box ray True True"]


def test_holds_in_nested_drivers():
    out = run(
        RAY
        + """
import subprocess, sys
code = '''
import ray, importlib.metadata
ray.init(num_cpus=1)
@ray.remote
def f(): return 7
print(ray.get(f.remote()), importlib.metadata.version("ray") == ray.__version__)
'''
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
ray.init(num_cpus=1)
@ray.remote
def nested():
    import subprocess, sys
    done = subprocess.run([sys.executable, "-c", "import ray; print(ray.__name__)"], capture_output=True, text=True)
    return done.stdout.strip() or done.stderr
print(ray.get(nested.remote()))
"""
    )
    assert out == ["7 True", "ray"]


def test_command_line(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, ray, helper\n"
        "class Point:\n    def __init__(self, x): self.x = x\n"
        "if __name__ == '__main__':\n"
        "    ray.init(num_cpus=1)\n"
        "    @ray.remote\n    def f(p): return Point(p.x + helper.ONE)\n"
        "    print(ray.get(f.remote(Point(1))).x, sys.argv[1:], __file__ == sys.argv[0])\n"
    )
    (tmp_path / "helper.py").write_text("ONE = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "libray.as_ray", str(program), "a"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "2 ['a'] True\n", done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "libray.as_ray", "-c", "import ray; print(ray.__name__)"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "ray\n", done.stderr


def test_by_path_alone():
    path = run("import libray.as_ray as a; a.main(['--path'])")[0]
    out = run("import ray; print(ray.__name__, 'libray' in ray.__file__)", PYTHONPATH=path)
    assert out == ["ray True"]


def test_beside_another_ray(tmp_path):
    other = tmp_path / "ray"
    other.mkdir()
    (other / "__init__.py").write_text("__version__ = '0.0.1'\n")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    out = run(
        RAY
        + """
ray.init(num_cpus=1)
@ray.remote
def f():
    import ray
    return ray.__version__
print(ray.__version__ == ray.get(f.remote()) != "0.0.1")
""",
        PYTHONPATH=path,
    )
    assert out == ["True"]
    out = run(
        "import ray, libray\ntry:\n    libray.install_as_ray()\nexcept RuntimeError as e:\n    print(str(e)[:20])",
        PYTHONPATH=path,
    )
    assert out == ["ray is already impor"]


def test_what_is_not_there_says_so():
    out = run(
        RAY
        + """
import importlib.util
assert importlib.util.find_spec("ray.tune") is None
for name in ("train", "tune", "serve", "rllib", "dag", "workflow", "job_submission"):
    for statement in (f"import ray.{name}", f"from ray import {name}", f"import ray; ray.{name}", f"import ray.{name}.x"):
        try:
            exec(statement)
        except ImportError as e:
            assert f"libray has no ray.{name}" in str(e), e
        else:
            raise AssertionError(statement)
for name in ("spark", "tpu"):
    try:
        exec(f"import ray.util.{name}")
    except ImportError as e:
        assert f"libray has no ray.util.{name}: " in str(e), e
    else:
        raise AssertionError(name)
import ray.util.collective as c
from ray.data import Dataset, from_pandas_refs
for use in (lambda: c.allreduce(1), lambda: ray.data.from_items([1]), lambda: from_pandas_refs([]), Dataset,
            ray.util.rpdb.set_trace):
    try:
        use()
    except NotImplementedError as e:
        print(e)
"""
    )
    assert len(out) == 5 and all("libray has no" in line or "libray does not" in line for line in out)


def test_init_keywords():
    out = run(
        RAY
        + """
context = ray.init(None, num_cpus=1, include_dashboard=False, dashboard_host="127.0.0.1", dashboard_port=None,
    job_config=ray.job_config.JobConfig(ray_namespace="space", metadata={"a": "b"}), configure_logging=True,
    logging_level=20, log_to_driver=True, _system_config={"x": 1}, _node_ip_address="127.0.0.1")
assert context["address"] == context.address_info["address"] and "session_dir" in context
assert dict(context)["node_id"] == ray.get_runtime_context().get_node_id() and context.get("nothing", 5) == 5
try:
    ray.init()
except RuntimeError as e:
    assert "Maybe you called ray.init twice by accident?" in str(e)
assert ray.init(ignore_reinit_error=True).address_info["address"] == context["address"]
a = ray.remote(type("A", (), {"m": lambda self: 1})).options(name="x").remote()
ray.get(a.m.remote())
print(ray.util.list_named_actors(), ray.util.list_named_actors(all_namespaces=True))
ray.shutdown()
for wrong, error in (({"nonsense": 1}, RuntimeError), ({"namespace": ""}, ValueError), ({"namespace": 1}, TypeError),
                     ({"address": "ray://x:1"}, ConnectionError), ({"job_config": 3}, TypeError)):
    try:
        ray.init(**wrong)
    except error as e:
        print(type(e).__name__)
""",
        LIBRAY_TMPDIR="",
    )
    assert out[0] == "['x'] [{'name': 'x', 'namespace': 'space'}]"
    assert out[1:] == "RuntimeError ValueError TypeError ConnectionError TypeError".split()


def test_auto_address():
    # Not pytest's folder: the paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="lr-", dir="/tmp") as folder:
        check_auto_address(folder)


def check_auto_address(folder):
    out = run(
        RAY
        + """
import subprocess, sys
try:
    ray.init("auto")
except ConnectionError as e:
    print(str(e)[:34])
context = ray.init(num_cpus=1)
code = "import ray; c = ray.init('auto'); print(c['session_dir']); ray.init(address='auto', ignore_reinit_error=True)"
done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
print(done.stdout.strip() == context["session_dir"])
code = "import ray; ray.init(address='auto', num_cpus=2)"
done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
print("When connecting to an existing cluster" in done.stderr)
""",
        LIBRAY_TMPDIR=folder,
    )
    assert out == ["Could not find any running libray ", "True", "True"]


def test_logging_config():
    out = run(
        RAY
        + """
import logging, json, io, sys
ray.init(num_cpus=1, logging_config=ray.LoggingConfig(encoding="JSON", log_level="DEBUG"))
@ray.remote
def f():
    import logging
    handler = next(h for h in logging.getLogger().handlers if getattr(h, "_libray", False))
    record = logging.makeLogRecord({"msg": "hello", "levelname": "INFO", "extra_key": 5})
    return logging.getLogger().level, handler.formatter.format(record)
level, line = ray.get(f.remote())
entry = json.loads(line)
print(level, entry["message"], entry["extra_key"], len(entry["task_id"]) > 10)
try:
    ray.LoggingConfig(encoding="XML")
except ValueError as e:
    print("Invalid encoding" in str(e))
"""
    )
    assert out == ["10 hello 5 True", "True"]


def test_version_of_the_distribution_is_not_left_behind():
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("ray")  # not installed in this process
