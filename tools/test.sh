#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# Configures, builds, compiles every header alone and runs all tests: test.sh [preset]. Ends with the test count.
set -eu
cd "$(dirname "$0")/.."

tools/setup.sh
cmake --workflow --preset "${1:-dev}"
