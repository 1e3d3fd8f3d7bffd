#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Programs that must print the same: same_bits_test.py <program>..."""

import subprocess
import sys

outputs = {program: subprocess.run([program], capture_output=True, text=True, check=True).stdout
           for program in sys.argv[1:]}
assert len(outputs) > 1 and "gptq\ncodes " in outputs[sys.argv[1]], outputs
for program, output in outputs.items():
    assert output == outputs[sys.argv[1]], f"{program} prints\n{output}and {sys.argv[1]}\n{outputs[sys.argv[1]]}"
