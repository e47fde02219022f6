"""Runtime environments of jobs, tasks and actors: variables, working directories, modules, threads."""

import os
import shutil
import socket
import tempfile
import zipfile

import pytest

import libray


@libray.remote
def variable(name):
    return os.environ.get(name)


@libray.remote
def listing():
    return sorted(os.listdir("."))


def test_a_task_and_an_actor_have_variables_of_their_own(cluster):
    env = {"env_vars": {"LR_COLOUR": "green", "LR_PATH": "/mine:${HOME}"}}
    coloured = variable.options(runtime_env=env)
    assert libray.get(coloured.remote("LR_COLOUR")) == "green"
    assert libray.get(coloured.remote("LR_PATH")) == "/mine:" + os.environ["HOME"]
    assert libray.get(variable.remote("LR_COLOUR")) is None

    @libray.remote(runtime_env={"env_vars": {"LR_COLOUR": "blue"}})
    class Painter:
        def colour(self):
            return os.environ["LR_COLOUR"]

    painters = [Painter.remote(), Painter.options(runtime_env=env).remote()]
    assert libray.get([p.colour.remote() for p in painters]) == ["blue", "green"]
    assert "LR_COLOUR" not in os.environ


def test_equal_environments_share_a_worker_and_others_do_not(cluster):
    @libray.remote(num_cpus=0)
    def pid():
        return os.getpid(), os.environ.get("LR_N")

    def run(n):
        return libray.get(pid.options(runtime_env={"env_vars": {"LR_N": n}}).remote())

    first, second, again = run("1"), run("2"), run("1")
    assert [first[1], second[1], again[1]] == ["1", "2", "1"]
    assert first[0] != second[0]


def test_children_inherit_and_override(cluster):
    @libray.remote(num_cpus=0)
    def parent():
        child = variable.options(num_cpus=0)
        more = child.options(runtime_env={"env_vars": {"LR_B": "3"}})
        refs = [child.remote("LR_A"), more.remote("LR_A"), more.remote("LR_B")]
        return libray.get(refs), libray.get_runtime_context().runtime_env["env_vars"]

    env = {"env_vars": {"LR_A": "1", "LR_B": "2"}}
    values, own = libray.get(parent.options(runtime_env=env).remote())
    assert values == ["1", "1", "3"]
    assert own == env["env_vars"]


def test_a_working_directory_is_a_copy(cluster, tmp_path):
    (tmp_path / "data.txt").write_text("original")
    (tmp_path / "skipped.log").write_text("x")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "local_to_this_test.py").write_text("VALUE = 7\n")

    @libray.remote(runtime_env={"working_dir": str(tmp_path), "excludes": ["*.log"]})
    def work():
        from inner.local_to_this_test import VALUE

        with open("data.txt", "r+") as f:
            before = f.read()
            f.write(" changed")
        return before, VALUE, sorted(os.listdir("."))

    before, value, names = libray.get(work.remote())
    assert (before, value) == ("original", 7)
    assert "data.txt" in names and "skipped.log" not in names
    assert (tmp_path / "data.txt").read_text() == "original"


def test_a_zip_file_as_working_directory(cluster, tmp_path):
    archive = tmp_path / "project.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("top/one.txt", "1")
        z.writestr("top/two.txt", "2")
    env = {"working_dir": str(archive)}
    assert libray.get(listing.options(runtime_env=env).remote()) == ["one.txt", "two.txt"]


def test_modules_by_path(cluster, tmp_path):
    (tmp_path / "only_for_workers").mkdir()
    (tmp_path / "only_for_workers" / "__init__.py").write_text("ANSWER = 42\n")

    @libray.remote(runtime_env={"py_modules": [str(tmp_path / "only_for_workers")]})
    def answer():
        import only_for_workers

        return only_for_workers.ANSWER

    assert libray.get(answer.remote()) == 42


def test_pythonpath_is_a_path_of_modules(cluster, tmp_path):
    (tmp_path / "only_by_path.py").write_text("value = 7\n")

    @libray.remote(runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}})
    def found():
        import only_by_path

        return only_by_path.value

    assert libray.get(found.remote()) == 7


