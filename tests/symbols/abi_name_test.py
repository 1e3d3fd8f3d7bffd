#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The name of the inline namespace is short and another one for each flag: abi_name_test.py <compiler> <include>..."""

import platform
import re
import subprocess
import sys

COMPILER, *INCLUDES = sys.argv[1:]

FLAGS = ["", "-DNDEBUG", "-fno-exceptions", "-D_OPENMP=201511", "-DDETENT_KERNELS", "-DEIGEN_USE_BLAS",
         "-DEIGEN_USE_LAPACKE", "-ffinite-math-only", "-DEIGEN_MAX_ALIGN_BYTES=128", "-DEIGEN_DONT_ALIGN", "-DDETENT_UNICODE",
         "-DDETENT_SENTENCEPIECE"]
if platform.machine() in ("x86_64", "AMD64"):
    FLAGS += ["-m" + part for part in ("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "bmi", "bmi2", "avx", "f16c", "fma",
                                       "avx2", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512vbmi",
                                       "avx512ifma", "avx512vnni", "avx512bf16", "avxvnni")]
# Other words for the same.
SAME = [("", "-DDETENT_COMPILED"), ("", "-DDETENT_CHECKS=1 -DNDEBUG"), ("-DNDEBUG", "-DDETENT_CHECKS=0"),
        ("", "-DEIGEN_MAX_ALIGN_BYTES=16")]


def name(flags, before=""):
    source = f'{before}\n#include "detent/core/abi.hpp"\nnamespace DETENT_ABI {{}}\n'
    command = [COMPILER, "-std=c++20", *("-I" + path for path in INCLUDES), *flags.split(), "-E", "-x", "c++", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return re.findall(r"^namespace (.*) \{\}", done.stdout, re.MULTILINE)[-1]


names = {}
for flags in FLAGS:
    found = name(flags)
    assert re.fullmatch(r"v\d+_\d+_[0-9a-f]{5}_[0-9a-f]{4}", found), found
    assert found not in names, f"{found} of both `{names[found]}` and `{flags}`"
    names[found] = flags
for one, other in SAME:
    assert name(one) == name(other), f"`{one}` is {name(one)}, `{other}` is {name(other)}"
# Eigen defines its alignment when it is included.
for flags in ["", "-DEIGEN_MAX_ALIGN_BYTES=128", "-DEIGEN_DONT_ALIGN", "-DEIGEN_DONT_VECTORIZE"] + (
        ["-mavx", "-mavx512f -mfma"] if "-mavx" in FLAGS else []):
    assert name(flags, "#include <Eigen/Core>") == name(flags), f"Eigen before detent changes the name for `{flags}`"
