"""One language at a time: `./dev build --lang X` and `./dev run --lang X [SAMPLE]`, for C, C++, Java, Python and Rust.

Each takes its own tools alone: neither cargo nor a JDK for C, neither pip nor pybind11 for Rust. `run` without a name runs
the program that samples/pole has in every language, which prints the same lines in each; `--lang all` runs the one that
is written in all of them. Called by __main__.py, and by tests/samples/test_pole.py for the commands.
"""
import re

import build
import java
import rust
from shell import BUILD, ROOT, Failure, forget, run, start

NAMES = ("c", "cpp", "java", "python", "rust")
CORE = ["ray", "rayd", "libray", "libray-worker", "libray-relay"]  # what every language stands on
SAMPLES = ROOT / "samples"
DEFAULT = "pole"


def need(language):
    """Says what is missing before anything is built."""
    if language == "rust" and not rust.is_there():
        raise Failure(rust.ABSENT)
    if language == "java":
        java.install()
        if not java.is_there():
            raise Failure(java.ABSENT)


def build_one(language):
    """The library, the daemon, and what a program of this language links or loads."""
    need(language)
    if language == "python":
        return build.install_package()
    build.build("release", CORE + (["java_native"] if language == "java" else []), python=False)
    if language == "rust":
        run(["cargo", "build", "--locked"], "build the crates", env=rust.environment(), cwd=rust.WORKSPACE)
    if language == "java":
        run(java.maven("package", "-q", "-DskipTests", "-Dmaven.javadoc.skip"), "build the jar", env=java.environment())


# ---- samples -----------------------------------------------------------------------------------------------------------

def camel(name):
    return "".join(word.capitalize() for word in name.split("_"))


def snake(name):
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def stems(folder, suffix):
    return {path.stem for path in (SAMPLES / folder).glob(f"*{suffix}")}


def samples(language):
    """Names that `run` takes."""
    found = {"c": lambda: stems("c", ".c"), "cpp": lambda: stems("cpp", ".cc"),
             "java": lambda: {snake(stem) for stem in stems("java", ".java")},
             "python": lambda: {"evolve"}, "rust": lambda: stems("rust/src/bin", ".rs")}[language]()
    return sorted(found | {DEFAULT})


def native_target(language, name):
    if name == DEFAULT:
        return f"sample_pole_{language}"
    return "sample_c" if language == "c" else f"sample_cpp_{name}"


def rust_sample(name):
    run(["cargo", "build", "-q", "--locked", "-p", "libray-samples", "--bin", name], f"build the sample {name}",
        env=rust.environment(), cwd=rust.WORKSPACE)
    return BUILD / "cargo" / "debug" / name


def command(language, name=DEFAULT):
    """Builds a sample; its command and environment."""
    need(language)
    if name not in samples(language):
        raise Failure(f"there is no sample '{name}' for {language}, but {', '.join(samples(language))}")
    if language in ("c", "cpp"):
        target = native_target(language, name)
        build.build("release", [*CORE, target], python=False)
        return [build.folder("release") / "bin" / target], build.environment()
    if language == "python":
        build.install_package()
        if name == "evolve":
            build.install_requirements(SAMPLES / "python" / "requirements.txt")
        place = SAMPLES / ("pole" if name == DEFAULT else "python") / f"{name}.py"
        return [build.venv_python(), "-u", place], build.environment()
    build.build("release", CORE + (["java_native"] if language == "java" else []), python=False)
    if language == "rust":
        return [rust_sample(name)], rust.environment()
    return java.program(camel(name)), java.environment()


def command_of_all():
    """The program that is written in all languages, and its environment."""
    for language in NAMES:
        need(language)
    build.install_package()
    build.build("release", ["sample_pole_cpp", "sample_pole_kernel", "java_native"])
    binaries = build.folder("release") / "bin"
    env = {**java.environment(), **{key: rust.environment()[key] for key in ("LD_LIBRARY_PATH", "LIBRAY_BUILD")}}
    return [build.venv_python(), "-u", SAMPLES / "pole" / "all.py", "--rust", rust_sample(DEFAULT), "--cpp",
            binaries / "sample_pole_cpp", "--java", java.class_path(), "--c", binaries / "libpole.so"], env


def run_sample(language, name=DEFAULT, *arguments):
    """What `./dev run --lang` does; the program's output is shown as it comes."""
    words, env = command_of_all() if language == "all" else command(language, name)
    process = start([*words, *arguments], env=env)
    code = process.wait()
    forget(process)
    if code:
        raise Failure(f"the sample {name} for {language} ended with status {code}")