@pytest.mark.parametrize(
    "env, error, text",
    [
        ({"env_vars": {"A": 1}}, TypeError, "Dict\\[str, str\\]"),
        ({"env_vars": ["A"]}, TypeError, "Dict\\[str, str\\]"),
        ({"working_dir": "/no/such/folder"}, ValueError, "does not exist"),
        ({"working_dir": "s3://bucket/code.zip"}, ValueError, "local directory"),
        ({"pip": ["requests"]}, NotImplementedError, "pip.*workers use the same"),
        ({"no_such_field": 1}, ValueError, "no field 'no_such_field'"),
        (17, TypeError, "runtime_env"),
    ],
)
def test_a_bad_environment_is_refused_where_it_is_given(cluster, env, error, text):
    with pytest.raises(error, match=text):
        variable.options(runtime_env=env).remote("A")


def test_of_the_whole_job(fresh, tmp_path):
    (tmp_path / "here.txt").write_text("")
    env = {"env_vars": {"LR_JOB": "all", "LR_X": "job"}, "working_dir": str(tmp_path)}
    fresh(num_cpus=2, runtime_env=env)
    assert "LR_JOB" not in os.environ
    assert libray.get(variable.remote("LR_JOB")) == "all"
    assert libray.get(listing.remote()) == ["here.txt"]
    own = variable.options(runtime_env={"env_vars": {"LR_X": "task"}})
    assert libray.get([own.remote("LR_X"), own.remote("LR_JOB")]) == ["task", "all"]

    @libray.remote
    def described():
        return libray.get_runtime_context().runtime_env

    described_env = libray.get(described.remote())
    assert described_env["env_vars"] == env["env_vars"]


