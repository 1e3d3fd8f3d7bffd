#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs of `detent quantize` that are killed and started again give the files of a run that was left alone.

stopped_runs_test.py PROGRAM EXAMPLES [KILLS]    KILLS: how often each run is killed, 4 if not said
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

PROGRAM, EXAMPLES, KILLS = None, None, 4
COMMON = ["--window", "32", "--calibration-windows", "2", "--threads", "1"]


class StoppedRuns(unittest.TestCase):
    def setUp(self):
        self.directory = Path(tempfile.mkdtemp())
        self.text = EXAMPLES / "text" / "novels_calibration.txt"

    def tearDown(self):
        shutil.rmtree(self.directory)

    def command(self, model, spec, *more, output="out"):
        return [PROGRAM, "quantize", model, "--text", self.text, "--spec", spec, "--output", output, *COMMON, *more]

    def run_program(self, *args, **named):
        return subprocess.run(self.command(*args, **named), cwd=self.directory, capture_output=True, text=True,
                              check=False)

    def start(self, *args):
        return subprocess.Popen(self.command(*args), cwd=self.directory, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    def bytes_of(self, output):
        return {f.name: f.read_bytes() for f in sorted((self.directory / output).iterdir()) if f.name[:5] != "layer"
                and f.name != "report.json"}

    def expect_the_same_after_kills(self, model, spec, *more):
        began = time.monotonic()
        alone = self.run_program(model, spec, output="alone")
        self.assertEqual(alone.returncode, 0, alone.stderr)
        seconds = time.monotonic() - began
        expected = self.bytes_of("alone")
        self.assertIn("model.safetensors", expected)
        generator = random.Random(spec)
        killed = 0
        while killed < KILLS:
            running = self.start(model, spec, *more)
            try:
                running.communicate(timeout=generator.uniform(0, seconds))
                self.assertEqual(running.returncode, 0)
                self.assertEqual(self.bytes_of("out"), expected)
            except subprocess.TimeoutExpired:
                running.kill()
                running.communicate()
                killed += 1
        last = self.run_program(model, spec, *more)
        self.assertEqual(last.returncode, 0, last.stderr)
        self.assertEqual(self.bytes_of("out"), expected)
        self.assertEqual(sorted(p.name for p in self.directory.iterdir()), ["alone", "out"])

    def test_any_moment(self):
        for model, spec, more in [("tiny-llama", "int4:rtn", []), ("tiny-llama", "int4:g64:gptq", []),
                                  ("tiny-opt", "int3:gptq:owq=2", ["--memory", "200M"]),
                                  ("tiny-llama", "int4:gptaq", []), ("tiny-opt", "int3:lwc:epochs=1", [])]:
            with self.subTest(model=model, spec=spec):
                self.tearDown()
                self.setUp()
                self.expect_the_same_after_kills(EXAMPLES / "models" / model, spec, *more)

    def stop_after_a_block(self, model, spec, *more, how=signal.SIGKILL, wait=True):
        """Stops a run when its journal speaks of a block."""
        running = self.start(model, spec, *more)
        journal = self.directory / "out.part" / "journal.json"
        while running.poll() is None:
            if journal.exists() and "block.0" in " ".join(os.listdir(journal.parent)) and \
                    "quantized.1" in journal.read_text():
                running.send_signal(how)
                break
            time.sleep(0.002)
        return running, running.communicate()[1] if wait else ""

    def test_goes_on_and_refuses_other_settings(self):
        source = self.directory / "source"
        shutil.copytree(EXAMPLES / "models" / "tiny-llama", source)
        running, _ = self.stop_after_a_block(source, "int4:gptq")
        self.assertEqual(running.returncode, -signal.SIGKILL)
        for change, message in [(lambda: self.run_program(source, "int3:gptq"), "another specification: 'int4:gptq'"),
                                (lambda: self.run_program(source, "int4:gptq", "--at-once"), "another --at-once: 'no'")]:
            result = change()
            self.assertEqual(result.returncode, 1)
            self.assertIn(message, result.stderr)
        went_on = self.run_program(source, "int4:gptq")
        self.assertEqual(went_on.returncode, 0, went_on.stderr)
        self.assertIn("goes on where a run that was stopped has ended, after ", went_on.stderr)
        self.stop_after_a_block(source, "int3:gptq")
        before = self.bytes_of("out")
        os.utime(source / "model.safetensors", (1, 1))
        result = self.run_program(source, "int3:gptq")
        self.assertEqual(result.returncode, 1)
        self.assertIn("another source file model.safetensors: ", result.stderr)
        self.assertEqual(self.bytes_of("out"), before)

    def test_signals_and_second_programs(self):
        model = EXAMPLES / "models" / "tiny-llama"
        running, messages = self.stop_after_a_block(model, "int4:gptq", how=signal.SIGTERM)
        self.assertEqual(running.returncode, 128 + signal.SIGTERM)
        self.assertIn("cancelled", messages)
        shutil.rmtree(self.directory / "out.part")
        first, _ = self.stop_after_a_block(model, "int4:gptq", how=signal.SIGSTOP, wait=False)
        second = self.run_program(model, "int4:gptq")
        first.send_signal(signal.SIGCONT)
        first.communicate()
        self.assertEqual(first.returncode, 0)
        self.assertEqual(second.returncode, 1)
        self.assertIn("another program is writing it", second.stderr)
        self.assertEqual(sorted(p.name for p in self.directory.iterdir()), ["out"])

    def test_budgets(self):
        model = EXAMPLES / "models" / "tiny-llama"
        for more, message in [(["--memory", "1M"], "the least is "),
                              (["--memory", "1G", "--layout", "gguf"], "--memory: GGUF is written from all blocks")]:
            result = self.run_program(model, "int4:g32", *more)
            self.assertEqual(result.returncode, 1)
            self.assertIn(message, result.stderr)
        self.assertEqual(list(self.directory.iterdir()), [])


if __name__ == "__main__":
    PROGRAM, EXAMPLES = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    KILLS = int(sys.argv[3]) if len(sys.argv) > 3 else KILLS
    unittest.main(argv=sys.argv[:1])
