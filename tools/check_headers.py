#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Checks that every header compiles alone, in a third of the time of one compilation for each.

check_headers.py [--root DIR] [--jobs N] [--stamp FILE] -- COMPILER FLAG...

A header that compiles alone may be compiled after headers which it includes itself: they are there in both cases. So
one translation unit includes a chain of headers of which each includes the one before it, and the first error of a
chain is that of a header which does not compile alone. Only what is included whatever macros say counts. The chains
are a minimum path cover, which bipartite matching finds. From the header on that includes Eigen, which takes longest, a
chain finds it precompiled.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SLOW = "detent/core/eigen.hpp"
DIRECTIVE = re.compile(r'^\s*#\s*(if|endif|include)\w*\s*(?:"([^"]+)")?')


def included_by(text):
    """The headers that a header includes with quotes, outside of any #if."""
    names, depth = [], 0
    for directive, name in (match.groups() for match in map(DIRECTIVE.match, text.split("\n")) if match):
        if directive == "include":
            names += [name] if name and depth == 0 else []
        else:
            depth += 1 if directive == "if" else -1
    return names


def closures(headers):
    """All headers that each header includes, itself left out; `headers` are {name: names it includes}."""
    found = {}

    def visit(name):
        if name not in found:
            found[name] = set()  # there while headers that include each other are visited
            for included in headers[name]:
                if included in headers and included != name:
                    found[name] |= {included} | visit(included)
        return found[name]

    for name in headers:
        visit(name)
    return {name: inside - {name} for name, inside in found.items()}


def chains_of(headers):
    """The fewest chains that hold each header once and of which each header includes the ones before it."""
    inside = closures(headers)
    followers = {name: [] for name in headers}
    for name in sorted(headers, key=lambda n: (len(inside[n]), n)):
        for included in inside[name]:
            if name not in inside[included]:  # headers that include each other are in no order
                followers[included].append(name)
    before = {}

    def match(name, tried):
        for follower in followers[name]:
            if follower not in tried:
                tried.add(follower)
                if follower not in before or match(before[follower], tried):
                    before[follower] = name
                    return True
        return False

    for name in sorted(headers, key=lambda n: (-len(inside[n]), n)):
        match(name, set())
    after = {earlier: later for later, earlier in before.items()}
    chains = []
    for first in sorted(headers.keys() - before.keys()):
        chain = [first]
        while chain[-1] in after:
            chain.append(after[chain[-1]])
        chains.append(chain)
    return chains


def split(chain, inside):
    """The headers of a chain up to the first that includes SLOW, and the others."""
    slow = [name == SLOW or SLOW in inside[name] for name in chain] + [True]
    return chain[:slow.index(True)], chain[slow.index(True):]


def precompile(command, include, directory):
    """Flags with which the compiler finds SLOW precompiled."""
    header = Path(directory) / "slow.hpp"
    header.write_text(f'#include "{SLOW}"\n')
    subprocess.run([*command, f"-I{include}", "-xc++-header", str(header), "-o", f"{header}.gch"], check=True)
    return ["-include", str(header)]


def compile_chain(command, include, chain):
    """The compiler's messages, empty if all is well."""
    source = "".join(f'#include "{header}"\n' for header in chain)
    run = subprocess.run([*command, f"-I{include}", "-fsyntax-only", "-xc++", "-"], input=source, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return "" if run.returncode == 0 else run.stdout or f"the compiler failed with {run.returncode}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--stamp", type=Path, help="a file to touch if all headers compile")
    parser.add_argument("command", nargs="+", help="the compiler and its flags, after --")
    arguments = parser.parse_args()

    include = arguments.root / "include"
    headers = {path.relative_to(include).as_posix(): included_by(path.read_text())
               for path in include.rglob("*.hpp")}
    if not headers:
        parser.error(f"no headers in {include}")
    inside = closures(headers)
    parts = [split(chain, inside) for chain in chains_of(headers)]
    chains = [fast for fast, _ in parts if fast] + [slow for _, slow in parts if slow]
    with ThreadPoolExecutor(arguments.jobs) as pool, tempfile.TemporaryDirectory() as directory:
        precompiled = precompile(arguments.command, include, directory) if SLOW in headers else []

        def messages_of(chain):
            flags = precompiled if split(chain, inside)[1] else []
            return compile_chain([*arguments.command, *flags], include, chain)

        messages = list(pool.map(messages_of, chains))
    failed = [(chain, message) for chain, message in zip(chains, messages) if message]
    for chain, message in failed:
        print(f"One of {', '.join(chain)} does not compile alone:\n{message}", file=sys.stderr)
    if not failed and arguments.stamp:
        arguments.stamp.touch()
    print(f"{len(headers)} headers in {len(chains)} translation units, {len(failed)} of which do not compile")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
