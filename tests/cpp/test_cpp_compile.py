"""Mistakes that the compiler finds: what ray.hpp refuses to compile, and that it says why.

libray-test: slow
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
#include <ray.hpp>
int f(int x) { return x; }
double g(double x) { return x; }
void changes(int& x) { ++x; }
void points(const char* s) { (void)s; }
class Counter {
 public:
  explicit Counter(int x) : x_(x) {}
  int add(int x) { return x_ += x; }
 private:
  int x_;
};
struct Unregistered { void method() {} };
RAY_REMOTE(f, g);
RAY_ACTOR(Counter(int), &Counter::add);
void user() {
  auto counter = ray::actor<Counter>(1);
  %s;
}
%s
"""
GOOD = [
    "ray::task(f)(1)",
    "ray::task(g)(1)",
    "ray::task(g)(ray::task(f)(1))",
    "ray::ref<int> r = ray::task(f)('c')",
    "counter.call(&Counter::add, ray::put(2))",
    "ray::ref<std::vector<ray::ref<std::string_view>>>().get()",
    "ray::array<double> a = ray::put(std::vector<double>{1}).view(); std::span<const double> s = a",
]
BAD = [
    ("ray::task(f)()", "", "another number of arguments"),
    ("ray::task(f)(1, 2)", "", "another number of arguments"),
    ('ray::task(f)("text")', "", "another type"),
    ("ray::task(f)(1.5)", "", "another type"),
    ("ray::task(f)(ray::task(g)(1.0))", "", "another type"),
    ("ray::ref<std::string> r = ray::task(f)(1)", "", "conversion"),
    ("ray::actor<Counter>()", "", "another number of arguments"),
    ('ray::actor<Counter>("x")', "", "another type"),
    ("counter.call(&Counter::add, std::string())", "", "another type"),
    ("counter.call(&Unregistered::method)", "", "not a method of this actor"),
    ("ray::actor<Unregistered>()", "", "RAY_ACTOR"),
    ("ray::ref<std::vector<std::string_view>>().get()", "", "memory that is gone"),
    ("ray::ref<std::map<int, std::optional<std::span<const int>>>>().get_result()", "", "memory that is gone"),
    ("ray::ref<std::tuple<int, std::string_view>>().try_get()", "", "memory that is gone"),
    ("std::span<const double> s = ray::put(std::vector<double>{1}).view()", "", "deleted"),
    ("", "RAY_REMOTE(changes);", "is a copy"),
    ("", "RAY_REMOTE(points);", "a pointer means nothing"),
]


def compiled(tmp_path, statement, more=""):
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    source = tmp_path / "program.cc"
    source.write_text(PROGRAM % (statement, more))
    flags = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wno-unused-variable", f"-I{ROOT / 'include'}"]
    return subprocess.run([compiler, *flags, source], capture_output=True, text=True, timeout=120)


def test_what_is_right_compiles(tmp_path):
    done = compiled(tmp_path, ";\n  ".join(GOOD))
    assert done.returncode == 0 and not done.stderr, done.stderr[-3000:]


@pytest.mark.parametrize("statement, more, why", BAD, ids=[s or m for s, m, _ in BAD])
def test_what_is_wrong_does_not(tmp_path, statement, more, why):
    done = compiled(tmp_path, statement, more)
    assert done.returncode != 0
    assert why in done.stderr, done.stderr[:3000]
