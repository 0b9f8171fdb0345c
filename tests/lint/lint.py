#!/usr/bin/env python3
"""Checks what a compiler does not: who includes whom, sizes, banned calls, format, documents.

    tests/lint/lint.py [--lengths]

Prints one line `file:line: what is wrong` for each finding and exits 1 when there is one. Functions
longer than FUNCTION_LINES are reported as notes, not findings. --lengths prints all of them.
"""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILE_LINES, FUNCTION_LINES, COLUMNS, README_LINES = 900, 70, 100, 120

# Who may include what (STYLE: only the door of another room). Patterns of include paths; a room may
# always include itself and base/.
DOORS = {
    "base": (),
    "client": (),
    "replication": (),
    "consensus": (),
    "node": ("client/wire.h", "client/wire_cluster.h", "client/wire_image.h",
             "client/lectern.h", "client/dial.h", "client/image_client.h", "client/sql_split.h",
             "client/sql_dump.h",
             "replication/replication.h", "consensus/consensus.h"),
}
# Libraries that are kept to some rooms, so that they stay replaceable.
LIBRARIES = {
    "raft.h": ("consensus/",),
    "raft/": ("consensus/",),
    "lz4.h": ("replication/",),
    "xxhash.h": ("base/",),
    "sqlite3.h": ("replication/", "node/", "client/shell", "client/sql_literal.c",
                  "tests/bench/", "tests/unit/client/"),
    "uv.h": ("consensus/", "node/"),
    "histedit.h": ("client/shell",),
    "editline/readline.h": ("client/shell",),
    "ini.h": ("node/",),
    "llhttp/": ("node/http/",),
    "wslay/": ("node/http/",),
    "zlib.h": ("node/http/",),
    "pb_decode.h": ("node/http/",),
    "pb_encode.h": ("node/http/",),
}
# What the client library may not use: memory that aborts, and what is not libc.
NOT_IN_LIBRARY = ("base/mem.h", "base/log.h", "base/mail.h", "xxhash.h", "sqlite3.h")
BANNED = {
    "strcpy": "unbounded: snprintf, memcpy",
    "strcat": "unbounded: snprintf, struct buf",
    "strncpy": "leaves no final zero: snprintf",
    "strncat": "miscounted easily: snprintf",
    "sprintf": "unbounded: snprintf",
    "vsprintf": "unbounded: vsnprintf",
    "gets": "unbounded: fgets",
    "atoi": "reports no error: strtol with checks",
    "atol": "reports no error: strtol with checks",
    "atoll": "reports no error: strtoll with checks",
    "atof": "reports no error: strtod with checks",
    "sscanf": "overflows silently: strtol with checks",
    "system": "runs a shell: posix_spawn",
    "popen": "runs a shell: posix_spawn",
    "strtok": "static state: strtok_r",
    "tmpnam": "races: mkstemp",
    "mktemp": "races: mkstemp",
    "rand": "poor and global: base/rng.h",
    "srand": "poor and global: base/rng.h",
    "random": "global: base/rng.h",
    "asctime": "static state: strftime",
    "ctime": "static state: strftime",
    "localtime": "static state: localtime_r",
    "gmtime": "static state: gmtime_r",
    "strerror_r": "two incompatible versions: strerror on Linux is safe enough",
    "alloca": "unbounded stack: struct buf",
    "assert": "off in release: CHECK",
    "setjmp": "jumps over clean-up",
    "longjmp": "jumps over clean-up",
}
BANNED_CALL = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(?:work|home|root|Users|tmp/ref)/[\w.]")
VAGUE_NAMES = re.compile(r"(?:^|/)(?:utils?|misc|common|helpers?)\.\w+$")

PUBLIC = "client/lectern.h"  # installed: its guard is a name of its own
# Programs on the installed library: they see of Lectern what a user's program sees.
PROGRAMS = ("tests/programs/", "docs/examples/")

# node/ is tested in two programs.
NODE_TESTS = ("tests/unit/node/", "tests/unit/http/")

findings, notes = [], []


