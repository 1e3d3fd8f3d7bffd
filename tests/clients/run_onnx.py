# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs model.onnx of this directory on input.bin, rows of its one input, and writes output.bin. Ends with 77 where
ONNX Runtime is not installed."""

import sys

try:
    import numpy
    import onnxruntime
except ImportError as failure:
    print(failure, file=sys.stderr)
    sys.exit(77)

options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
taken = session.get_inputs()[0]
is_ids = "int64" in taken.type
numbers = numpy.fromfile("input.bin", numpy.int64 if is_ids else numpy.float32)
numbers = numbers.reshape(1, -1) if is_ids else numbers.reshape(-1, taken.shape[-1])
session.run(None, {taken.name: numbers})[0].astype(numpy.float32).tofile("output.bin")
