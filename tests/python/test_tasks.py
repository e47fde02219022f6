"""Tasks: calls, arguments, results, options, nesting."""

import os
import sys
import time

import numpy as np
import pytest

import libray


@libray.remote
def echo(*args, **kwargs):
    return args, kwargs


@libray.remote
def add(a, b=10, *, c=100):
    return a + b + c


pytestmark = pytest.mark.usefixtures("cluster")


def test_hello():
    @libray.remote
    def hello(name):
        return f"hello {name}"

    assert libray.get(hello.remote("world")) == "hello world"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        -5,
        2**70,
        1.5,
        "text",
        b"bytes",
        (1, 2),
        [1, [2]],
        {"a": (1,)},
        {1, 2},
        "\ud800",
        b"x" * 100_000,
        ["y" * 1000] * 1000,
        1 + 2j,
        range(5),
        (1, [2, {"k": (3,)}]),
    ],
    ids=lambda v: repr(v)[:20],
)
def test_values_keep_their_types_through_a_task(value):
    (got,), kwargs = libray.get(echo.remote(value))
    assert kwargs == {}
    assert got == value and type(got) is type(value)


def test_args_and_kwargs():
    assert libray.get(add.remote(1)) == 111
    assert libray.get(add.remote(1, 2)) == 103
    assert libray.get(add.remote(1, b=2, c=3)) == 6
    assert libray.get(add.remote(a=1, c=3)) == 14
    assert libray.get(echo.remote(1, 2, x=3, y=[4])) == ((1, 2), {"x": 3, "y": [4]})
    assert libray.get(echo.remote(**{f"k{i}": i for i in range(50)}))[1] == {
        f"k{i}": i for i in range(50)
    }
    assert libray.get(echo.remote(*range(500)))[0] == tuple(range(500))


def test_signature_is_checked_by_the_caller():
    with pytest.raises(TypeError, match="missing a required argument"):
        add.remote()
    with pytest.raises(TypeError, match="too many positional"):
        add.remote(1, 2, 3)
    with pytest.raises(TypeError, match="unexpected keyword"):
        add.remote(1, z=2)
    with pytest.raises(TypeError, match="multiple values"):
        add.remote(1, a=2)


def test_references_as_arguments_are_their_values():
    x = libray.put(5)
    y = add.remote(x, 0, c=0)
    assert libray.get(add.remote(y, b=x, c=y)) == 15
    assert libray.get(echo.remote(k=x)) == ((), {"k": 5})


def test_chain_of_dependent_tasks():
    ref = libray.put(0)
    for _ in range(200):
        ref = add.remote(ref, 1, c=0)
    assert libray.get(ref) == 200


def test_many_tasks_in_batches():
    for _ in range(3):
        refs = [add.remote(i, 0, c=0) for i in range(2000)]
        assert libray.get(refs) == list(range(2000))


def test_num_returns():
    @libray.remote(num_returns=3)
    def three():
        return 1, 2, 3

    a, b, c = three.remote()
    assert libray.get([c, b, a]) == [3, 2, 1]

    @libray.remote(num_returns=0)
    def none():
        pass

    assert none.remote() is None

    @libray.remote(num_returns=2)
    def wrong():
        return 1, 2, 3

    for ref in wrong.remote():
        with pytest.raises(ValueError, match="num_returns=2"):
            libray.get(ref)
    refs = three.options(num_returns=1).remote()
    assert libray.get(refs) == (1, 2, 3)


def test_closures_and_globals_travel():
    factor = 7

    @libray.remote
    def scale(x):
        return x * factor * len(os.path.sep)

    assert libray.get(scale.remote(3)) == 21


def test_redefinition_is_a_new_function():
    refs = []
    for i in range(5):

        @libray.remote
        def same_name():
            return i

        refs.append(same_name.remote())
        time.sleep(0)
    # Each was pickled when it was first called, with the i of then.
    assert libray.get(refs) == [0, 1, 2, 3, 4]


def test_local_classes_travel_by_value():
    class Point:
        def __init__(self, x):
            self.x = x

        def __eq__(self, other):
            return self.x == other.x

    @libray.remote
    def move(p):
        p.x += 1
        return p

    assert libray.get(move.remote(Point(1))).x == 2
    assert libray.get(libray.put(Point(4))).x == 4


def test_nested_tasks():
    @libray.remote
    def inner(x):
        return x + 1

    @libray.remote
    def outer(x):
        return libray.get([inner.remote(x + i) for i in range(5)])

    assert libray.get(outer.remote(10)) == [11, 12, 13, 14, 15]


def test_a_task_that_returns_a_reference():
    @libray.remote
    def make():
        return libray.put("inside")

    @libray.remote
    def chain():
        return make.remote()

    assert libray.get(libray.get(make.remote())) == "inside"
    assert libray.get(libray.get(libray.get(chain.remote()))) == "inside"


def test_options():
    with pytest.raises(ValueError, match="Invalid option keyword"):
        add.options(nonsense=1)
    with pytest.raises(ValueError, match="negative"):
        add.options(num_cpus=-1)
    with pytest.raises(ValueError, match="precision"):
        add.options(num_cpus=0.00001)
    with pytest.raises(ValueError, match="num_cpus"):
        add.options(resources={"CPU": 1})
    with pytest.raises(TypeError):
        add.options(num_returns=1.5)
    with pytest.raises(ValueError):
        add.options(max_retries=-2)
    with pytest.raises(ValueError, match="max_calls"):
        add.options(max_calls=1)
    with pytest.raises(ValueError, match="no arguments and no parentheses"):
        libray.remote()
    with pytest.raises(TypeError, match="cannot be called directly"):
        add(1)
    with pytest.raises(TypeError):
        libray.remote(3)
    with pytest.raises(ValueError, match="async def"):

        @libray.remote
        async def f():
            pass

    assert libray.get(add.options(num_cpus=0.5, name="half").remote(1)) == 111
    assert libray.get(libray.options(num_cpus=0)(lambda: 3).remote()) == 3


