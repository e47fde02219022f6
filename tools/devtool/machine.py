"""What the machine needs: finds what is missing and installs it, or says how to get it.

On Debian 12 and later, with root or a sudo that asks nothing, missing packages are installed with
one apt call. Everywhere else the same list is printed in words and nothing is touched.
"""
import os
import shutil
import sys
from pathlib import Path

from shell import Failure, digest, is_stamped, output, run, say, set_stamp


class Need:
    """One thing: how to see that it is there, Debian's package, and where others find it."""

    def __init__(self, package, command=None, header=None, python=None, clang_runtime=None, home="",
                 groups=("build",)):
        self.package, self.command, self.header, self.python = package, command, header, python
        self.clang_runtime = clang_runtime
        self.home, self.groups = home, groups

    def name(self):
        runtime = f"runtime of clang's {self.clang_runtime}" if self.clang_runtime else None
        return self.command or self.header or runtime or f"python module {self.python}"

    def is_there(self):
        if self.command:
            return shutil.which(self.command) is not None
        if self.header:
            compiler = shutil.which("g++") or shutil.which("c++")
            return compiler is not None and output(
                [compiler, "-E", "-x", "c++", "-std=c++20", "-I", python_include(), "-include",
                 self.header, "/dev/null"]) is not None
        if self.clang_runtime:
            resources = output(["clang++", "-print-resource-dir"]) if shutil.which("clang++") else None
            return resources is not None and any(
                Path(resources.strip()).glob(f"lib/*/libclang_rt.{self.clang_runtime}*.a"))
        return output([python(), "-c", f"import {self.python}"]) is not None


def os_release():
    fields = {}
    path = Path("/etc/os-release")
    for line in path.read_text().splitlines() if path.exists() else []:
        key, _, value = line.partition("=")
        fields[key] = value.strip('"')
    return fields


NEEDS = [
    Need("git", command="git", home="https://git-scm.com"),
    Need("g++", command="g++", home="GCC 12 or later, https://gcc.gnu.org"),
    Need("cmake", command="cmake", home="3.24 or later, https://cmake.org"),
    Need("ninja-build", command="ninja", home="https://ninja-build.org"),
    Need("ccache", command="ccache", home="https://ccache.dev"),
    Need("pkg-config", command="pkg-config", home="https://pkgconf.org"),
    Need("libnng-dev", header="nng/nng.h", home="1.5 or later, https://nng.nanomsg.org"),
    Need("libmbedtls-dev", header="mbedtls/sha256.h", home="https://www.trustedfirmware.org/projects/mbed-tls"),
    Need("libmsgpack-cxx-dev", header="msgpack.hpp", home="https://msgpack.org"),
    Need("libsqlite3-dev", header="sqlite3.h", home="https://sqlite.org"),
    Need("libffi-dev", header="ffi.h", home="https://sourceware.org/libffi"),
    Need("libfmt-dev", header="fmt/core.h", home="https://fmt.dev"),
    Need("libcli11-dev", header="CLI/CLI.hpp", home="https://github.com/CLIUtils/CLI11"),
    Need("libxxhash-dev", header="xxhash.h", home="https://xxhash.com"),
    Need("libzstd-dev", header="zstd.h", home="https://facebook.github.io/zstd"),
    Need("liblz4-dev", header="lz4.h", home="https://lz4.org"),
    Need("libgtest-dev", header="gtest/gtest.h", home="https://github.com/google/googletest"),
    Need("libbenchmark-dev", header="benchmark/benchmark.h",
         home="https://github.com/google/benchmark"),
    Need("python3-venv", python="venv, ensurepip", home="Python 3.9 or later with venv",
         groups=("python",)),
    Need("python3-dev", python="sysconfig, os; "
         "open(os.path.join(sysconfig.get_paths()['include'], 'Python.h')).close()",
         home="the headers of that Python", groups=("python",)),
    Need("pybind11-dev", header="pybind11/pybind11.h", home="https://pybind11.readthedocs.io",
         groups=("python",)),
    Need("sqlite3", command="sqlite3", home="https://sqlite.org"),
    Need("clang-format", command="clang-format", home="https://clang.llvm.org", groups=("fmt",)),
    Need("clang", command="clang++", home="https://clang.llvm.org", groups=("fuzz",)),
    # Its runtimes of libFuzzer and the sanitizers: recommended by the package, so not installed with it.
    Need("libclang-rt-14-dev" if os_release().get("VERSION_ID") == "12" else "libclang-rt-dev", clang_runtime="fuzzer",
         home="https://compiler-rt.llvm.org", groups=("fuzz",)),
    Need("openjdk-17-jdk-headless", command="javac", home="17 or later, https://openjdk.org", groups=("java",)),
    Need("maven", command="mvn", home="https://maven.apache.org", groups=("java",)),
    Need("valgrind", command="valgrind", home="https://valgrind.org", groups=("valgrind",)),
]


def python():
    """The interpreter that the virtual environment is made from: the one that runs this, unless it
    lacks its headers or venv and Debian's own has them."""
    probe = ("import venv, ensurepip, sysconfig, os;"
             "open(os.path.join(sysconfig.get_paths()['include'], 'Python.h')).close()")
    for candidate in (os.environ.get("LIBRAY_PYTHON"), sys.executable, "/usr/bin/python3"):
        if candidate and output([candidate, "-c", probe]) is not None:
            return candidate
    return "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


def python_include():
    return (output([python(), "-c", "import sysconfig; print(sysconfig.get_paths()['include'])"])
            or "/usr/include").strip()


def is_debian():
    """Debian 12 or later; testing and unstable carry no VERSION_ID."""
    release = os_release()
    return (release.get("ID") == "debian" and release.get("VERSION_ID", "99").split(".")[0] >= "12"
            and shutil.which("apt-get") is not None)


def root_command():
    """Prefix that gives root without asking, or None."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and output(["sudo", "-n", "true"]) is not None:
        return ["sudo", "-n"]
    return None


def explain(missing):
    lines = ["these are missing:"]
    lines += [f"  {need.name().split(';')[0]:<24} Debian package {need.package:<20} {need.home}"
              for need in missing]
    packages = " ".join(sorted({need.package for need in missing}))
    lines.append("get them with your distribution's package manager; on Debian 12, as root:")
    lines.append(f"  apt-get update && apt-get install -y --no-install-recommends {packages}")
    return "\n".join(lines)


def require(*groups):
    """Makes sure that everything in these groups is there."""
    needs = [n for n in NEEDS if set(n.groups) & set(groups)]
    release = os_release()
    key = digest(Path(__file__), release.get("PRETTY_NAME", ""), os.environ.get("PATH", ""))
    stamp = "machine-" + "-".join(groups)
    if is_stamped(stamp, key):
        return
    missing = [n for n in needs if not n.is_there()]
    if missing:
        prefix = root_command() if is_debian() else None
        if prefix is None:
            if is_debian():
                say("not root, and sudo asks for a password or does not exist")
            raise Failure(explain(missing))
        packages = sorted({n.package for n in missing})
        say(f"installing {len(packages)} Debian packages: {' '.join(packages)}")
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        apt = prefix + ["apt-get", "-y", "-o", "Dpkg::Use-Pty=0"]
        run(apt + ["update"], "apt update", env=env)
        run(apt + ["install", "--no-install-recommends"] + packages, "apt install", env=env)
        missing = [n for n in needs if not n.is_there()]
        if missing:
            raise Failure("installed, and still not found:\n" + explain(missing))
    set_stamp(stamp, key)
