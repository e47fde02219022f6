"""libray as its users get it: installed by CMake, from the tarball, from the Debian package; each tried in an empty project
outside of the source tree, with find_package and with pkg-config, and from another folder than it was made for.

libray-test: slow
libray-test: timeout 900
"""

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("LIBRAY_ROOT", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("LIBRAY_BUILD", ROOT / "build" / "release"))
HELLO = ROOT / "samples" / "c" / "hello.c"
# As a stranger has it: nothing of this tree, of a build folder or of the test runner.
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8",
    "LIBRAY_TMPDIR": os.environ.get("LIBRAY_TMPDIR", "/tmp"),
    "LIBRAY_TEST_MARK": os.environ.get("LIBRAY_TEST_MARK", ""),
}  # fmt: skip


def run(*command, cwd=None, env=None):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=600, cwd=cwd,
        env={**ENVIRONMENT, **(env or {})},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """By `cmake --install`, and then moved."""
    made = tmp_path_factory.mktemp("made") / "first"
    run("cmake", "--install", BUILD, "--prefix", made, "--strip")
    moved = tmp_path_factory.mktemp("moved") / "second place"
    shutil.move(made, moved)
    return moved


def package(generator, folder):
    run("cpack", "-G", generator, "-B", folder, "--config", BUILD / "CPackConfig.cmake", cwd=folder)
    (made,) = [p for p in folder.rglob("*") if p.name.endswith((".tar.gz", ".deb")) and "_CPack" not in str(p)]
    return made


@pytest.fixture(scope="module")
def tarball(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tgz")
    with tarfile.open(package("TGZ", folder)) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder / "out", filter="data")
        else:
            archive.extractall(folder / "out")
    (top,) = (folder / "out").iterdir()
    assert re.fullmatch(r"libray-\d+\.\d+\.\d+-linux-\w+", top.name)
    return top


@pytest.fixture(scope="module")
def debian(tmp_path_factory):
    if shutil.which("dpkg-deb") is None or shutil.which("dpkg-shlibdeps") is None:
        pytest.skip("no tools of Debian's")
    return package("DEB", tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="module")
def unpacked(debian, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    run("dpkg-deb", "-x", debian, root)
    return root / "usr"


@pytest.fixture(params=["installed", "tarball", "unpacked"])
def prefix(request):
    return request.getfixturevalue(request.param)


def check_hello(said):
    assert "their sum is 285" in said, said


def test_find_package(prefix, tmp_path):
    shutil.copy(HELLO, tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(empty C)\nfind_package(ray 0.3 REQUIRED)\n"
        "add_executable(hello hello.c)\ntarget_link_libraries(hello PRIVATE ray::ray)\n"
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "b")
    check_hello(run(tmp_path / "b" / "hello"))


def test_another_minor_version_is_not_found(installed, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(empty C)\nfind_package(ray 0.1)\n"
        'if(ray_FOUND)\nmessage(FATAL_ERROR "found")\nendif()\n'
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={installed}")


def test_pkg_config(prefix, tmp_path):
    if shutil.which("pkg-config") is None:
        pytest.skip("no pkg-config")
    env = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "libray", env=env)
    shutil.copy(HELLO, tmp_path)
    command = f"cc -std=c99 hello.c -o hello {flags.strip()} -Wl,-rpath,'{prefix}/lib'"
    run("sh", "-c", command, cwd=tmp_path)
    check_hello(run(tmp_path / "hello"))
    version = run("pkg-config", "--modversion", "libray", env=env).strip()
    assert version in run(prefix / "bin" / "libray", "--version")


def test_cxx(prefix, tmp_path):
    shutil.copy(ROOT / "samples" / "cpp" / "hello.cc", tmp_path)
    flags = f"-I'{prefix}/include' -L'{prefix}/lib' -lray -Wl,-rpath,'{prefix}/lib'"
    assert run("sh", "-c", f"c++ -std=c++20 hello.cc -o hello {flags} && ./hello", cwd=tmp_path) == "9 81\n"


def needed(path):
    return re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", path))


SYSTEM = re.compile(r"(lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+)|ld-linux[-\w]*)\.so")


def test_the_tarball_brings_what_it_needs(tarball):
    names = {p.name for p in (tarball / "lib").iterdir()}
    binaries = [*(tarball / "bin").iterdir(), *(tarball / "lib").glob("*.so*")]
    assert len(binaries) >= 6
    for binary in binaries:
        for library in needed(binary):
            assert SYSTEM.match(library) or library in names, (binary.name, library)
        if binary.parent.name == "lib" and not binary.name.startswith("libray."):
            continue  # others' have no path of their own: that of the program that loads them counts
        for line in run("ldd", binary).splitlines():
            name = line.split()[0]
            assert "not found" not in line and (
                name.startswith(("/", "linux-")) or SYSTEM.match(name) or str(tarball.resolve()) in line
            ), (binary.name, line)


def test_nothing_of_this_tree_is_in_it(prefix):
    for path in prefix.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert str(BUILD).encode() not in path.read_bytes(), path
    assert (prefix / "share" / "doc" / "libray" / "copyright").read_text().lstrip().startswith("Apache License")


def test_the_debian_package_says_what_it_is(debian):
    about = run("dpkg-deb", "-f", debian)
    assert re.search(r"^Package: libray$", about, re.MULTILINE)
    depends = re.search(r"^Depends: (.*)$", about, re.MULTILINE).group(1)
    for library in ("libc6", "libsqlite3-0", "libffi8", "liblz4-1"):
        assert library in depends, depends
    names = run("dpkg-deb", "-c", debian)
    assert "usr/bin/rayd" in names and "usr/lib/libray.so.0 ->" in names and "usr/include/ray.h" in names
    assert not re.search(r"usr/lib/lib(?!ray\.)", names), names  # no library of somebody else's
    assert "ldconfig" in run("dpkg-deb", "-I", debian, "triggers")


@pytest.mark.skipif(os.environ.get("LIBRAY_TEST_DPKG") != "1" or os.geteuid() != 0, reason="LIBRAY_TEST_DPKG=1, as root")
def test_the_debian_package_installs(debian, tmp_path):
    """Changes the machine, so only where that was asked for."""
    run("dpkg", "-i", debian, env={"PATH": ENVIRONMENT["PATH"] + ":/usr/sbin:/sbin"})
    try:
        shutil.copy(HELLO, tmp_path)
        run("sh", "-c", "cc -std=c99 hello.c -o hello $(pkg-config --cflags --libs libray)", cwd=tmp_path)
        check_hello(run(tmp_path / "hello"))
    finally:
        run("dpkg", "-r", "libray", env={"PATH": ENVIRONMENT["PATH"] + ":/usr/sbin:/sbin"})
