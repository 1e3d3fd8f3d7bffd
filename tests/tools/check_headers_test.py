# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Feeds check_headers.py small trees, in which it must find what compiling each header alone finds.

check_headers_test.py [COMPILER]
"""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
sys.dont_write_bytecode = True

import check_headers  # noqa: E402 (found through the path above)

COMPILER = "c++"


class Chains(unittest.TestCase):
    def test_each_header_once_after_what_it_includes(self):
        headers = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c", "vector"], "e": ["d"], "f": []}
        chains = check_headers.chains_of(headers)
        self.assertEqual(sorted(name for chain in chains for name in chain), sorted(headers))
        self.assertEqual(len(chains), 3)  # b and c and f include none of each other
        inside = check_headers.closures(headers)
        self.assertEqual(inside["e"], {"a", "b", "c", "d"})
        for chain in chains:
            for earlier, later in zip(chain, chain[1:]):
                self.assertIn(earlier, inside[later])

    def test_chains_are_the_fewest(self):
        # The longest chain first would leave four.
        headers = {"a": [], "b": ["a"], "c": ["b", "x"], "d": ["c"], "x": ["a"], "y": ["b"]}
        self.assertEqual(len(check_headers.chains_of(headers)), 2)

    def test_headers_that_include_each_other_are_in_no_order(self):
        self.assertEqual(len(check_headers.chains_of({"a": ["b"], "b": ["a"]})), 2)

    def test_what_macros_decide_does_not_count(self):
        text = ('#include "a"\n#if X\n#include "b"\n#ifdef Y\n#include "c"\n#endif\n#endif\n'
                '# include "d" // why\n#include <e>\n')
        self.assertEqual(check_headers.included_by(text), ["a", "d"])


class Trees(unittest.TestCase):
    def check(self, files):
        """The exit status and the messages."""
        with tempfile.TemporaryDirectory() as directory:
            for name, text in files.items():
                path = Path(directory) / "include" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("#pragma once\n" + text, encoding="utf-8")
            stamp = Path(directory) / "stamp"
            command = [sys.executable, str(TOOLS / "check_headers.py"), "--root", directory, "--stamp", str(stamp),
                       "--", COMPILER, "-std=c++20"]
            done = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual(stamp.exists(), done.returncode == 0)
            return done.returncode, done.stdout + done.stderr

    def test_good_tree(self):
        status, messages = self.check({"d/a.hpp": "struct a {};", "d/b.hpp": '#include "d/a.hpp"\nstruct b { a x; };'})
        self.assertEqual((status, messages), (0, "2 headers in 1 translation units, 0 of which do not compile\n"))

    def test_a_header_that_its_users_help(self):
        # Every user of b includes a before it.
        for user in ('#include "d/a.hpp"\n#include "d/b.hpp"', '#if 1\n#include "d/a.hpp"\n#endif\n#include "d/b.hpp"'):
            status, messages = self.check({"d/a.hpp": "struct a {};", "d/b.hpp": "struct b { a x; };", "d/c.hpp": user})
            self.assertEqual(status, 1)
            self.assertRegex(messages, r"d/b\.hpp.*does not compile alone")
            self.assertRegex(messages, r"error: .*\ba\b")

    def test_a_header_in_the_middle_of_a_chain(self):
        status, messages = self.check({"d/a.hpp": "struct a {};", "d/b.hpp": '#include "d/a.hpp"\nstruct b { x y; };',
                                       "d/c.hpp": '#include "d/b.hpp"'})
        self.assertEqual(status, 1)
        self.assertIn("d/a.hpp, d/b.hpp, d/c.hpp", messages)

    def test_what_is_precompiled_helps_no_header_without_it(self):
        slow = {check_headers.SLOW: "#include <vector>"}
        user = f'#include "{check_headers.SLOW}"\n'
        good = {"d/a.hpp": "struct a {};", "d/b.hpp": f'{user}#include "d/a.hpp"\nstd::vector<a> x();'}
        self.assertEqual(self.check(slow | good)[0], 0)
        bad = {"d/a.hpp": "std::vector<int> y();", "d/b.hpp": f'{user}#include "d/a.hpp"'}
        status, messages = self.check(slow | bad)
        self.assertEqual(status, 1)
        self.assertRegex(messages, r"One of d/a\.hpp does not compile alone")

    def test_an_empty_tree_is_a_mistake(self):
        self.assertNotEqual(self.check({})[0], 0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        COMPILER = sys.argv.pop(1)
    unittest.main()