def test_custom_and_infeasible_resources(fresh):
    fresh(num_cpus=2, resources={"disk": 1.5})
    assert libray.cluster_resources()["disk"] == 1.5
    assert libray.cluster_resources()["CPU"] == 2.0

    @libray.remote(resources={"disk": 1})
    def use():
        return libray.available_resources().get("disk", 0.0)

    assert libray.get(use.remote()) == 0.5
    nodes = libray.nodes()
    assert len(nodes) == 1 and nodes[0]["Alive"] and nodes[0]["Resources"]["CPU"] == 2.0


def test_module_beside_the_script(run_script, tmp_path):
    (tmp_path / "helper_module.py").write_text(
        "def triple(x):\n    return 3 * x\nclass Thing:\n    value = 9\n"
    )
    done = run_script(
        """
        import libray, helper_module

        @libray.remote
        def use(x, thing):
            import helper_module
            return helper_module.triple(x) + thing.value

        print(libray.get(use.remote(2, helper_module.Thing())))
        print(libray.get(libray.remote(helper_module.triple).remote(5)))
    """,
        cwd="/",
    )
    assert done.stdout.split() == ["15", "15"]


def test_fib_on_one_cpu(fresh):
    fresh(num_cpus=1)

    @libray.remote
    def fib(n):
        if n < 2:
            return n
        return sum(libray.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert libray.get(fib.remote(8)) == 21


def test_runtime_context(cluster):
    @libray.remote
    def where():
        c = libray.get_runtime_context()
        return (
            c.get_job_id(),
            c.get_node_id(),
            c.get_task_id(),
            c.get_actor_id(),
            libray.is_initialized(),
            os.getpid(),
        )

    here = libray.get_runtime_context()
    job, node, task, actor, initialized, pid = libray.get(where.remote())
    assert job == here.get_job_id() and node == here.get_node_id()
    assert len(task) == 48 and actor is None and initialized and pid != os.getpid()
    assert here.get_task_id() is None
    ref = where.remote()
    assert libray.get(ref)[2][:32] == ref.hex()[:32] or libray.get(ref)[2] != task


def test_task_ids_differ_and_refs_compare_by_id():
    a, b = add.remote(1), add.remote(1)
    assert a != b and hash(a) != hash(b) and len({a, b}) == 2
    assert len(a.binary()) == 28 and a.hex() == a.binary().hex() and not a.is_nil()
    assert libray.ObjectRef[int] is not None
    import copy

    assert copy.copy(a) == a and copy.deepcopy(a) == a


def test_init_rules(cluster):
    with pytest.raises(RuntimeError, match="ignore_reinit_error"):
        libray.init()
    assert libray.init(ignore_reinit_error=True) is not None


def test_init_options_are_checked(fresh):
    with pytest.raises(RuntimeError, match="Unknown keyword"):
        libray.init(nonsense=2)
    with pytest.raises(ValueError, match="num_cpus"):
        libray.init(resources={"CPU": 1})
    with pytest.raises(ValueError, match="negative"):
        libray.init(num_cpus=-1)
    assert not libray.is_initialized()


def test_functions_survive_shutdown_and_init(fresh):
    @libray.remote
    def f():
        return 5

    fresh(num_cpus=1)
    ref = f.remote()
    assert libray.get(ref) == 5
    libray.shutdown()
    assert not libray.is_initialized()
    with pytest.raises(libray.exceptions.RaySystemError, match="not running"):
        libray.wait([ref], timeout=0)
    fresh(num_cpus=1)
    assert libray.get(f.remote()) == 5


def test_auto_init_and_context_manager(run_script):
    done = run_script("""
        import libray
        print(libray.is_initialized())
        print(libray.get(libray.put(4)), libray.is_initialized())
        libray.shutdown()
        with libray.init(num_cpus=1) as context:
            print(context["address"] == context.address_info["address"], len(context["node_id"]))
        print(libray.is_initialized())
    """)
    assert done.stdout.split() == ["False", "4", "True", "True", "48", "False"]


def test_environment_of_workers():
    @libray.remote
    def look():
        return os.environ.get("OMP_NUM_THREADS"), sys.executable, os.getcwd()

    threads, executable, cwd = libray.get(look.remote())
    assert threads is not None and executable == sys.executable and cwd == os.getcwd()


def test_arrays_in_arguments_and_results():
    @libray.remote
    def double(a):
        assert not a.flags.writeable
        return a * 2

    for a in (np.arange(10), np.ones((100, 1000)), np.zeros((0, 3)), np.array(5.0)):
        got = libray.get(double.remote(a))
        assert got.dtype == (a * 2).dtype and got.shape == a.shape and (got == a * 2).all()


def test_arguments_that_arrive_while_their_task_is_submitted(cluster):
    @libray.remote
    def add(a, b):
        return a + b

    for n in range(60, 100):  # references become values between the look at them and the encoding
        refs = [add.remote(k, 0) for k in range(n)]
        while len(refs) > 1:
            pairs = [add.remote(a, b) for a, b in zip(refs[::2], refs[1::2])]
            refs = pairs + refs[len(pairs) * 2 :]
        assert libray.get(refs[0]) == n * (n - 1) // 2
