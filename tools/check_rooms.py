#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Checks that every line is in a room where it may be. Prints `file:line: rule`; the exit status is 1 if there is any.

check_rooms.py [--root DIR]    check the tree
check_rooms.py --table         print the rank table in markdown
"""

import argparse
import re
import sys
from pathlib import Path

# A header includes its own room and rooms of strictly lower rank.
RANKS = {
    "core": (0, "words for everyone: index, extents, contract, error, half, buffer, executor; the one door to Eigen"),
    "grid": (1, "which values exist"),
    "granularity": (1, "who shares a scale"),
    "simd": (1, "instructions that xsimd lacks"),
    "nn": (2, "dense products; float operations of transformer models"),
    "scale": (2, "how a tile's scale is chosen and stored"),
    "pack": (2, "how codes become bytes"),
    "matrix": (3, "the nouns: input map, solution, packed view, packed and quantized matrix"),
    "evidence": (4, "what is known about a layer's inputs"),
    "kernel": (4, "products with packed codes"),
    "io": (4, "files to nouns and back"),
    "text": (5, "tokenizers: text to token ids and back"),
    "transform": (5, "keeps the float function, changes the problem"),
    "solver": (6, "which code each weight gets"),
    "quantizer": (7, "grid, granularity, range, solver and activations composed; the run-time catalogue"),
    "model": (8, "transformer blocks, decoder, load, save"),
    "calibrate": (9, "runs data through a model and tunes it block by block"),
}

# What chooses codes knows nothing of products and files, whatever the ranks say.
WALLS = {room: {"kernel", "io"} for room in ("transform", "solver")}
# Tokenizers know nothing of models: they need files and errors.
WALLS["text"] = set(RANKS) - {"core", "io", "text"}

# Rooms that have no place in the umbrella header.
NOT_IN_UMBRELLA = {"io", "text", "model", "calibrate"}

# Rooms that say nothing about Eigen; the second set may not even get it from a header they include, because two
# translation units built for different instruction sets must not share Eigen's weak symbols.
NO_EIGEN = {"grid", "granularity", "pack", "simd", "kernel", "io", "text"}
NO_EIGEN_AT_ALL = NO_EIGEN - {"io"}
EIGEN_DOOR = "core/eigen.hpp"

# (what, pattern, rooms that may)
ONLY_IN = [
    ("SIMD", r"\b_mm\d*_\w+|\b__m(64|128|256|512)[di]?\b|\bxsimd::|<xsimd/|<\w+intrin\.h>|<arm_(neon|sve)\.h>",
     {"simd", "kernel"}),
    ("files", r"<fstream>|\b[io]?fstream\b|\bf(open|read|write|seek|tell|close)\b|\bFILE\b|\bm(un)?map\b|"
              r"<fcntl\.h>|<unistd\.h>", {"io"}),
    ("pages of memory", r"<sys/mman\.h>|\bmadvise\b", {"core", "io"}),
    ("threads", r"\bstd::j?thread\b|\bstd::async\b|<thread>|<future>|^\s*#\s*pragma\s+omp\b|_Pragma\(\"omp|"
                r"\bomp_\w+\(|<omp\.h>", {"core"}),
    ("libraries of tokenizers", r"<pcre2\.h>|<utf8proc\.h>|<sentencepiece_\w+\.h>|\b(pcre2|utf8proc)_\w+\(|"
                                r"\bsentencepiece::", {"text"}),
]

# The name of the inline namespace contains every macro that headers test, but for those that change no function which
# two units of a program may have under one name.
ABI = "core/abi.hpp"
SAME_IN_A_PROGRAM = {
    "DETENT_COMPILED",  # says only where functions are, the library's or the unit's
    "__linux__", "__unix__", "_WIN32", "__APPLE__", "__x86_64__", "__aarch64__",  # one of each in a program
    "__GNUC__", "__clang__", "XSIMD_VERSION_MAJOR", "EIGEN_VERSION_AT_LEAST",  # ways around what those do not have
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
CONDITION = re.compile(r"^[ \t]*#[ \t]*(?:el)?if(?:n?def)?\b((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
MACRO = re.compile(r"\b[A-Z_][A-Za-z0-9_]*\b")
COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"', re.DOTALL)
SPDX = "SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception"


def blank(match):
    """A comment vanishes and a string becomes "", but lines keep their numbers."""
    lines = "\n" * match[0].count("\n")
    return lines if match[0].startswith("/") else '""' + lines


def code_lines(text):
    """The lines of a source without comments and the insides of strings; preprocessor includes stay whole."""
    text = "\n".join(line.replace('"', "\0") if INCLUDE.match(line) else line for line in text.split("\n"))
    return COMMENT_OR_STRING.sub(blank, text).replace("\0", '"').split("\n")


class Checker:
    def __init__(self, root):
        self.root = root
        self.include = root / "include"
        self.problems = []
        self.includes = {}  # header, as included: [(line, header of ours it includes)]

    def report(self, path, line, rule):
        self.problems.append(f"{path.relative_to(self.root)}:{line}: {rule}")

    def check_spdx(self, path, text):
        lines = text.split("\n")
        if not any(SPDX in line for line in lines[: 2 if text.startswith("#!") else 1]):
            self.report(path, 1, f"the file starts with `{SPDX}`")

    def check_include_style(self, path, lines):
        for number, line in enumerate(lines, 1):
            if match := INCLUDE.match(line):
                ours = match[2].startswith("detent/")
                if ours and match[1] == "<":
                    self.report(path, number, f'include "{match[2]}" with quotes')
                elif not ours and match[1] == '"' and self.include in path.parents:
                    self.report(path, number, f"include \"{match[2]}\" as detent/<room>/<x>.hpp, or with <>")

    def check_header(self, path, text, lines):
        name = path.relative_to(self.include / "detent")
        room = name.parts[0] if len(name.parts) > 1 else None  # None: the umbrella
        if room is not None and room not in RANKS:
            self.report(path, 1, f"no room is called {room}")
            return
        if not re.search(r"^#pragma once$", text, re.MULTILINE):
            self.report(path, 1, "a header says #pragma once")
        included = []
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if match and match[2].startswith("detent/"):
                target = match[2].removeprefix("detent/")
                included.append((number, target))
                self.check_rank(path, number, room, target)
            if match and match[2].split("/")[0] in ("Eigen", "unsupported") and name.as_posix() != EIGEN_DOOR:
                self.report(path, number, f"Eigen comes in through detent/{EIGEN_DOOR}")
            elif room in NO_EIGEN and re.search(r"\bEigen\b", line):
                self.report(path, number, f"no Eigen in {room}")
            for what, pattern, allowed in ONLY_IN:
                if room not in allowed and re.search(pattern, line):
                    self.report(path, number, f"{what} only in {', '.join(sorted(allowed))}")
        self.includes[name.as_posix()] = included

    def check_rank(self, path, number, room, target):
        other = target.split("/")[0]
        if "/" not in target:
            self.report(path, number, "no header includes the umbrella")
        elif other not in RANKS:
            self.report(path, number, f"no room is called {other}")
        elif room is None:
            if other in NOT_IN_UMBRELLA:
                self.report(path, number, f"{other} is not in the umbrella")
        elif other in WALLS.get(room, ()):
            self.report(path, number, f"{room} may not include {other}: there is a wall between them")
        elif other != room and RANKS[other][0] >= RANKS[room][0]:
            self.report(path, number, f"{room} (rank {RANKS[room][0]}) may not include {other} (rank {RANKS[other][0]})")
        if target == EIGEN_DOOR and room in NO_EIGEN:
            self.report(path, number, f"no Eigen in {room}")

    def check_flags(self, path, text, in_name):
        """Flags that headers test are in the name of their namespace. A macro of the header's own stands for others."""
        own = set(re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", text, re.MULTILINE))
        for condition in CONDITION.finditer(text):
            line = text.count("\n", 0, condition.start()) + 1
            for macro in sorted(set(MACRO.findall(condition[1])) - in_name - own - SAME_IN_A_PROGRAM):
                self.report(path, line, f"{macro} changes functions, so it belongs into the name in {ABI}")

    def way_to_eigen(self, header, seen):
        """The headers through which this one includes Eigen, or None."""
        if header == EIGEN_DOOR:
            return [header]
        for _, target in self.includes.get(header, []):
            if target not in seen:
                seen.add(target)
                if way := self.way_to_eigen(target, seen):
                    return [header, *way]
        return None

    def check_way_to_eigen(self):
        for header, included in self.includes.items():
            room = header.split("/")[0]
            for number, target in included:
                if room in NO_EIGEN_AT_ALL and target.split("/")[0] not in NO_EIGEN_AT_ALL and target != EIGEN_DOOR:
                    if way := self.way_to_eigen(target, set()):
                        self.report(self.include / "detent" / header, number,
                                    f"no Eigen in {room}, but it comes through {' > '.join(way)}")

    def check(self):
        abi = self.include / "detent" / ABI
        in_name = set(MACRO.findall("\n".join(code_lines(abi.read_text(encoding="utf-8"))))) if abi.exists() else set()
        for path in sorted(self.include.rglob("*.[hi]pp")):
            text = path.read_text(encoding="utf-8")
            lines = code_lines(text)
            self.check_spdx(path, text)
            self.check_include_style(path, lines)
            self.check_header(path, text, lines)
            self.check_flags(path, "\n".join(lines), in_name)
        self.check_way_to_eigen()
        # The consumers stand for other projects, which include as they like.
        for folder in ("tests", "benchmarks", "examples", "src", "tools", "cmake"):
            for path in sorted((self.root / folder).rglob("*")):
                if path.suffix in (".cpp", ".hpp", ".py", ".sh", ".cmake") or path.name == "CMakeLists.txt":
                    text = path.read_text(encoding="utf-8")
                    self.check_spdx(path, text)
                    if path.suffix in (".cpp", ".hpp") and "consumers" not in path.parts and folder != "examples":
                        self.check_include_style(path, code_lines(text))
        return self.problems


def table():
    rows = ["| rank | room | what is in it |", "|---|---|---|"]
    rows += [f"| {rank} | `{room}` | {what} |" for room, (rank, what) in RANKS.items()]
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description="Checks the rooms of detent.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--table", action="store_true", help="print the rank table in markdown")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return 0
    problems = Checker(arguments.root.resolve()).check()
    print("\n".join(problems) if problems else "every line is in its room")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
