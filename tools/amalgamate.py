# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes the static API as one header: amalgamate.py [OUTPUT], which is detent.hpp by default.

What stands in one header is what `#include <detent/detent.hpp>` gives, and it needs Eigen and xsimd as that does.
"""

import pathlib
import re
import sys

INCLUDE_DIR = pathlib.Path(__file__).resolve().parent.parent / "include"
LICENSE = "// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception\n"
OWN = re.compile(r'\s*#\s*include\s+"(detent/[^"]+)"')
OTHER = re.compile(r"\s*#\s*include\s+(<[^>]+>)")
OPENS = re.compile(r"\s*#\s*if")
CLOSES = re.compile(r"\s*#\s*endif")


class Amalgamation:
    def __init__(self):
        self.lines = []
        self.written = set()  # headers of ours, and others, that every program has from here on

    def add(self, name, is_certain=True):
        """Adds a header with what it includes. One that only some programs include may come again elsewhere, and has
        a guard for those who then have it twice."""
        if name in self.written:
            return
        if is_certain:
            self.written.add(name)
        guard = "DETENT_HAS_" + re.sub(r"\W", "_", name.removeprefix("detent/")).upper()
        self.lines += [f"#if !defined({guard}) // {name}\n", f"#define {guard}\n"]
        depth = 0
        for line in (INCLUDE_DIR / name).read_text().splitlines(keepends=True):
            depth += 1 if OPENS.match(line) else -1 if CLOSES.match(line) else 0
            own, other = OWN.match(line), OTHER.match(line)
            always = is_certain and depth == 0
            if own:
                self.add(own[1], always)
            elif other and other[1] in self.written:
                continue
            elif line != LICENSE and line.strip() != "#pragma once" and not line.startswith("// IWYU pragma"):
                self.lines.append(line)
                if other and always:
                    self.written.add(other[1])
        self.lines.append("#endif\n")

    def text(self):
        version = "".join(re.findall(r"#define DETENT_VERSION_\w+ (\d+)\n", "".join(self.lines)))
        first = f"// detent {'.'.join(version)}, all of its static API in one header. It needs Eigen and xsimd.\n"
        return re.sub(r"\n{3,}", "\n\n", LICENSE + first + "\n#pragma once\n\n" + "".join(self.lines))


def main():
    whole = Amalgamation()
    whole.add("detent/detent.hpp")
    pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "detent.hpp").write_text(whole.text())


if __name__ == "__main__":
    main()