def of_library(path):
    """client/ without the shell, and the dumps that it shares with the server."""
    return path.startswith("client/") and not path.startswith(
        ("client/shell", "client/sql_dump.", "client/sql_literal."))


def finding(path, line, text):
    findings.append(f"{path}:{line}: {text}")


def tracked():
    """Files that git knows or would take (not ignored), that exist."""
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                         capture_output=True, text=True).stdout
    return [p for p in out.splitlines() if os.path.isfile(os.path.join(ROOT, p))]


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def without_comments(text):
    """The text with comments and the insides of strings blanked, lines kept."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

    def blank(m):
        s = m.group(0)
        if s[0] in "\"'":
            return s[0] + " " * (len(s) - 2) + s[0]
        return re.sub(r"[^\n]", " ", s)
    return pattern.sub(blank, text)


def check_includes(path, text):
    room = path.split("/")[0]
    own = f"tests/unit/{path.split('/')[2]}/" if path.startswith("tests/unit/") else None
    for number, line in enumerate(text.splitlines(), 1):
        m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not m:
            continue
        kind, name = m.groups()
        for library, places in LIBRARIES.items():
            if name != library and not (library.endswith("/") and name.startswith(library)):
                continue
            tests = tuple("tests/unit/" + p for p in places) + tuple("tests/sim/" for _ in places)
            # Whoever tests a room may use what that room uses; node's tests see all.
            if not path.startswith(places + tests + NODE_TESTS + ("tests/fuzz/",)):
                finding(path, number, f"<{name}> belongs to {', '.join(places)} only")
        if of_library(path) and name in NOT_IN_LIBRARY:
            finding(path, number, f"{name} is not for the library: it must never abort for want of "
                    "memory, and needs nothing but libc")
        if path.startswith(PROGRAMS) and kind == '"':
            finding(path, number, f"{name}: a program on the installed library sees <lectern.h> "
                    "and the system's headers only")
        if kind == "<":
            continue
        if "/" not in name:
            finding(path, number, f'include "{name}" is not written from the root')
        target = name.split("/")[0]
        if room in DOORS and target not in (room, "base") and name not in DOORS[room]:
            finding(path, number, f"{room}/ must not include {name}")
        if own and not name.startswith(("base/", "tests/lib/", "tests/sim/", own)):
            tested = "node" if path.startswith(NODE_TESTS) else path.split("/")[2]
            allowed = (tested + "/",) + DOORS.get(tested, ())
            if not name.startswith(allowed):
                finding(path, number, f"tests of {tested}/ must not include {name}")


def check_c(path, text):
    bare = without_comments(text)
    check_includes(path, text)
    if not re.match(r"\s*/\*", text):
        finding(path, 1, "begins without a head comment (Room, Thread, Owns, Invariants, Not here)")
    for number, line in enumerate(bare.splitlines(), 1):
        for m in BANNED_CALL.finditer(line):
            finding(path, number, f"{m.group(1)}(): {BANNED[m.group(1)]}")
    lines = text.count("\n")
    if lines > FILE_LINES:
        finding(path, 1, f"{lines} lines, {FILE_LINES} at most: two nouns live here")
    if path.endswith(".h"):
        guard = "LECTERN_H" if path == PUBLIC else re.sub(r"\W", "_", path).upper()
        if f"#ifndef {guard}" not in text:
            finding(path, 1, f"its guard is not {guard}")
    for name, number, length in functions(bare):
        if length > FUNCTION_LINES:
            notes.append(f"{path}:{number}: {name}() has {length} lines")


def functions(bare):
    """(name, line, length) of each function, by its braces in column 0 (clang-format's doing)."""
    lines = bare.splitlines()
    start = None
    for i, line in enumerate(lines):
        if line == "{":
            start = i
        elif line.startswith("}") and start is not None:
            head = " ".join(lines[max(0, start - 4):start])
            names = re.findall(r"(\w+)\s*\(", head)
            names = [n for n in names if not n.isupper() and not n.startswith("__")]
            if names:
                yield names[-1] if len(names) == 1 else names[0], start + 1, i - start + 1
            start = None


def check_text(path, text):
    for number, line in enumerate(text.splitlines(), 1):
        if MACHINE_PATH.search(line):
            finding(path, number, "an absolute path of somebody's machine")
        if line != line.rstrip() and not path.endswith((".md", ".sql")):
            finding(path, number, "space at the end of the line")
        if len(line) > COLUMNS and path.endswith((".c", ".h", ".py", ".sh", "Makefile")):
            finding(path, number, f"{len(line)} columns, {COLUMNS} at most")
    if VAGUE_NAMES.search(path):
        finding(path, 1, "a name that says nothing")
    if text and not text.endswith("\n"):
        finding(path, text.count("\n") + 1, "no newline at the end of the file")


def run(command, what):
    """Runs a checker; its output is the finding."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        text = (done.stdout + done.stderr).strip()
        findings.append(f"{what}:\n    " + "\n    ".join(text.splitlines()[:40]))


def compile_flags():
    packages = ["sqlite3", "raft", "libuv", "liblz4", "libxxhash"]
    out = subprocess.run(["pkg-config", "--cflags", *packages], capture_output=True, text=True,
                         check=True).stdout
    return ["-std=c11", "-D_GNU_SOURCE", "-I.", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
            *out.split()]


def is_script(path, interpreter):
    if path.endswith({"sh": ".sh", "python3": ".py"}[interpreter]):
        return True
    first = read(path)[:60].split("\n", 1)[0] if "." not in os.path.basename(path)[1:] else ""
    if interpreter == "sh":
        return bool(re.match(r"#!.*\b(ba)?sh\b", first))
    return first.startswith("#!") and interpreter in first


def main():
    os.chdir(ROOT)
    files = tracked()
    texts = {p: read(p) for p in files if not p.startswith("tests/fuzz/corpus/")}
    sources = [p for p in files if p.endswith((".c", ".h"))]
    for path, text in texts.items():
        if "\0" not in text:
            check_text(path, text)
    for path in sources:
        check_c(path, texts[path])
    if "README.md" in texts and texts["README.md"].count("\n") > README_LINES:
        finding("README.md", 1, f"over {README_LINES} lines")
    for path in sources:
        if path.endswith(".c") and path.split("/")[0] in DOORS and path != "node/main.c":
            if path[:-2] + ".h" not in texts and not has_door(path, texts):
                finding(path, 1, "has no header of its name, and no header of its room declares it")

    flags = compile_flags()
    headers = [p for p in sources if p.endswith(".h")]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for header in headers:
            pool.submit(run, ["cc", *flags, "-x", "c", "-fsyntax-only", header],
                        f"{header}: does not compile alone")
        if sources:
            pool.submit(run, ["clang-format", "--dry-run", "-Werror", *sources],
                        "clang-format (make format mends it)")
        shells = [p for p in files if is_script(p, "sh")]
        for script in shells:
            pool.submit(run, ["bash", "-n", script], f"{script}: not valid")
        if shells and shutil.which("shellcheck"):
            pool.submit(run, ["shellcheck", *shells], "shellcheck")
        for script in (p for p in files if is_script(p, "python3")):
            pool.submit(run, [sys.executable, "-c", "import ast,sys; ast.parse(open(sys.argv[1])"
                              ".read(), sys.argv[1])", script], f"{script}: not valid")

    for note in sorted(notes):
        print("note:", note)
    for text in sorted(findings):
        print(text)
    print(f"lint: {len(files)} files, {len(findings)} findings, {len(notes)} notes")
    return 1 if findings else 0


def has_door(path, texts):
    """A .c without a header of its own: database_open.c is a part of database.h's, a header of its
    room may name it, and the library's public calls are in lectern.h."""
    room, name = os.path.split(path)
    if room == "client" and f"lectern_{name[:-2]}(" in texts.get(PUBLIC, ""):
        return True
    words = name[:-2].split("_")
    if any(f"{room}/{'_'.join(words[:n])}.h" in texts for n in range(1, len(words))):
        return True
    return any(p.startswith(room + "/") and p.endswith(".h") and name in t
               for p, t in texts.items())


if __name__ == "__main__":
    sys.exit(main())
