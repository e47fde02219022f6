"""Runtime environments of jobs, tasks and actors: variables, working directories, modules, threads."""

import os
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
