# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs the program detent as a person would: detent_test.py PROGRAM EXAMPLES_DIRECTORY."""

import json
import pathlib
import re
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
LLAMA = EXAMPLES / "models" / "tiny-llama"
OPT = EXAMPLES / "models" / "tiny-opt"
CALIBRATION = ["--text", EXAMPLES / "text" / "novels_calibration.txt"]
TEXTS = [*CALIBRATION, "--evaluation", EXAMPLES / "text" / "novels_evaluation.txt"]
FEW = [*TEXTS, "--window", "64", "--calibration-windows", "4", "--evaluation-windows", "8"]
SMALL = FAMILIES / "llama-sharded-bf16"  # of random weights: for what does not depend on how good a model is
SMALL_TEXTS = ["--text", FAMILIES / "tokens.u16", "--evaluation", FAMILIES / "tokens.u16", "--window", "64"]


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class Program(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def run_program(self, *arguments):
        return subprocess.run([PROGRAM, *map(str, arguments)], cwd=self.directory, capture_output=True, text=True,
                              errors="replace", timeout=280)

    def quantize(self, *arguments, model=LLAMA):
        return self.run_program("quantize", model, *arguments)

    def copy_model(self, name="tiny-llama"):
        target = self.directory / "model"
        shutil.copytree(EXAMPLES / "models" / name, target)
        return target

    def fails(self, *arguments, says):
        """The program fails with one clear line and writes nothing."""
        before = sorted(p.relative_to(self.directory) for p in self.directory.rglob("*"))
        result = self.run_program(*arguments)
        self.assertNotEqual(result.returncode, 0, result.stdout)
        for part in says:
            self.assertIn(part, result.stderr)
        self.assertNotIn("saved", result.stdout)
        after = sorted(p.relative_to(self.directory) for p in self.directory.rglob("*"))
        self.assertEqual(before, after)

    def quantize_fails(self, *arguments, says, model=LLAMA):
        self.fails("quantize", model, *arguments, "--output", self.directory / "out", says=says)

    def test_runs_every_solver(self):
        specs = ["int3:gptq", "int3:gptaq", "int3:qronos:act", "int3:obq"]
        result = self.quantize(*SMALL_TEXTS, "--compare", *specs, "--output", self.directory / "out", model=SMALL)
        self.assertEqual(result.returncode, 0, result.stderr)
        for spec in specs:
            self.assertRegex(result.stdout, rf"(?m)^{spec} .*")
        for part in ["products", "Hessians", "solving"]:
            self.assertIn(part, result.stdout)

    def test_each_specification_collects_what_it_needs_itself(self):
        """What one needs of the float model costs the others no time."""
        result = self.quantize(*SMALL_TEXTS, "--compare", "int3:qronos", "int4:rtn", "--output", "out", model=SMALL)
        self.assertEqual(result.returncode, 0, result.stderr)
        qronos, rtn = json.loads((self.directory / "out" / "report.json").read_text())["results"]
        self.assertTrue(all(layer["relative_float_error"] > 0 for layer in qronos["layers"]))
        self.assertTrue(all(layer["relative_float_error"] == 0 for layer in rtn["layers"]))

    def test_learns_and_goes_on_from_what_was_learned(self):
        specs = ["int3:g64:lwc:epochs=2:gptq", "int4:a=int4:omniquant:epochs=2"]
        runs = [self.quantize(*FEW, "--compare", *specs, "--learned", "learned", "--output", out)
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
        other = self.quantize(*FEW, "--compare", specs[0], "--learned", "learned", model=OPT)
        self.assertNotEqual(other.returncode, 0)
        self.assertIn("learned from another model", other.stderr)

    def test_weak_columns(self):
        specs = ["int3:owq=2", "int3:owq@3.3"]
        saved = self.quantize(*FEW, "--compare", *specs, "--output", "out")
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
            # The model that was loaded is the one that was saved.
            self.assertRegex(saved.stdout, r"(?m)^weights .* weak columns +effective bits$")
            self.assertRegex(saved.stdout, rf"(?m)^{r['spec']} +{r['perplexity']:.5f} .* "
                                           rf"{r['weak_columns']} +{r['effective_bits']:.3f}$")
        fixed, average = report["results"]
        self.assertEqual({layer["weak_columns"] for layer in fixed["layers"]}, {2})
        self.assertAlmostEqual(average["effective_bits"], 3.3, delta=0.06)  # whole, even numbers of columns
        out = self.directory / "out"
        self.assertEqual(sorted(p.name for p in out.iterdir()),
                         ["int3-owq=2", "int3-owq@3.3", "layer_errors.svg", "report.json"])
        text = self.run_program("generate", out / "int3-owq=2", "--prompt", "A", "--tokens", 5)
        self.assertEqual(text.returncode, 0, text.stderr)

    def test_weak_columns_where_named(self):
        result = self.quantize(*FEW, "--spec", "int4:g64:owq=4:in=q+down", "--output", "out", model=OPT)
        self.assertEqual(result.returncode, 0, result.stderr)
        (quantized,) = json.loads((self.directory / "out" / "report.json").read_text())["results"]
        for layer in quantized["layers"]:
            weak = layer["name"].endswith(("q_proj", "fc2"))
            self.assertEqual(layer["weak_columns"], 4 if weak else 0, layer["name"])
        self.quantize_fails(*FEW, "--spec", "int4:owq=4:in=gate", says=["specification", "'gate'"], model=OPT)

    def test_quantizes_saves_reports_and_generates(self):
        result = self.quantize(*FEW)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("GPTQ's layout", result.stdout)
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
                result = self.quantize("--calibration", tokens, "--evaluation", tokens, "--window",
                                          64, "--spec", "int4:g32:gptq", "--all-experts", "--output", out,
                                       model=fixture.parent)
                self.assertEqual(result.returncode, 0, result.stderr)
                report = json.loads((out / "report.json").read_text())
                self.assertAlmostEqual(report["float_perplexity"] / reference["perplexity"], 1, delta=1e-4)
                (quantized,) = report["results"]
                self.assertEqual({layer["tokens"] for layer in quantized["layers"]}, {256})
                self.assertLess(quantized["bytes"], report["float_bytes"])
                text = self.run_program("generate", out, "--prompt-ids", "5,6", "--tokens", 4)
                self.assertEqual(text.returncode, 0, text.stderr)

    def test_says_how_many_tokens_experts_saw(self):
        few = ["--calibration", FAMILIES / "tokens.u16", "--evaluation",
               FAMILIES / "tokens.u16", "--window", 64, "--calibration-windows", 1, "--spec", "int4:g32:rtn"]
        for flags in [[], ["--all-experts"]]:
            out = self.directory / ("all" if flags else "sent")
            result = self.quantize(*few, *flags, "--output", out, model=FAMILIES / "mixtral-bf16")
            self.assertEqual(result.returncode, 0, result.stderr)
            (quantized,) = json.loads((out / "report.json").read_text())["results"]
            experts = [layer for layer in quantized["layers"] if ".experts." in layer["name"]]
            fewest = min(layer["tokens"] for layer in experts)
            self.assertEqual(fewest == 64, bool(flags))
            self.assertIn(f"saw {fewest} tokens, the fewest of all experts", result.stdout)
            self.assertEqual("(--all-experts shows" in result.stdout, not flags)
            for layer in experts:
                self.assertEqual(layer["few_tokens"], not flags and layer["tokens"] < layer["in"])

    def test_compares_without_saving(self):
        result = self.quantize("--compare", "int4:rtn,e2m1:g32:gptq", "ternary:g8:gptq", *FEW)
        self.assertEqual(result.returncode, 0, result.stderr)
        for spec in ["float", "int4:rtn", "e2m1:g32:gptq", "ternary:g8:gptq"]:
            self.assertIn("\n" + spec + " ", "\n" + result.stdout)
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_caches_keys_and_values_as_codes(self):
        perplexities = {}
        for kv in ["float", "int8", "int4"]:
            result = self.quantize(*FEW, "--spec", "int8:rtn", "--kv", kv, "--output", kv)
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
        self.quantize_fails(*FEW, "--kv", "int4:g", says=["cache format 'int4:g'"])

    def test_threads_do_not_change_a_bit(self):
        for threads in ("1", "2"):
            result = self.quantize(*FEW, "--threads", threads, "--output", threads)
            self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((self.directory / "1" / "model.safetensors").read_bytes(),
                         (self.directory / "2" / "model.safetensors").read_bytes())

    def test_signals_leave_nothing_half_done(self):
        for ending in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]:
            process = subprocess.Popen([PROGRAM, "quantize", LLAMA, *TEXTS, "--output", "out"], cwd=self.directory,
                                       stderr=subprocess.PIPE, text=True)
            time.sleep(2)
            process.send_signal(ending)
            _, errors = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 128 + ending, errors)
            self.assertIn("cancelled", errors)
            # Blocks that were done are kept for the next run, which is tested in stopped_runs_test.py.
            self.assertLessEqual({p.name for p in self.directory.iterdir()}, {"out.part"})
            shutil.rmtree(self.directory / "out.part", ignore_errors=True)

    def test_lists_the_words_of_specifications(self):
        words = self.run_program("words")
        self.assertEqual(words.returncode, 0, words.stderr)
        self.assertRegex(words.stdout, r"(?m)^  int4 +integers")
        page = self.run_program("words", "--markdown")
        self.assertEqual(page.stdout, (EXAMPLES.parent / "docs" / "specification.md").read_text())
        self.assertIn("detent words", self.run_program("--help").stdout)
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_wrong_specifications(self):
        for spec, part in [("int9", "int9"), ("int4:gptp", "gptp"), ("e2m1:minmax", "minmax"), ("nf4:sym", "nf4"),
                           ("int4:g0", "g0"), ("", "empty"), ("int4:damp=x", "damp=x"), ("int3:owq@2.5", "fewer bits"),
                           ("int3:owq=0", "owq=0"), ("int3:owq=2:in=fc1", "in=fc1"), ("int4:in=q", "needs owq")]:
            with self.subTest(spec):
                self.quantize_fails(*FEW, "--spec", spec, says=["specification", part])

    def test_truncated_file(self):
        model = self.copy_model()
        data = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(data[: len(data) // 2])
        self.quantize_fails(*FEW, model=model, says=["model.safetensors"])

    def test_header_that_lies(self):
        model = self.copy_model()
        header, data = read_safetensors(model / "model.safetensors")
        header["lm_head.weight"]["data_offsets"][1] += 2
        write_safetensors(model / "model.safetensors", header, data)
        self.quantize_fails(*FEW, model=model, says=["model.safetensors", "lm_head.weight"])

    def test_weight_that_is_not_a_number(self):
        model = self.copy_model()
        header, data = read_safetensors(model / "model.safetensors")
        name = "model.layers.1.mlp.up_proj.weight"
        begin = header[name]["data_offsets"][0]
        data[begin : begin + 2] = b"\x00\x7e"
        write_safetensors(model / "model.safetensors", header, data)
        self.quantize_fails(*FEW, model=model, says=[name, "NaN"])

    def test_shape_that_does_not_fit(self):
        model = self.copy_model()
        header, data = read_safetensors(model / "model.safetensors")
        name = "model.layers.2.self_attn.k_proj.weight"
        header[name]["shape"].reverse()
        write_safetensors(model / "model.safetensors", header, data)
        self.quantize_fails(*FEW, model=model, says=[name, "shape"])

    def test_missing_tensor_and_configuration(self):
        model = self.copy_model("tiny-opt")
        configuration = json.loads((model / "config.json").read_text())
        configuration["num_hidden_layers"] = 5
        (model / "config.json").write_text(json.dumps(configuration))
        self.quantize_fails(*FEW, model=model, says=["layers.4", "missing"])
        configuration["num_attention_heads"] = 7
        (model / "config.json").write_text(json.dumps(configuration))
        self.quantize_fails(*FEW, model=model, says=["config.json", "num_attention_heads"])

    def test_text_too_short(self):
        (self.directory / "short.txt").write_text("short")
        short = ["--window", "64", "--text", self.directory / "short.txt"]
        self.quantize_fails(*short, says=["calibration text"])
        self.quantize_fails(*CALIBRATION, "--window", "64", "--evaluation", self.directory / "short.txt",
                            says=["evaluation text"])

    def test_judges_before_any_work(self):
        """What cannot be saved is told before the model is even evaluated."""
        out = self.directory / "out"
        few = ["quantize", LLAMA, *FEW]
        self.fails(*few, "--spec", "int5:rtn", "--layout", "gptq", "--output", out, says=["GPTQ's layout", "not 5"])
        self.fails(*few, "--spec", "e2m1:g32", "--for", "transformers", "--layout", "gptq", says=["--for"])
        self.fails(*few, "--compare", "int4:rtn", "int4:owq=2", "--layout", "gptq", "--output", out,
                   says=["no weak columns"])
        (self.directory / "file").write_text("")
        self.fails(*few, "--output", self.directory / "file", says=["--output", "is a file"])
        model = self.copy_model()
        self.fails("quantize", model, *FEW, "--output", model, says=["--output", "where the model comes from"])
        self.fails(*few, "--compare", "int4:rtn", "--grid", "int3", says=["--grid"])

    def test_saves_no_perplexity_where_there_is_no_text(self):
        result = self.quantize(*SMALL_TEXTS[:2], "--window", 64, "--calibration-windows", 10000, "--spec", "int4:rtn",
                               "--output", "out", model=SMALL)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stderr, r"note: the calibration text has \d+ windows of 64 tokens, not 10000")
        report = json.loads((self.directory / "out" / "report.json").read_text())
        self.assertIsNone(report["float_perplexity"])
        self.assertIsNone(report["results"][0]["perplexity"])

    def test_says_when_tokens_are_few(self):
        result = self.quantize(*FEW, "--spec", "int4:gptq", "--output", "out")
        self.assertIn("256 calibration tokens are fewer than the 768 inputs of 'model.layers.0.mlp.down_proj'",
                      result.stderr)

    def test_evaluates(self):
        text = EXAMPLES / "text" / "novels_evaluation.txt"
        result = self.run_program("evaluate", LLAMA, OPT, "--text", text, "--window", 64, "--windows", 8)
        self.assertEqual(result.returncode, 0, result.stderr)
        quantized = self.quantize(*FEW, "--spec", "int8:rtn", "--output", "out")
        report = json.loads((self.directory / "out" / "report.json").read_text())
        self.assertRegex(result.stdout, rf"tiny-llama +{report['float_perplexity']:.5f} +504 +float ")
        again = self.run_program("evaluate", "out", "--text", text, "--window", 64, "--windows", 8)
        self.assertRegex(again.stdout, rf"(?m)^out +{report['results'][0]['perplexity']:.5f} .* 8\.")
        (self.directory / "short.txt").write_bytes(text.read_bytes()[:2000])
        few = self.run_program("evaluate", LLAMA, "--text", "short.txt", "--windows", 100000)
        self.assertIn("the evaluation text has 3 windows of 512 tokens, not 100000", few.stderr)

    def test_texts_of_several_kinds(self):
        text = (EXAMPLES / "text" / "novels_evaluation.txt").read_bytes()[:4096]
        (self.directory / "a.txt").write_bytes(text)
        (self.directory / "b.txt").write_bytes(text[:1000])
        half = text[1000:].decode()
        (self.directory / "c.jsonl").write_text(json.dumps({"text": half[:50]}) + "\n\n" + json.dumps(
            {"text": half[50:]}) + "\n")
        (self.directory / "d.u16").write_bytes(b"".join(struct.pack("<H", byte) for byte in text))
        rows = set()
        for files in [["a.txt"], ["b.txt", "c.jsonl"], ["d.u16"]]:
            result = self.run_program("evaluate", LLAMA, "--text", *files, "--window", 64)
            self.assertEqual(result.returncode, 0, result.stderr)
            rows.add(result.stdout.split("tiny-llama")[1].split()[0])
        self.assertEqual(len(rows), 1)
        (self.directory / "e.u16").write_bytes(struct.pack("<HH", 5, 256))
        self.fails("evaluate", LLAMA, "--text", "a.txt", "e.u16", says=["e.u16", "token 1 is 256"])

    def test_text_needs_a_tokenizer(self):
        text = EXAMPLES / "text" / "novels_evaluation.txt"
        model = self.copy_model()  # with 300 tokens, which are not bytes
        header, data = read_safetensors(model / "model.safetensors")
        larger = bytearray()
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            begin, end = tensor["data_offsets"]
            more = 300 - 256 if name in ["lm_head.weight", "model.embed_tokens.weight"] else 0
            tensor["shape"][0] += more
            tensor["data_offsets"] = [len(larger), len(larger) + end - begin + 2 * 256 * more]
            larger += data[begin:end] + bytes(2 * 256 * more)
        write_safetensors(model / "model.safetensors", header, larger)
        configuration = json.loads((model / "config.json").read_text())
        configuration["vocab_size"] = 300
        (model / "config.json").write_text(json.dumps(configuration))
        for arguments in [["evaluate", model, "--text", text], ["quantize", model, "--text", text]]:
            self.fails(*arguments, says=["novels_evaluation.txt", "no tokenizer"])
        self.fails("generate", model, "--prompt", "a", says=["prompt", "no tokenizer"])

    def test_generates(self):
        result = self.run_program("generate", LLAMA, "--prompt", "", "--tokens", 5)
        self.assertEqual(result.returncode, 0, result.stderr)  # from the token that begins a text
        model = self.copy_model()
        configuration = json.loads((model / "config.json").read_text())
        del configuration["bos_token_id"]
        configuration["eos_token_id"] = -1
        (model / "config.json").write_text(json.dumps(configuration))
        self.fails("generate", model, "--prompt", "", says=["prompt", "no token that begins a text"])
        self.fails("generate", model, "--prompt-ids", "3,256", says=["--prompt-ids", "token 1 is 256"])
        self.fails("generate", model, says=["--prompt"])
        result = self.run_program("generate", model, "--prompt", "The ship", "--tokens", 5)
        self.assertEqual(result.returncode, 0, result.stderr)
        result = self.quantize(*FEW, "--spec", "int4:rtn", "--output", "out", model=model)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_plans_without_weights(self):
        (self.directory / "config.json").write_text(json.dumps(
            {"model_type": "llama", "vocab_size": 128256, "hidden_size": 8192, "num_hidden_layers": 80,
             "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672,
             "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16"}))
        start = time.time()
        result = self.run_program("plan", "config.json", "--spec", "int4:g128:gptq,int3:owq=2")
        self.assertLess(time.time() - start, 5)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("70553.7 million weights", result.stdout)
        self.assertRegex(result.stdout, r"(?m)^float +16 +141\.11 GB$")
        self.assertRegex(result.stdout, r"(?m)^int4:g128:gptq +4\.156 +39\.77 GB$")
        self.assertRegex(result.stdout, r"int3:owq=2 +gptq +no +.*no weak columns")
        self.assertIn(" of memory, ", result.stdout)
        self.fails("plan", "config.json", "--spec", "int9", says=["int9"])

    def test_plan_is_what_becomes_of_it(self):
        result = self.run_program("plan", LLAMA, "--spec", "int3:g64:sym,int3:owq=2")
        self.assertEqual(result.returncode, 0, result.stderr)
        made = self.quantize(*FEW, "--compare", "int3:g64:sym,int3:owq=2")
        for spec in ["int3:g64:sym", "int3:owq=2"]:
            _, bits, size = re.search(rf"(?m)^({spec}) +(\S+) +(\S+) MB$", result.stdout).groups()
            self.assertRegex(made.stdout, rf"(?m)^{spec} +\S+ +{bits} +{size} ")

    def test_inspects(self):
        result = self.run_program("inspect", LLAMA)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"(?m)^model.layers.\*.mlp.down_proj.weight +F16 +256 x 768 +4 ")
        self.assertIn("16.000 bits per weight", result.stdout)
        self.quantize(*FEW, "--spec", "int4:g128:rtn", "--output", "out")
        for path in ["out", "out/model.safetensors"]:
            result = self.run_program("inspect", path)
            self.assertRegex(result.stdout, r"(?m)^model.layers.\*.mlp.down_proj.qweight +I32 +96 x 256 +4 ")
        self.fails("inspect", EXAMPLES / "text" / "novels_evaluation.txt", says=["novels_evaluation.txt"])

    def test_converts_code_for_code(self):
        self.quantize(*FEW, "--spec", "int4:g32:gptq", "--output", "gptq")
        report = json.loads((self.directory / "gptq" / "report.json").read_text())
        perplexity = report["results"][0]["perplexity"]
        for source, layout in [("gptq", "gguf"), ("gptq", "compressed-tensors"), ("compressed-tensors", "detent")]:
            result = self.run_program("convert", source, "--layout", layout, "--output", layout)
            self.assertEqual(result.returncode, 0, result.stderr)
        for name in ["gguf", "gguf/model.gguf", "compressed-tensors", "detent"]:
            result = self.run_program("evaluate", name, "--text", EXAMPLES / "text" / "novels_evaluation.txt",
                                      "--window", 64, "--windows", 8)
            self.assertEqual(result.returncode, 0, result.stderr)
            measured = float(result.stdout.splitlines()[1].split()[1])
            self.assertAlmostEqual(measured / perplexity, 1, delta=1e-4)
        again = self.run_program("convert", "detent", "--layout", "gptq", "--output", "again")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual((self.directory / "again" / "model.safetensors").read_bytes(),
                         (self.directory / "gptq" / "model.safetensors").read_bytes())
        self.fails("convert", "gptq", "--layout", "owq", "--output", "owq", says=["OWQ's layout cannot hold it"])
        self.fails("convert", "gptq", "--output", "gptq", says=["where the model comes from"])
        floats = self.run_program("convert", "gptq", "--dequantize", "--layout", "detent", "--output", "floats")
        self.assertEqual(floats.returncode, 0, floats.stderr)
        result = self.run_program("inspect", "floats")
        self.assertIn("model.layers.*.mlp.down_proj.weight ", result.stdout)

    def test_files_of_gguf_become_checkpoints_and_are_quantized_again(self):
        made = self.quantize(*FEW, "--spec", "q4_k", "--layout", "gguf", "--output", "q4k")
        self.assertEqual(made.returncode, 0, made.stderr)
        floats = self.run_program("convert", "q4k/model.gguf", "--dequantize", "--output", "floats",
                                  "--shard-size", "5MB")
        self.assertEqual(floats.returncode, 0, floats.stderr)
        for name in ["tokenizer.json", "tokenizer_config.json", "model-00001-of-00003.safetensors"]:
            self.assertTrue((self.directory / "floats" / name).exists(), name)
        again = self.run_program("convert", "q4k", "--layout", "gguf", "--output", "again")
        self.assertEqual(again.returncode, 0, again.stderr)
        measured = []
        for name in ["q4k", "floats", "again"]:
            result = self.run_program("evaluate", name, "--text", EXAMPLES / "text" / "novels_evaluation.txt",
                                      "--window", 64, "--windows", 8)
            self.assertEqual(result.returncode, 0, result.stderr)
            measured.append(float(result.stdout.splitlines()[1].split()[1]))
        self.assertEqual(measured[0], measured[2])
        self.assertAlmostEqual(measured[1] / measured[0], 1, delta=1e-4)
        self.quantize_fails(*FEW, "--spec", "int4:g32", model="q4k", says=["quantized already; --dequantize"])
        other = self.quantize(*FEW, "--spec", "int4:g32:gptq", "--dequantize", "--output", "int4",
                              model="q4k/model.gguf")
        self.assertEqual(other.returncode, 0, other.stderr)
        self.assertTrue((self.directory / "int4" / "tokenizer.json").exists())
        evaluated = self.run_program("evaluate", "int4", "--text", EXAMPLES / "text" / "novels_evaluation.txt",
                                     "--window", 64, "--windows", 8)
        self.assertEqual(evaluated.returncode, 0, evaluated.stderr)

    def test_tokenizers_are_judged_before_any_work(self):
        model = self.copy_model()
        shutil.copy(EXAMPLES / "text" / "novels_evaluation.txt", model / "tokenizer.json")
        self.fails("convert", model, "--layout", "gguf", "--output", "out", says=["GGUF", "tokenizer.json"])
        self.assertFalse((self.directory / "out").exists())

    def test_writes_onnx(self):
        result = self.quantize(*FEW, "--for", "onnxruntime", "--output", "out")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("opened by onnxruntime", result.stdout)
        self.assertIn(b"MatMulNBits", (self.directory / "out" / "model.onnx").read_bytes())
        self.quantize_fails(*FEW, "--layout", "onnx", "--spec", "int3:g32",
                            says=["ONNX", "3 bits, ONNX Runtime's products 2, 4 or 8"])

    def test_chooses_for_a_program(self):
        for client, file in [("llama.cpp", "model.gguf"), ("vllm", "config.json"), ("transformers", "config.json")]:
            result = self.quantize(*FEW, "--for", client, "--output", client)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertRegex(result.stdout, rf"opened by .*{client}")
            self.assertTrue((self.directory / client / file).exists())
        self.quantize_fails(*FEW, "--for", "llama.cpp", "--spec", "int7:g32", says=["llama.cpp", "bits"])
        self.quantize_fails(*FEW, model=self.directory / "vllm", says=["vllm", "quantized already"])

    def test_help_is_plain(self):
        for command in ["quantize", "evaluate", "generate", "convert", "plan", "inspect", "words"]:
            help_text = self.run_program(command, "--help")
            self.assertEqual(help_text.returncode, 0)
            self.assertNotRegex(help_text.stdout, r"->|ENUM|0x|\{\}")
        self.assertNotEqual(self.run_program().returncode, 0)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
