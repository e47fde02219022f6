"""References: counted, nested, passed, borrowed, freed."""

import gc
import os
import pickle
import weakref

import numpy as np
import pytest

import libray
from libray import testing

os.environ["LIBRAY_CHECKS"] = "2"  # the node ends when anything is released more often than held

pytestmark = pytest.mark.usefixtures("cluster")


@libray.remote
def inspect(box):
    ref = box["ref"]
    return libray.get(ref), ref.hex()


@libray.remote
def make_refs(n):
    return [libray.put(i) for i in range(n)]


@libray.remote
class Keeper:
    def keep(self, refs):
        self.refs = refs

    def values(self):
        return libray.get(self.refs)

    def drop(self):
        self.refs = None
        gc.collect()


def test_nested_references_stay_references():
    ref = libray.put("value")
    value, name = libray.get(inspect.remote({"ref": ref}))
    assert value == "value" and name == ref.hex()
    box = libray.get(libray.put([ref, {"k": ref}, (ref,)]))
    assert box == [ref, {"k": ref}, (ref,)]

    class Holder:
        def __init__(self, ref):
            self.ref = ref

    assert libray.get(libray.get(libray.put(Holder(ref))).ref) == "value"


def test_counts_of_this_process():
    ref = libray.put(1)
    assert testing.ref_count(ref) == 1
    more = [libray.get(libray.put([ref]))[0]]
    gc.collect()
    assert testing.ref_count(ref) >= 2 and more[0] == ref
    del more
    gc.collect()


def test_ten_thousand_references_in_one_object():
    refs = libray.get(make_refs.remote(10_000))
    assert len(refs) == 10_000 and len(set(refs)) == 10_000
    assert libray.get(refs[::1000]) == list(range(0, 10_000, 1000))
    assert libray.get(refs) == list(range(10_000))


def test_references_kept_alive_by_values_only():
    outer = libray.put([libray.put(np.arange(100_000))])
    gc.collect()
    inner = libray.get(outer)[0]
    del outer
    gc.collect()
    assert int(libray.get(inner)[-1]) == 99_999


def test_reference_handed_to_an_actor_and_dropped_here():
    k = Keeper.remote()
    refs = [libray.put(np.full(50_000, i)) for i in range(5)]
    libray.get(k.keep.remote(refs))
    del refs
    gc.collect()
    assert [int(a[0]) for a in libray.get(k.values.remote())] == list(range(5))
    libray.get(k.drop.remote())


def test_store_memory_is_given_back(fresh):
    fresh(num_cpus=2, object_store_memory=64 << 20)
    k = Keeper.remote()
    for i in range(40):  # 320 MB through references that an actor held for a while
        libray.get(k.keep.remote([libray.put(np.full(1 << 20, i))]))
        assert int(libray.get(k.values.remote())[0][0]) == i
        libray.get(k.drop.remote())


@libray.remote
def make_arrays(n, fill):
    refs = [libray.put(np.full(1 << 17, fill + i)) for i in range(n)]
    return refs + refs[:1]  # one of them twice


@pytest.mark.parametrize("first", ["box", "references", "some", "all again"])
def test_references_from_a_result_and_the_result_go_in_any_order(fresh, first):
    fresh(num_cpus=2, object_store_memory=64 << 20)
    kept = []
    for i in range(0, 300, 10):  # 300 MB in all
        box = make_arrays.remote(10, i)
        refs = libray.get(box)
        assert refs[0] == refs[10] and refs == libray.get(box)
        if first == "box":
            del box
            gc.collect()
            assert [int(a[-1]) for a in libray.get(refs[3:5])] == [i + 3, i + 4]
        elif first == "references":
            del refs
            gc.collect()
            assert int(libray.get(libray.get(box)[9])[0]) == i + 9
        elif first == "some":  # a few outlive both
            kept.append((i, refs[0] if i % 20 else refs[5]))
            kept = kept[-8:]
            del refs, box
            gc.collect()
            assert all(int(libray.get(r)[0]) == k + (0 if k % 20 else 5) for k, r in kept)
        else:
            one = refs[2]
            del refs
            refs = libray.get(box)
            del box
            assert one == refs[2] and int(libray.get(one)[1]) == i + 2


def test_closures_capture_references():
    ref = libray.put(6)

    @libray.remote
    def use():
        return libray.get(ref) * 7

    assert libray.get(use.remote()) == 42


def test_plain_pickle_of_a_reference():
    ref = libray.put("out of band")
    again = pickle.loads(pickle.dumps(ref))
    assert again == ref and libray.get(again) == "out of band"


def test_references_are_weakly_referable_and_not_tracked():
    ref = libray.put(1)
    watch = weakref.ref(ref)
    assert watch() is ref and not gc.is_tracked(ref)
    del ref
    assert watch() is None


def test_a_put_object_outlives_the_worker_that_put_it():
    @libray.remote
    class Putter:
        def put(self):
            return [libray.put("survivor"), libray.put(np.arange(50_000))]

        def pid(self):
            return os.getpid()

    p = Putter.remote()
    small, large = libray.get(p.put.remote())
    libray.kill(p)
    assert libray.get(small) == "survivor"
    assert int(libray.get(large).sum()) == sum(range(50_000))


def test_what_a_spilled_value_refers_to_is_freed_with_it(fresh, eventually):
    """The references in it are read from the disk for that."""
    fresh(num_cpus=1, object_store_memory=64 << 20)

    @libray.remote
    def large():  # in memory of its own, which can be spilled at once
        return bytes(2 << 20), [libray.put(i) for i in range(1000)]

    ref = large.remote()
    libray.wait([ref], timeout=60)
    name = ref.hex()
    eventually(lambda: len(testing.store()) > 1000)
    fill = [libray.put(np.ones(8 << 20, np.uint8)) for _ in range(12)]
    eventually(lambda: any(row["state"] == "spilled" for row in testing.store() if row["id"] == name))
    del ref
    eventually(lambda: len(testing.store()) <= len(fill))
