"""The Java binding: what Maven builds, tests and packs; all of it below build/java.

As a program it is one part of ./dev test: `java.py test|jni|package|model`, with the counts in the last line.
Where there is no JDK or no Maven it says so and counts one as skipped: nothing else of libray needs them.
"""
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import build
import machine
from shell import BUILD, ROOT, Failure, output, run, say

PROJECT = ROOT / "bindings" / "java"
OUTPUT = BUILD / "java"
ABSENT = ("a JDK (17 or later, with jni.h) or Maven is not installed, so the Java binding is left out "
          "(Debian: openjdk-17-jdk-headless and maven)")
MESSAGES = ("WARNING in native method", "FATAL ERROR in native method", "WARNING: JNI")  # of -Xcheck:jni


def jdk():
    """The folder of the JDK whose javac is found, or None."""
    home = os.environ.get("JAVA_HOME", "")
    found = shutil.which("javac", path=os.path.join(home, "bin") + os.pathsep + os.environ.get("PATH", ""))
    place = Path(found).resolve().parents[1] if found else None
    return place if place and (place / "include" / "jni.h").exists() else None


def is_there():
    return jdk() is not None and shutil.which("mvn") is not None


def install():
    """On Debian, as root: the JDK and Maven, where they are missing. Elsewhere the binding is left out."""
    if is_there():
        return
    try:
        machine.require("java")
    except Failure:
        say(ABSENT)


def setup():
    """What ./dev setup gets: the JDK, Maven, and into Maven's own cache its plugins and the two libraries."""
    install()
    if is_there():
        what = "Maven's plugins, msgpack-core and JUnit, from Maven Central into Maven's own cache"
        run(maven("dependency:go-offline", "-q"), what, env=environment())


def environment():
    """For Maven, and for the programs that it runs: what they unpack stays below the build folder too."""
    env = build.environment()
    env["JAVA_HOME"] = str(jdk())
    OUTPUT.mkdir(parents=True, exist_ok=True)
    env["LIBRAY_CACHE"] = str(OUTPUT / "cache")
    if build.venv_python().exists():
        env["LIBRAY_PYTHON"] = str(build.venv_python())  # for what Java calls of Python
    env["MAVEN_OPTS"] = (env.get("MAVEN_OPTS", "") + " -XX:TieredStopAtLevel=1").strip()
    return env


def maven(*arguments, where=OUTPUT):
    return ["mvn", "-B", "-ntp", "-f", PROJECT / "pom.xml", f"-Dlibray.output={where.parent}",
            f"-Dlibray.natives={natives()}", *arguments]


def natives():
    """lib/ and bin/ that the jar carries: of the release build, unless LIBRAY_BUILD says otherwise."""
    return Path(os.environ.get("LIBRAY_BUILD", build.folder("release"))) / "java" / "native"


def build_native():
    """The part that CMake builds."""
    build.build("release", ["java_native"], python=False)


def class_path():
    """Of the built jar, the library it needs, and the programs of samples/java and bench/java."""
    run(maven("package", "-q", "-Dmaven.javadoc.skip", "-DskipTests", "dependency:build-classpath",
              f"-Dmdep.outputFile={OUTPUT / 'class-path'}"), "build the Java programs", env=environment())
    version = re.search(r"<version>(.*?)</version>", (PROJECT / "pom.xml").read_text()).group(1)
    jar = OUTPUT / f"libray-{version}.jar"
    return os.pathsep.join([str(jar), str(OUTPUT / "test-classes"), (OUTPUT / "class-path").read_text().strip()])


def program(main, *options):
    """The command of a Java program of samples/java or bench/java."""
    build_native()
    return [jdk() / "bin" / "java", *options, "-cp", class_path(), main]


# ---- parts of ./dev test -------------------------------------------------------------------------------------------------------

def show(command, cwd=ROOT):
    """Runs it; its exit status and what it wrote, which is shown too."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment(), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(done.stdout, flush=True)
    return done.returncode, done.stdout


def counts(reports):
    """Of Surefire's reports."""
    passed = failed = skipped = 0
    for report in reports.glob("TEST-*.xml"):
        root = ElementTree.parse(report).getroot()
        n, bad = int(root.get("tests")), int(root.get("failures")) + int(root.get("errors"))
        passed += n - bad - int(root.get("skipped"))
        failed += bad
        skipped += int(root.get("skipped"))
    return passed, failed, skipped