def test_threads_of_numeric_libraries_follow_num_cpus(fresh, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    fresh(num_cpus=4)
    name = "OMP_NUM_THREADS"
    refs = [variable.options(num_cpus=n).remote(name) for n in (1, 0.5, 2, 4)]
    assert libray.get(refs) == ["1", "1", "2", "4"]
    mine = variable.options(num_cpus=2, runtime_env={"env_vars": {name: "3"}})
    assert libray.get(mine.remote(name)) == "3"


def test_the_users_number_of_threads_wins(fresh, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    fresh(num_cpus=2)
    refs = [variable.options(num_cpus=n).remote("OMP_NUM_THREADS") for n in (1, 2)]
    assert libray.get(refs) == ["7", "7"]


def write_tree(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")


@libray.remote
def tree():
    return sorted(
        os.path.relpath(os.path.join(folder, name)) for folder, _, names in os.walk(".") for name in names
    )


@pytest.mark.parametrize(
    "patterns, left",
    [
        (["*.log"], ["a.txt", "logs/a.txt", "logs/c.txt", "logs/deep/d.txt", "src/b.txt"]),
        (["/a.txt", "b.txt"], ["logs/a.txt", "logs/c.txt", "logs/deep/d.txt", "x.log"]),
        (["logs/"], ["a.txt", "src/b.txt", "x.log"]),
        (["logs/*.txt"], ["a.txt", "logs/deep/d.txt", "src/b.txt", "x.log"]),
        (["logs/**"], ["a.txt", "src/b.txt", "x.log"]),
        (["**/deep", "?.log"], ["a.txt", "logs/a.txt", "logs/c.txt", "src/b.txt"]),
        (["*.txt", "!c.txt"], ["logs/c.txt", "x.log"]),
        (["[!a].txt", "x.log"], ["a.txt", "logs/a.txt"]),
        (["# a.txt", "", "logs"], ["a.txt", "src/b.txt", "x.log"]),
    ],
)
def test_excludes_are_written_as_for_git(cluster, tmp_path, patterns, left):
    write_tree(tmp_path, "a.txt", "x.log", "src/b.txt", "logs/c.txt", "logs/a.txt", "logs/deep/d.txt")
    env = {"working_dir": str(tmp_path), "excludes": patterns}
    assert libray.get(tree.options(runtime_env=env).remote()) == left


def test_what_git_ignores_does_not_travel(cluster, tmp_path, monkeypatch):
    write_tree(tmp_path, "keep", "drop", "data/big.bin", "data/small.txt", "other/big.bin")
    (tmp_path / ".gitignore").write_text("# what the build makes\n/drop\n")
    (tmp_path / "data" / ".gitignore").write_text("*.bin\n")
    (tmp_path / ".rayignore").write_text("other\n")

    def seen():
        env = {"working_dir": str(tmp_path)}
        return [n for n in libray.get(tree.options(runtime_env=env).remote()) if "ignore" not in n]

    assert seen() == ["data/small.txt", "keep"]
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    assert seen() == ["data/big.bin", "data/small.txt", "drop", "keep"]


def test_a_hook_changes_the_environment_of_the_job(fresh, tmp_path, monkeypatch):
    (tmp_path / "house_rules.py").write_text(
        "def apply(env):\n"
        "    env = dict(env or {})\n"
        "    env['env_vars'] = {**env.get('env_vars', {}), 'HOUSE': 'rules'}\n"
        "    return env\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "house_rules.apply")
    fresh(num_cpus=1, runtime_env={"env_vars": {"OWN": "1"}})

    @libray.remote
    def variables():
        return os.environ.get("HOUSE"), os.environ.get("OWN")

    assert libray.get(variables.remote()) == ("rules", "1")
    libray.shutdown()
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "apply")
    with pytest.raises(ValueError, match="module.function"):
        libray.init(num_cpus=1)


@libray.remote
def whole_tree():
    found = []
    for folder, folders, names in os.walk(".", followlinks=False):
        found += [os.path.join(folder, n)[2:] + "/" for n in folders]
        found += [os.path.join(folder, n)[2:] for n in names]
    return sorted(found)


def test_only_files_and_folders_travel(cluster, tmp_path):
    """A pipe would be waited for, a link out of the folder would lead nowhere, a cycle would have no end."""
    here, outside = tmp_path / "here", tmp_path / "outside"
    (here / "inner").mkdir(parents=True)
    (here / "empty").mkdir()
    (here / "inner" / "a.py").write_text("A = 1\n")
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "b.py").write_text("B = 2\n")
    (outside / "deep" / "back").symlink_to(outside)
    os.mkfifo(here / "pipe")
    os.mkfifo(here / "inner" / ".gitignore")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(here / "socket"))
    (here / "dangling").symlink_to("nowhere")
    (here / "linked").symlink_to(outside)
    (here / "single.py").symlink_to(outside / "deep" / "b.py")
    (here / "inner" / "up").symlink_to(here)
    (here / "alias").symlink_to("inner")

    @libray.remote(runtime_env={"working_dir": str(here)})
    def look():
        from alias.a import A
        from inner.up.inner.a import A as again
        from linked.deep.b import B

        return A, again, B, os.readlink("alias"), os.readlink("inner/up")

    assert libray.get(look.remote(), timeout=60) == (1, 1, 2, "inner", "..")
    names = libray.get(whole_tree.options(runtime_env={"working_dir": str(here)}).remote(), timeout=60)
    names = [n for n in names if "__pycache__" not in n]
    assert names == sorted(
        ["alias/", "empty/", "inner/", "inner/a.py", "inner/up/", "linked/", "linked/deep/", "linked/deep/b.py",
         "single.py"]
    )
    listener.close()


def test_a_program_that_became_one_is_copied_anew(cluster, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho runs\n")

    @libray.remote(num_cpus=0)
    def run():
        return os.access("program", os.X_OK)

    env = {"working_dir": str(tmp_path)}
    assert libray.get(run.options(runtime_env=env).remote()) is False
    program.chmod(0o755)
    assert libray.get(run.options(runtime_env=env).remote()) is True


@pytest.mark.parametrize("mask", ["002", "000", "077"])
def test_a_umask_that_lets_the_group_write(run_script, tmp_path, mask):
    short = tempfile.mkdtemp(prefix="lr-", dir="/tmp")  # there is little room for the names of sockets
    (tmp_path / "wd").mkdir()
    (tmp_path / "wd" / "m.py").write_text("x = 1\n")
    done = run_script(
        f"""
        import libray, os, stat
        os.umask(0o{mask})
        for env in ({{"working_dir": "wd"}}, None):
            libray.init(num_cpus=1, runtime_env=env)
            libray.shutdown()
        base = os.environ["LIBRAY_TMPDIR"]
        for folder in (base, base + "/packages"):
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700, folder
        print("ok")
        """,
        env={"LIBRAY_TMPDIR": os.path.join(short, "base")},
    )
    shutil.rmtree(short)
    assert done.stdout == "ok\n"
