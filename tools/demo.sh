#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# Builds the command-line program for this machine and compares quantizers: demo.sh [specifications and options].
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/native

mkdir -p "$root/build"
"$root/tools/setup.sh"
(cd "$root" && cmake --preset native && cmake --build --preset native --target detent_program) > "$root/build/demo.log" 2>&1 || {
    cat "$root/build/demo.log" >&2
    exit 1
}
examples=$root/examples
"$build/tools/detent/detent" quantize "$examples/models/tiny-llama" --text "$examples/text/novels_calibration.txt" \
    --evaluation "$examples/text/novels_evaluation.txt" --compare "$@"
