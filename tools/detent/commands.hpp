// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <CLI/CLI.hpp>

// The subcommands of the program, each in a file of its own. Each adds itself to the program and runs when the command
// line names it; what is wrong is thrown as `detent::error`.

void add_quantize(CLI::App& program);
void add_evaluate(CLI::App& program);
void add_generate(CLI::App& program);
void add_convert(CLI::App& program);
void add_plan(CLI::App& program);
void add_inspect(CLI::App& program);
void add_words(CLI::App& program);
