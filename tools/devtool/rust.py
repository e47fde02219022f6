"""The Rust binding: what cargo builds, tests, packs and measures; all of it below build/cargo.

As a program it is one part of ./dev test: `rust.py test|samples|package|msrv|model`, with the counts in the last line. Where
there is no cargo it says so and counts one as skipped: nothing else of libray needs it.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import build
from shell import BUILD, ROOT, Failure, output, run, say

WORKSPACE = ROOT / "bindings" / "rust"
CRATES = ("libray-sys", "libray-macros", "libray")
SAMPLES = ROOT / "samples" / "rust"
ABSENT = "cargo is not installed, so the Rust binding is left out (rustup.rs, or Debian's cargo and rustc 1.85 or later)"


def is_there():
    return shutil.which("cargo") is not None


def environment():
    """For cargo and what it makes. The library is that of the release build, unless LIBRAY_BUILD says otherwise."""
    env = build.environment()
    env["CARGO_TARGET_DIR"] = str(BUILD / "cargo")
    env.setdefault("LIBRAY_BUILD", str(build.folder("release")))
    env["LD_LIBRARY_PATH"] = os.pathsep.join(
        filter(None, [str(Path(env["LIBRAY_BUILD"]) / "lib"), env.get("LD_LIBRARY_PATH")]))
    return env


def setup():
    """Fetches the crates that Cargo.lock names, for ./dev setup."""
    if not is_there():
        return say(ABSENT)
    run(["cargo", "fetch", "--locked"], "crates of the Rust binding, from crates.io into cargo's own cache", env=environment(),
        cwd=WORKSPACE)


def bench_program():
    """The built program of the Rust rows, and its environment."""
    run(["cargo", "build", "--release", "--locked", "-p", "libray-bench"], "build the Rust rows", env=environment(),
        cwd=WORKSPACE)
    return [BUILD / "cargo" / "release" / "libray-bench"], environment()


def conformance_program():
    """The built driver of ./dev model, and its environment."""
    run(["cargo", "build", "--locked", "-p", "libray-conformance"], "build the Rust driver", env=environment(), cwd=WORKSPACE)
    return BUILD / "cargo" / "debug" / "conformance_driver_rust", environment()


# ---- parts of ./dev test -------------------------------------------------------------------------

def cargo(*arguments, cwd=WORKSPACE, env=None):
    """Runs cargo; its exit status and what it wrote, which is shown too."""
    done = subprocess.run(["cargo", *map(str, arguments)], cwd=cwd, env=env or environment(), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(done.stdout, flush=True)
    return done.returncode, done.stdout


def counts(text):
    """Of all test programs in cargo's output: Rust's own harness and ours, which has a node to share."""
    found = re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", text, re.MULTILINE)
    found += re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", text, re.MULTILINE)
    return [sum(int(row[i]) for row in found) for i in range(3)]


def test():
    """Unit tests, the API against a node, and every example of the documentation."""
    code, text = cargo("test", "--locked", "--no-fail-fast", "--workspace", "--features", "libray/ndarray")
    passed, failed, skipped = counts(text)
    return passed, failed or (1 if code else 0), skipped


def samples():
    """The programs of samples/rust print what stands in samples/rust/expected."""
    passed = failed = 0
    code, _ = cargo("build", "--locked", "-p", "libray-samples")
    for path in sorted((SAMPLES / "src" / "bin").glob("*.rs")):
        program = BUILD / "cargo" / "debug" / path.stem
        expected = (SAMPLES / "expected" / f"{path.stem}.txt").read_text()
        done = subprocess.run([program], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              timeout=120) if code == 0 else None
        good = done is not None and done.returncode == 0 and done.stdout == expected
        passed, failed = passed + good, failed + (not good)
        if not good:
            print(f"{path.name}: {'not built' if done is None else f'status {done.returncode}, it printed'}")
            print(done.stdout if done else "")
    return passed, failed, 0


def prefix_in(place):
    """An installed libray, as LIBRAY_PREFIX wants it."""
    built = Path(environment()["LIBRAY_BUILD"])
    (place / "include").mkdir(parents=True)
    shutil.copy(ROOT / "include" / "ray.h", place / "include")
    for folder in ("lib", "bin"):
        (place / folder).symlink_to(built / folder)
    return place


MANIFEST = """[package]
name = "stranger"
version = "0.1.0"
edition = "2021"

[dependencies]
libray = { path = "%s" }

[patch.crates-io]
libray-sys = { path = "%s" }
libray-macros = { path = "%s" }

