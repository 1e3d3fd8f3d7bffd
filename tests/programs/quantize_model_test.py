# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs quantize_model as a person would: quantize_model_test.py PROGRAM EXAMPLES_DIRECTORY."""

import json
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

PROGRAM = pathlib.Path(sys.argv[1]).resolve()
EXAMPLES = pathlib.Path(sys.argv[2]).resolve()
FAMILIES = EXAMPLES.parent / "tests" / "families"
FEW = ["--window", "64", "--calibration-windows", "4", "--evaluation-windows", "8"]


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class QuantizeModel(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def run_program(self, *arguments):
        return subprocess.run([PROGRAM, *map(str, arguments)], cwd=self.directory, capture_output=True, text=True,
                              errors="replace", timeout=280)

    def copy_model(self, name="tiny-llama"):
        target = self.directory / "model"
        shutil.copytree(EXAMPLES / "models" / name, target)
        return target

    def fails(self, *arguments, says):
        """The program fails with one clear line and writes nothing."""
        before = sorted(p.relative_to(self.directory) for p in self.directory.rglob("*"))
        result = self.run_program(*arguments, "--output", self.directory / "out")
        self.assertNotEqual(result.returncode, 0, result.stdout)
        for part in says:
            self.assertIn(part, result.stderr)
        after = sorted(p.relative_to(self.directory) for p in self.directory.rglob("*"))
        self.assertEqual(before, after)

    def test_runs_every_solver(self):
        specs = ["int3:gptq", "int3:gptaq", "int3:qronos:act", "int3:obq"]
        result = self.run_program(*FEW, "--compare", *specs, "--output", self.directory / "out")
        self.assertEqual(result.returncode, 0, result.stderr)
        for spec in specs:
            self.assertRegex(result.stdout, rf"(?m)^{spec} .*")
        for part in ["products", "Hessians", "solving"]:
            self.assertIn(part, result.stdout)

    def test_learns_and_goes_on_from_what_was_learned(self):
        specs = ["int3:g64:lwc:epochs=2:gptq", "int4:a=int4:omniquant:epochs=2"]
        runs = [self.run_program(*FEW, "--compare", *specs, "--learned", "learned", "--output", out)
                for out in ["first", "second"]]
        for run in runs:
            self.assertEqual(run.returncode, 0, run.stderr)
        kept = self.directory / "learned" / "int4-a=int4-omniquant-epochs=2"
        self.assertEqual(sorted(p.name for p in kept.iterdir()), [f"block.{i}.safetensors" for i in range(4)])
        for spec in specs:
            first, second = (self.directory / out / spec.replace(":", "-") / "model.safetensors"
                             for out in ["first", "second"])
            self.assertEqual(first.read_bytes(), second.read_bytes())
        report = json.loads((self.directory / "first" / "report.json").read_text())
        for r in report["results"]:  # of the packed model that was saved
            self.assertLess(r["perplexity"], 3 * report["float_perplexity"])
        other = self.run_program(EXAMPLES / "models" / "tiny-opt", *FEW, "--compare", specs[0], "--learned", "learned")
        self.assertNotEqual(other.returncode, 0)
        self.assertIn("learned from another model", other.stderr)

    def test_weak_columns(self):
        specs = ["int3:owq=2", "int3:owq@3.3:qronos"]
        unsaved = self.run_program(*FEW, "--compare", *specs)
        self.assertEqual(unsaved.returncode, 0, unsaved.stderr)
        self.assertEqual(list(self.directory.iterdir()), [])
        saved = self.run_program(*FEW, "--compare", *specs, "--output", "out")
        self.assertEqual(saved.returncode, 0, saved.stderr)
        report = json.loads((self.directory / "out" / "report.json").read_text())
        self.assertEqual([r["spec"] for r in report["results"]], specs)
        for r in report["results"]:
            layers = r["layers"]
            sizes = [layer["out"] * layer["in"] for layer in layers]
            for layer in layers:
                self.assertEqual(layer["weak_missing"], 0)
                self.assertAlmostEqual(layer["effective_bits"], 3 + 13 * layer["weak_columns"] / layer["in"])
                # and the codes of weak columns, their places and scales
                self.assertGreater(layer["bits_per_weight"], 3 + 16 * layer["weak_columns"] / layer["in"])
            self.assertEqual(r["weak_columns"], sum(layer["weak_columns"] for layer in layers))
            self.assertAlmostEqual(r["effective_bits"],
                                   sum(n * layer["effective_bits"] for n, layer in zip(sizes, layers)) / sum(sizes))
            self.assertLess(r["perplexity"], 2 * report["float_perplexity"])
            for output in [unsaved.stdout, saved.stdout]:  # the model that was loaded is the one that was saved
                self.assertRegex(output, r"(?m)^weights .* weak columns +effective bits$")
                self.assertRegex(output, rf"(?m)^{r['spec']} +{r['perplexity']:.5f} .* "
                                         rf"{r['weak_columns']} +{r['effective_bits']:.3f}$")
        fixed, average = report["results"]
        self.assertEqual({layer["weak_columns"] for layer in fixed["layers"]}, {2})
        self.assertAlmostEqual(average["effective_bits"], 3.3, delta=0.06)  # whole, even numbers of columns
        out = self.directory / "out"
        self.assertEqual(sorted(p.name for p in out.iterdir()),
                         ["int3-owq=2", "int3-owq@3.3-qronos", "layer_errors.svg", "report.json"])
        text = self.run_program("generate", out / "int3-owq=2", "--tokens", 5)
        self.assertEqual(text.returncode, 0, text.stderr)

    def test_weak_columns_where_named(self):
        result = self.run_program(EXAMPLES / "models" / "tiny-opt", *FEW, "--spec", "int4:g64:owq=4:in=q+down",
                                  "--output", "out")
        self.assertEqual(result.returncode, 0, result.stderr)
        (quantized,) = json.loads((self.directory / "out" / "report.json").read_text())["results"]
        for layer in quantized["layers"]:
            weak = layer["name"].endswith(("q_proj", "fc2"))
            self.assertEqual(layer["weak_columns"], 4 if weak else 0, layer["name"])
        self.fails(EXAMPLES / "models" / "tiny-opt", *FEW, "--spec", "int4:owq=4:in=gate",
                   says=["specification", "'gate'"])

    def test_quantizes_saves_reports_and_generates(self):
        result = self.run_program(*FEW)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("GPTQ's v2 layout", result.stdout)
        out = self.directory / "tiny-llama-int4-g128-gptq"
        self.assertEqual(sorted(p.name for p in out.iterdir()),
                         ["config.json", "layer_errors.svg", "model.safetensors", "report.json"])
        report = json.loads((out / "report.json").read_text())
        (quantized,) = report["results"]
        self.assertLess(abs(quantized["perplexity"] / report["float_perplexity"] - 1), 0.1)
        self.assertAlmostEqual(quantized["bits_per_weight"], 4.15625)
        self.assertEqual(len(quantized["layers"]), 28)
        self.assertTrue(all(0 < layer["relative_error"] < 0.1 for layer in quantized["layers"]))
        xml.etree.ElementTree.parse(out / "layer_errors.svg")
        self.assertRegex(result.stdout, r"\nall, %( +\d+\.\d){7}\n")
        for kind, seconds in report["times"].items():
            self.assertEqual(seconds > 0, kind != "rounding")  # of activations: there is none
            self.assertAlmostEqual(seconds, report["float_times"][kind] + quantized["times"][kind])

        text = self.run_program("generate", out, "--prompt", "The ship", "--tokens", 20)
        self.assertEqual(text.returncode, 0, text.stderr)
        self.assertTrue(text.stdout.startswith("The ship"))
        self.assertEqual(len(text.stdout.encode(errors="replace")), 8 + 20 + 1)
        again = self.run_program("generate", out, "--prompt", "The ship", "--tokens", 20)
        self.assertEqual(text.stdout, again.stdout)

    def test_runs_every_family(self):
        tokens = FAMILIES / "tokens.u16"
        for fixture in sorted(FAMILIES.glob("*/reference.json")):
            reference = json.loads(fixture.read_text())
            if reference["kind"] != "decoder":
                continue
            with self.subTest(fixture.parent.name):
                out = self.directory / fixture.parent.name
                result = self.run_program(fixture.parent, "--calibration", tokens, "--evaluation", tokens, "--window",
                                          64, "--spec", "int4:g32:gptq", "--all-experts", "--output", out)
                self.assertEqual(result.returncode, 0, result.stderr)
                report = json.loads((out / "report.json").read_text())
                self.assertAlmostEqual(report["float_perplexity"] / reference["perplexity"], 1, delta=1e-4)
                (quantized,) = report["results"]
                self.assertEqual({layer["tokens"] for layer in quantized["layers"]}, {256})
                self.assertLess(quantized["bytes"], report["float_bytes"])
                text = self.run_program("generate", out, "--prompt-ids", "5,6", "--tokens", 4)
                self.assertEqual(text.returncode, 0, text.stderr)

    def test_says_how_many_tokens_experts_saw(self):
        few = [FAMILIES / "mixtral-bf16", "--calibration", FAMILIES / "tokens.u16", "--evaluation",
               FAMILIES / "tokens.u16", "--window", 64, "--calibration-windows", 1, "--spec", "int4:g32:rtn"]
        for flags in [[], ["--all-experts"]]:
            out = self.directory / ("all" if flags else "sent")
            result = self.run_program(*few, *flags, "--output", out)
            self.assertEqual(result.returncode, 0, result.stderr)
            (quantized,) = json.loads((out / "report.json").read_text())["results"]
            experts = [layer for layer in quantized["layers"] if ".experts." in layer["name"]]
            fewest = min(layer["tokens"] for layer in experts)
            self.assertEqual(fewest == 64, bool(flags))
            self.assertIn(f"saw {fewest} tokens, the fewest of all experts", result.stdout)
            self.assertEqual("(--all-experts shows" in result.stdout, not flags)
            for layer in experts:
                self.assertEqual(layer["few_tokens"], not flags and layer["tokens"] < layer["in"])

    def test_flags_and_specification_mean_the_same(self):
        flags = self.run_program(EXAMPLES / "models" / "tiny-opt", "--grid", "int3", "--group", "64", "--act-order",
                                 "--range", "mse", *FEW, "--output", "flags")
        spec = self.run_program(EXAMPLES / "models" / "tiny-opt", "--spec", "int3:g64:mse:gptq:act", *FEW, "--output",
                                "spec")
        self.assertEqual(flags.returncode, 0, flags.stderr)
        self.assertEqual(spec.returncode, 0, spec.stderr)
        self.assertEqual((self.directory / "flags" / "model.safetensors").read_bytes(),
                         (self.directory / "spec" / "model.safetensors").read_bytes())

    def test_compares_without_saving(self):
        result = self.run_program("--compare", "int4:rtn,e2m1:g32:gptq", "ternary:g8:gptq", *FEW)
        self.assertEqual(result.returncode, 0, result.stderr)
        for spec in ["float", "int4:rtn", "e2m1:g32:gptq", "ternary:g8:gptq"]:
            self.assertIn("\n" + spec + " ", "\n" + result.stdout)
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_caches_keys_and_values_as_codes(self):
        perplexities = {}
        for kv in ["float", "int8", "int4"]:
            result = self.run_program(*FEW, "--spec", "int8:rtn", "--kv", kv, "--output", kv)
            self.assertEqual(result.returncode, 0, result.stderr)
            perplexities[kv] = json.loads((self.directory / kv / "report.json").read_text())["float_perplexity"]
        self.assertNotEqual(perplexities["int8"], perplexities["float"])
        self.assertAlmostEqual(perplexities["int8"] / perplexities["float"], 1, delta=0.002)
        self.assertNotEqual(perplexities["int4"], perplexities["int8"])
        self.assertAlmostEqual(perplexities["int4"] / perplexities["float"], 1, delta=0.05)
        text = self.run_program("generate", self.directory / "int8", "--prompt", "The ship", "--tokens", 20,
                                "--kv", "int4")
        self.assertEqual(text.returncode, 0, text.stderr)
        self.assertTrue(text.stdout.startswith("The ship"))
        self.assertEqual(len(text.stdout.encode(errors="replace")), 8 + 20 + 1)
        self.fails(*FEW, "--kv", "int4:g", says=["cache format 'int4:g'"])

    def test_threads_do_not_change_a_bit(self):
        for threads in ("1", "2"):
            result = self.run_program(*FEW, "--threads", threads, "--output", threads)
            self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((self.directory / "1" / "model.safetensors").read_bytes(),
                         (self.directory / "2" / "model.safetensors").read_bytes())

    def test_interrupt_leaves_nothing(self):
        process = subprocess.Popen([PROGRAM, "--output", "out"], cwd=self.directory, stderr=subprocess.PIPE, text=True)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        self.assertIn("cancelled", errors)
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_lists_the_words_of_specifications(self):
        words = self.run_program("words")
        self.assertEqual(words.returncode, 0, words.stderr)
        self.assertRegex(words.stdout, r"(?m)^  int4 +integers")
        page = self.run_program("words", "--markdown")
        self.assertEqual(page.stdout, (EXAMPLES.parent / "docs" / "specification.md").read_text())
        self.assertIn("quantize_model words", self.run_program("--help").stdout)
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_wrong_specifications(self):
        for spec, part in [("int9", "int9"), ("int4:gptp", "gptp"), ("e2m1:minmax", "minmax"), ("nf4:sym", "nf4"),
                           ("int4:g0", "g0"), ("", "empty"), ("int4:damp=x", "damp=x"), ("int3:owq@2.5", "fewer bits"),
                           ("int3:owq=0", "owq=0"), ("int3:owq=2:in=fc1", "in=fc1"), ("int4:in=q", "needs owq")]:
            with self.subTest(spec):
                self.fails("--spec", spec, says=["specification", part])

    def test_truncated_file(self):
        model = self.copy_model()
        data = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(data[: len(data) // 2])
        self.fails(model, *FEW, says=["model.safetensors"])

    def test_header_that_lies(self):
        model = self.copy_model()
        header, data = read_safetensors(model / "model.safetensors")
        header["lm_head.weight"]["data_offsets"][1] += 2
        write_safetensors(model / "model.safetensors", header, data)
        self.fails(model, *FEW, says=["model.safetensors", "lm_head.weight"])

    def test_weight_that_is_not_a_number(self):
        model = self.copy_model()
        header, data = read_safetensors(model / "model.safetensors")
        name = "model.layers.1.mlp.up_proj.weight"
        begin = header[name]["data_offsets"][0]
        data[begin : begin + 2] = b"\x00\x7e"
        write_safetensors(model / "model.safetensors", header, data)
        self.fails(model, *FEW, says=[name, "NaN"])

    def test_shape_that_does_not_fit(self):
        model = self.copy_model()
        header, data = read_safetensors(model / "model.safetensors")
        name = "model.layers.2.self_attn.k_proj.weight"
        header[name]["shape"].reverse()
        write_safetensors(model / "model.safetensors", header, data)
        self.fails(model, *FEW, says=[name, "shape"])

    def test_missing_tensor_and_configuration(self):
        model = self.copy_model("tiny-opt")
        configuration = json.loads((model / "config.json").read_text())
        configuration["num_hidden_layers"] = 5
        (model / "config.json").write_text(json.dumps(configuration))
        self.fails(model, *FEW, says=["layers.4", "missing"])
        configuration["num_attention_heads"] = 7
        (model / "config.json").write_text(json.dumps(configuration))
        self.fails(model, *FEW, says=["config.json", "num_attention_heads"])

    def test_text_too_short(self):
        (self.directory / "short.txt").write_text("short")
        self.fails(*FEW, "--calibration", self.directory / "short.txt", says=["calibration text"])
        self.fails(*FEW, "--evaluation", self.directory / "short.txt", says=["evaluation text"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
