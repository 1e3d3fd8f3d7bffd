# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Feeds check_rooms.py small trees, each with one thing wrong."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
sys.dont_write_bytecode = True

import check_rooms  # noqa: E402 (found through the path above)

START = "// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception\n\n#pragma once\n\n"  # the body is at line 5


class Tree:
    """A directory with these files, for a while."""

    def __init__(self, files):
        self.directory = tempfile.TemporaryDirectory()
        self.root = Path(self.directory.name).resolve()
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def __enter__(self):
        return self.root

    def __exit__(self, *_):
        self.directory.cleanup()


def header(name, body):
    return {f"include/detent/{name}": START + body + "\n"}


class CheckRooms(unittest.TestCase):
    def accepts(self, files):
        with Tree(files) as root:
            self.assertEqual(check_rooms.Checker(root).check(), [])

    def rejects(self, files, message):
        with Tree(files) as root:
            self.assertEqual(check_rooms.Checker(root).check(), [message])

    def test_command_line(self):
        for body, status in (("", 0), ("#include <thread>", 1)):
            with Tree(header("io/a.hpp", body)) as root:
                command = [sys.executable, str(TOOLS / "check_rooms.py"), "--root", str(root)]
                done = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertEqual("include/detent/io/a.hpp:5: threads only in core" in done.stdout, status == 1)

    def test_good_tree(self):
        self.accepts({
            **header("core/eigen.hpp", "#include <Eigen/Core>"),
            **header("core/index.hpp", "#pragma omp parallel\n// std::fopen, _mm_add_ps: only in a comment"),
            **header("grid/int_grid.hpp", '#include "detent/core/index.hpp"\nchar const* const s = "xsimd::batch";'),
            **header("simd/dot.hpp", "#include <xsimd/xsimd.hpp>\n__m256i f();"),
            **header("io/file.hpp", "#include <fstream>"),
            **header("solver/rtn.hpp", '#include "detent/core/eigen.hpp"\nEigen::MatrixXf f();'),
            **header("detent.hpp", '#include "detent/solver/rtn.hpp"'),
        })

    def test_higher_rank(self):
        self.rejects(header("grid/a.hpp", '#include "detent/solver/rtn.hpp"'),
                     "include/detent/grid/a.hpp:5: grid (rank 1) may not include solver (rank 6)")

    def test_equal_rank(self):
        self.rejects(header("solver/a.hpp", '#include "detent/kernel/gemv.hpp"'),
                     "include/detent/solver/a.hpp:5: solver may not include kernel: there is a wall between them")
        self.rejects(header("evidence/a.hpp", '#include "detent/kernel/gemv.hpp"'),
                     "include/detent/evidence/a.hpp:5: evidence (rank 4) may not include kernel (rank 4)")

    def test_own_room(self):
        self.accepts(header("solver/a.hpp", '#include "detent/solver/b.hpp"'))

    def test_unknown_room(self):
        self.rejects(header("misc/a.hpp", ""), "include/detent/misc/a.hpp:1: no room is called misc")

    def test_umbrella(self):
        self.rejects(header("detent.hpp", '#include "detent/io/npy.hpp"'),
                     "include/detent/detent.hpp:5: io is not in the umbrella")
        self.rejects(header("io/a.hpp", '#include "detent/detent.hpp"'),
                     "include/detent/io/a.hpp:5: no header includes the umbrella")

    def test_eigen(self):
        self.rejects(header("pack/a.hpp", "void f(Eigen::MatrixXf);"), "include/detent/pack/a.hpp:5: no Eigen in pack")
        self.rejects(header("io/a.hpp", '#include "detent/core/eigen.hpp"'), "include/detent/io/a.hpp:5: no Eigen in io")
        self.rejects(header("nn/a.hpp", "#include <Eigen/Dense>"),
                     "include/detent/nn/a.hpp:5: Eigen comes in through detent/core/eigen.hpp")

    def test_eigen_through_another_header(self):
        self.rejects({
            **header("core/eigen.hpp", ""),
            **header("matrix/solution.hpp", '#include "detent/core/eigen.hpp"'),
            **header("matrix/view.hpp", '#include "detent/matrix/solution.hpp"'),
            **header("kernel/gemv.hpp", '\n#include "detent/matrix/view.hpp"'),
        }, "include/detent/kernel/gemv.hpp:6: no Eigen in kernel, but it comes through "
           "matrix/view.hpp > matrix/solution.hpp > core/eigen.hpp")

    def test_simd(self):
        for line in ("#include <immintrin.h>", "auto x = _mm256_setzero_ps();", "xsimd::batch<float> x;", "__m128i x;"):
            self.rejects(header("solver/a.hpp", line), "include/detent/solver/a.hpp:5: SIMD only in kernel, simd")

    def test_files(self):
        for line in ("#include <fstream>", "auto* f = std::fopen(p, m);", "mmap(0, n, p, f, d, 0);"):
            self.rejects(header("model/a.hpp", line), "include/detent/model/a.hpp:5: files only in io")

    def test_text(self):
        self.accepts(header("text/a.hpp", '#include "detent/io/json.hpp"\n#include <pcre2.h>\nint c = pcre2_match(0);'))
        self.rejects(header("text/a.hpp", '#include "detent/matrix/packed_view.hpp"'),
                     "include/detent/text/a.hpp:5: text may not include matrix: there is a wall between them")
        for line in ("#include <utf8proc.h>", "int n = pcre2_match(c);", "sentencepiece::SentencePieceProcessor p;"):
            self.rejects(header("model/a.hpp", line), "include/detent/model/a.hpp:5: libraries of tokenizers only in text")

    def test_threads(self):
        for line in ("std::thread t;", "#pragma omp parallel for", "int n = omp_get_max_threads();"):
            self.rejects(header("kernel/a.hpp", line), "include/detent/kernel/a.hpp:5: threads only in core")

    def test_flags(self):
        abi = header("core/abi.hpp", "#if defined(__AVX2__) || \\\n    defined(__BMI2__)\n#endif")
        for condition in ("#if defined(__BMI2__)", "#ifdef __AVX2__", "#ifndef DETENT_COMPILED",
                          "#define OWN 1\n#if OWN"):
            self.accepts({**abi, **header("simd/a.hpp", condition + "\n#endif")})
        for condition in ("#if defined(__AVX2__) || defined(__SSE3__)", "#ifdef __SSE3__", "#elif \\\n    __SSE3__"):
            self.rejects({**abi, **header("simd/a.hpp", condition)},
                         "include/detent/simd/a.hpp:5: __SSE3__ changes functions, so it belongs into the name in "
                         "core/abi.hpp")

    def test_licence_and_guard(self):
        self.rejects({"include/detent/core/a.hpp": "\n#pragma once\n"},
                     "include/detent/core/a.hpp:1: the file starts with "
                     "`SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception`")
        self.rejects({"include/detent/core/a.hpp": START.replace("#pragma once", "")},
                     "include/detent/core/a.hpp:1: a header says #pragma once")

    def test_include_style(self):
        self.rejects(header("core/a.hpp", "#include <detent/core/index.hpp>"),
                     'include/detent/core/a.hpp:5: include "detent/core/index.hpp" with quotes')
        self.rejects(header("core/a.hpp", '#include "index.hpp"'),
                     'include/detent/core/a.hpp:5: include "index.hpp" as detent/<room>/<x>.hpp, or with <>')


if __name__ == "__main__":
    unittest.main()