[workspace]
"""


def package():
    """`cargo package` of the crates, each built from what was packed; then a program of a stranger's, in an empty
    project outside of this tree, that has nothing but the packed crates and an installed library."""
    with tempfile.TemporaryDirectory(prefix="libray-rust-") as name:
        place = Path(name)
        env = dict(environment(), LIBRAY_PREFIX=str(prefix_in(place / "installed")))
        env.pop("LD_LIBRARY_PATH")
        chosen = [word for crate in CRATES for word in ("-p", crate)]
        code, _ = cargo("package", "--locked", "--allow-dirty", *chosen, env=env)
        if code:
            return 0, 2, 0
        version = re.search(r'^version = "(.*)"', (WORKSPACE / "Cargo.toml").read_text(), re.MULTILINE).group(1)
        for crate in CRATES:
            shutil.unpack_archive(BUILD / "cargo" / "package" / f"{crate}-{version}.crate", place, "gztar")
        paths = {crate: place / f"{crate}-{version}" for crate in CRATES}
        project = place / "stranger"
        (project / "src").mkdir(parents=True)
        shutil.copy(SAMPLES / "src" / "bin" / "hello.rs", project / "src" / "main.rs")
        (project / "Cargo.toml").write_text(MANIFEST % (paths["libray"], paths["libray-sys"], paths["libray-macros"]))
        code, text = cargo("run", "-q", cwd=project, env=env)
        good = code == 0 and (SAMPLES / "expected" / "hello.txt").read_text() in text
        return 1 + good, 0 if good else 1, 0


def model():
    """Random programs in Rust against the model: bindings/conformance."""
    tester = ROOT / "bindings" / "conformance" / "tester"
    done = subprocess.run([build.venv_python(), "-u", tester, "--driver", "rust", "--seeds", "80"], env=environment(),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, flush=True)
    passed, failed, _ = counts(done.stdout)
    return passed, failed or int(done.returncode != 0), 0


def oldest():
    """The oldest Rust that the crates are for: Cargo.toml's rust-version."""
    return re.search(r'^rust-version = "(.*)"', (WORKSPACE / "Cargo.toml").read_text(), re.MULTILINE).group(1)


def msrv():
    """All tests with the oldest Rust, where one is: in the folder that LIBRAY_RUST_OLDEST names, rustup's or Debian's."""
    version, places = oldest(), [Path(os.environ.get("LIBRAY_RUST_OLDEST", "/nowhere")), Path("/usr/bin")]
    found = output(["rustup", "run", version, "rustc", "--print", "sysroot"])
    places += [Path(found.strip()) / "bin"] if found else []
    for place in places:
        if f"rustc {version}." in (output([place / "rustc", "--version"]) or "") and (place / "cargo").exists():
            break
    else:
        print(f"no Rust {version} is here (rustup toolchain install {version}; Debian: rustc-web, cargo-web), so it is not tried")
        return 0, 0, 1
    env = dict(environment(), CARGO_TARGET_DIR=str(BUILD / "cargo-oldest"), RUSTC=str(place / "rustc"),
               RUSTDOC=str(place / "rustdoc"))
    env["PATH"] = os.pathsep.join([str(place), env["PATH"]])
    code, text = cargo("test", "--locked", "--no-fail-fast", "--workspace", "--features", "libray/ndarray", env=env)
    passed, failed, skipped = counts(text)
    return passed, failed or (1 if code else 0), skipped


# ---- lint, for tools/check.py --------------------------------------------------------------------

def lint_format():
    """Complaints of rustfmt, or None when it is not there."""
    if not is_there() or output(["cargo", "fmt", "--version"]) is None:
        return None
    done = subprocess.run(["cargo", "fmt", "--all", "--check"], cwd=WORKSPACE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("Diff in")]
    return lines or ([done.stdout] if done.returncode else [])


def lint_clippy():
    """Complaints of clippy, or None when it or the built library is not there."""
    library = Path(environment()["LIBRAY_BUILD"]) / "lib" / "libray.so"
    if not is_there() or output(["cargo", "clippy", "--version"]) is None or not library.exists():
        return None
    done = subprocess.run(
        ["cargo", "clippy", "-q", "--locked", "--workspace", "--all-targets", "--features", "libray/ndarray", "--", "-D",
         "warnings"],
        cwd=WORKSPACE, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return [done.stdout] if done.returncode else []


def main():
    parts = {"test": test, "samples": samples, "package": package, "msrv": msrv, "model": model}
    if len(sys.argv) != 2 or sys.argv[1] not in parts:
        raise Failure(f"usage: rust.py {'|'.join(parts)}")
    if not is_there():
        print(ABSENT)
        print("0 passed, 0 failed, 1 skipped")
        return 0
    passed, failed, skipped = parts[sys.argv[1]]()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
