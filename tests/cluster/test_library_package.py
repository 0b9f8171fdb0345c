"""The library as it is installed: what leaves it, what it needs, what compiles with it.

The examples and those of the man page are built as a user builds them, by pkg-config from an
installed copy, static and shared, and run against a cluster.
"""

import os
import re
import shutil
import subprocess
import tempfile

from tests.lib.cluster import BUILD, ROOT, Cluster, Failure, case, expect, expect_equal

HEADER = os.path.join(ROOT, "client", "lectern.h")
PAGE = os.path.join(ROOT, "docs", "man", "liblectern.3")
EXAMPLES = os.path.join(ROOT, "docs", "examples")
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def run(*command, env=None, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT,
                          env={**os.environ, **(env or {})}, **options)
    expect(done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
           f"{done.stderr}")
    return done.stdout


def header_calls():
    """Names of the functions that lectern.h declares."""
    with open(HEADER, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    return set(re.findall(r"LECTERN_API[^;(]*?\b(lectern_\w+)\s*\(", text))


def header_constants():
    with open(HEADER, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    values = set(re.findall(r"\b(LECTERN_[A-Z0-9_]+)\b", text))
    return values - {"LECTERN_H", "LECTERN_API", "LECTERN_VERSION_NUMBER"}


def library(name):
    path = os.path.join(BUILD, name)
    expect(os.path.exists(path), f"{path} is not built")
    return path


def symbols(*flags):
    """Global names that are defined, by nm."""
    lines = run("nm", "--defined-only", "--extern-only", *flags).splitlines()
    return {line.split()[-1] for line in lines if len(line.split()) == 3}


@case()
def test_library_lets_only_its_calls_out():
    calls = header_calls()
    expect(len(calls) > 60, f"the header declares only {len(calls)} calls: is it read right?")
    for found in (symbols("-D", library("liblectern.so")), symbols(library("liblectern.a"))):
        expect_equal(found - calls, set(), "names that leave the library")
        expect_equal(calls - found, set(), "calls that the library does not have")


@case()
def test_library_needs_nothing_but_libc():
    dynamic = run("readelf", "-d", library("liblectern.so"))
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    expect(needed <= {"libc.so.6", "ld-linux-x86-64.so.2"}, f"it needs {needed}")
    with Installed() as i:
        version = i.flags("--modversion")[0]
    with open(HEADER, encoding="utf-8") as f:
        number = int(re.search(r"LECTERN_VERSION_NUMBER (\d+)", f.read()).group(1))
    wanted = f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"
    expect_equal(version, wanted, "version in lectern.pc")
    expect(f"soname: [liblectern.so.{number // 1000000}]" in dynamic, "the soname")


@case()
def test_library_header_compiles_alone_everywhere():
    for compiler, language, standards in (
            ("gcc", "c", ("c99", "c11", "gnu17")), ("clang", "c", ("c99", "c11")),
            ("g++", "c++", ("c++11", "c++17")), ("clang++", "c++", ("c++17",))):
        if not shutil.which(compiler):
            expect(compiler.startswith("clang"), f"{compiler} is not here")
            continue
        for standard in standards:
            run(compiler, f"-std={standard}", *WARNINGS, "-x", language, "-fsyntax-only",
                "-include", HEADER, "/dev/null")


class Installed:
    """`make install` into a directory of its own, and programs built from there."""

    def __init__(self):
        self.root = tempfile.mkdtemp(prefix="lectern-install-")
        # -o: what this build made is taken as it is; nothing is compiled here.
        run("make", "-o", "all", "install", f"B={BUILD}",
            f"DESTDIR={self.root}", "PREFIX=/usr")
        self.lib = os.path.join(self.root, "usr", "lib")
        self.pkgconfig = os.path.join(self.lib, "pkgconfig", "lectern.pc")

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        shutil.rmtree(self.root)

    def flags(self, *what):
        env = {"PKG_CONFIG_PATH": os.path.dirname(self.pkgconfig),
               "PKG_CONFIG_SYSROOT_DIR": self.root}
        return run("pkg-config", *what, "lectern", env=env).split()

    def build(self, source, static):
        name = os.path.basename(source)[:-2] + ("-static" if static else "-shared")
        target = os.path.join(self.root, name)
        libs = self.flags("--libs", *(["--static"] if static else []))
        if static:
            libs = ["-Wl,-Bstatic" if x == "-llectern" else x for x in libs]
            libs += ["-llectern", "-Wl,-Bdynamic"]
        run("cc", "-std=c11", *WARNINGS, *self.flags("--cflags"), "-o", target, source, *libs)
        needs = "liblectern" in run("readelf", "-d", target)
        expect_equal(needs, not static, f"{name} needs the shared library")
        return target

    def run(self, program, *arguments, **options):
        return run(program, *arguments, env={"LD_LIBRARY_PATH": self.lib}, **options)


@case()
def test_library_install_has_all_files():
    with Installed() as i:
        for name in ("bin/lecternd", "bin/lectern", "include/lectern.h", "lib/liblectern.a",
                     "lib/liblectern.so", "lib/pkgconfig/lectern.pc", "share/man/man1/lectern.1",
                     "share/man/man8/lecternd.8", "share/man/man3/liblectern.3"):
            path = os.path.join(i.root, "usr", name)
            expect(os.path.isfile(path), f"{name} is not installed")
        with open(i.pkgconfig, encoding="utf-8") as f:
            expect(i.root not in f.read(), "lectern.pc names the staging directory")


def page_text():
    with open(PAGE, encoding="utf-8") as f:
        return f.read()


def page_examples():
    """The C programs of the man page: whole ones, that begin with an #include."""
    blocks = re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed", page_text(), flags=re.S | re.M)
    programs = [b.replace("\\e", "\\").replace("\\&", "") for b in blocks if "#include" in b]
    if not programs:
        raise Failure("the man page has no whole program")
    return programs


def readme_example():
    """The lines of C in README.md as a program: its first argument is the URL."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        block = re.search(r"^    #include <lectern.h>.*\n((?:    .*\n)+)", f.read(), flags=re.M)
    body, urls = re.subn(r'"lectern://[^"]*"', "argv[1]", block.group(1))
    expect_equal(urls, 1, "URLs in README.md's program")
    return ("#include <lectern.h>\n#include <stdio.h>\nint main(int argc, char **argv)\n{\n"
            f"    if (argc != 2)\n        return 2;\n{body}"
            "    printf(\"%d\\n\", rc);\n    return rc != LECTERN_DONE;\n}\n")


@case()
def test_library_man_page_names_every_call_and_no_other():
    text = page_text()
    calls = set(re.findall(r"\b(lectern_[a-z0-9_]+)\b", text))
    types = {"lectern_stmt", "lectern_cluster", "lectern_batch", "lectern_destructor",
             "lectern_on_row", "lectern_on_end", "lectern_member_change"}
    expect_equal(header_calls() - calls, set(), "calls that the page does not name")
    expect_equal(calls - header_calls() - types, set(), "names of the page that do not exist")
    named = set(re.findall(r"\b(LECTERN_[A-Z0-9_]+)\b", text))
    expect_equal(header_constants() - named, set(), "constants that the page does not name")
    expect_equal(named - header_constants() - {"LECTERN_VERSION_NUMBER"}, set(),
                 "constants of the page that do not exist")
    if shutil.which("mandoc"):
        run("mandoc", "-T", "lint", "-W", "warning", PAGE)


@case(seconds=90)
def test_library_examples_run():
    sources = sorted(os.path.join(EXAMPLES, n) for n in os.listdir(EXAMPLES) if n.endswith(".c"))
    expect(len(sources) >= 3, f"only {len(sources)} examples")
    with Installed() as i, Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE greeting(id INTEGER PRIMARY KEY, text NOT NULL)")
        for number, text in enumerate([readme_example(), *page_examples()]):
            sources.append(os.path.join(i.root, f"page{number}.c"))
            with open(sources[-1], "w", encoding="utf-8") as f:
                f.write(text)
        for source in sources:
            for static in (True, False):
                out = i.run(i.build(source, static), f"lectern://{c.addresses()}/", timeout=30)
                expect(out.strip(), f"{source} printed nothing")
        c.check_equal()