def tests(where, *arguments):
    """Builds the jar with its sources and documentation, runs all tests against it; the counts."""
    reports = where / "surefire-reports"
    shutil.rmtree(reports, ignore_errors=True)
    code, text = show(maven(*arguments, where=where))
    passed, failed, skipped = counts(reports)
    return text, (passed, failed + (1 if code and not failed else 0), skipped)


def part_test():
    return tests(OUTPUT, "verify")[1]


def part_jni():
    """The same tests with the JVMs, workers too, looking at each native call."""
    option = "-Xcheck:jni"
    where = BUILD / "java-jni" / "java"
    text, (passed, failed, skipped) = tests(where, "verify", "-Dmaven.javadoc.skip", "-Dmaven.source.skip",
                                            f"-Djvm.options={option} -Dray.jvm-options={option} -Dlibray.test.jni=true")
    told = [line for line in text.splitlines() if any(m in line for m in MESSAGES)]
    print(f"{len(told)} complaints of {option}" + "".join("\n  " + line for line in told[:20]))
    return passed + (not told), failed + bool(told), skipped


CLIENT = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>client</groupId><artifactId>client</artifactId><version>1</version>
<properties><maven.compiler.source>17</maven.compiler.source><maven.compiler.target>17</maven.compiler.target>
<project.build.sourceEncoding>UTF-8</project.build.sourceEncoding></properties>
<repositories><repository><id>libray</id><url>file://REPOSITORY</url></repository></repositories>
<dependencies><dependency>
<groupId>org.libray</groupId><artifactId>libray</artifactId><version>VERSION</version></dependency></dependencies>
</project>
"""


def part_package():
    """The artifacts in a local repository, tried as a new user does: an empty project outside of the source tree that names the
    dependency, and a program that knows of no folder of libray."""
    repository = OUTPUT / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    code, _ = show(maven("deploy", "-q", "-DskipTests"))
    folder = next(repository.glob("org/libray/libray/*/"), None)
    version = folder.name if folder else ""
    made = [folder and (folder / f"libray-{version}{kind}").exists() for kind in (".jar", "-sources.jar", "-javadoc.jar", ".pom")]
    if code or not all(made):
        print("the jar, its sources, its documentation and the pom are to be in the repository:", made)
        return 0, 1, 0
    client = Path(os.environ.get("TMPDIR", "/tmp")) / "java-client"
    shutil.rmtree(client, ignore_errors=True)
    (client / "src" / "main" / "java").mkdir(parents=True)
    (client / "pom.xml").write_text(CLIENT.replace("REPOSITORY", str(repository)).replace("VERSION", version))
    shutil.copy(ROOT / "samples" / "java" / "Hello.java", client / "src" / "main" / "java")
    cache = ["-B", "-q", "-ntp", f"-Dmaven.repo.local={client / 'm2'}"]  # nothing of this project is in it
    code, _ = show(["mvn", *cache, "package", "dependency:build-classpath", "-Dmdep.outputFile=path"], cwd=client)
    if code:
        return 1, 1, 0
    path = os.pathsep.join(["target/client-1.jar", (client / "path").read_text().strip()])
    code, text = show([jdk() / "bin" / "java", "-cp", path, "Hello"], cwd=client)
    good = code == 0 and text.strip() == "9 81"
    return 1 + good, not good, 0


def part_model():
    """Random programs in Java against the model: bindings/conformance."""
    tester = ROOT / "bindings" / "conformance" / "tester"
    code, text = show([build.venv_python(), "-u", tester, "--driver", "java", "--seeds", 80])
    passed, failed = (int(text.splitlines()[-1].split()[i]) for i in (0, 2)) if " passed, " in text else (0, 1)
    return passed, failed or int(code != 0), 0


PARTS = {"test": part_test, "jni": part_jni, "package": part_package, "model": part_model}


def main():
    if not is_there():
        print(ABSENT + "\n0 passed, 0 failed, 1 skipped")
        return 0
    passed, failed, skipped = PARTS[sys.argv[1]]()
    print(f"{passed} passed, {int(failed)} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
