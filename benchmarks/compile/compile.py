#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What programs cost to compile beside `Eigen/Core`: CPU seconds, memory and the size of the object file.

Every program is compiled in turns with `Eigen/Core`, so that the ratio does not depend on what else a machine does, and
once more as it is with detent::compiled and detent::kernels. Prints medians as a table in markdown.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
PROGRAMS = [HERE / "umbrella.cpp", HERE / "rounding.cpp", ROOT / "examples" / "first_steps.cpp", HERE / "three.cpp",
            HERE / "wrappers.cpp", HERE / "catalogue.cpp"]
WAYS = {"headers": [], "compiled": ["-DDETENT_COMPILED", "-DDETENT_KERNELS"]}


def compile_once(command, source, directory):
    """CPU seconds, megabytes at the peak and kilobytes of the object file."""
    target = Path(directory) / "program.o"
    process = subprocess.Popen([*command, "-c", str(source), "-o", str(target)])
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{source} does not compile")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, target.stat().st_size / 1024


def main():
    parser = argparse.ArgumentParser(description="Compares what programs cost to compile with Eigen/Core.")
    parser.add_argument("--compiler", default=os.environ.get("CXX", "c++"))
    parser.add_argument("--flags", default="-O2 -march=native", help="beside -std=c++20 (default: %(default)s)")
    parser.add_argument("--eigen", default="/usr/include/eigen3", help="directory of Eigen (default: %(default)s)")
    parser.add_argument("--times", type=int, default=3, help="how often each is compiled (default: %(default)s)")
    arguments = parser.parse_args()
    command = [arguments.compiler, "-std=c++20", *arguments.flags.split(), f"-I{ROOT / 'include'}", "-isystem",
               arguments.eigen]
    print(f"{arguments.compiler} -std=c++20 {arguments.flags}\n")
    print("| program | way | CPU s | times `Eigen/Core` | MB | object, KB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        eigen = Path(directory) / "eigen.cpp"
        eigen.write_text("#include <Eigen/Core>\n", encoding="utf-8")
        for program in PROGRAMS:
            for way, definitions in WAYS.items():
                pairs = [(compile_once(command, eigen, directory),
                          compile_once([*command, *definitions], program, directory)) for _ in range(arguments.times)]
                seconds, memory, size = (statistics.median(own[i] for _, own in pairs) for i in range(3))
                ratio = statistics.median(own[0] / base[0] for base, own in pairs)
                print(f"| {program.stem} | {way} | {seconds:.2f} | {ratio:.2f} | {memory:.0f} | {size:.0f} |",
                      flush=True)


if __name__ == "__main__":
    main()
