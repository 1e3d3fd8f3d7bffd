// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <iostream>
#include <memory>

#include "commands.hpp"
#include "detent/quantizer/vocabulary_text.hpp"

void add_words(CLI::App& program) {
    auto* const command = program.add_subcommand("words", "List the words of specifications.");
    auto const markdown = std::make_shared<bool>(false);
    command->add_flag("--markdown", *markdown, "as the page docs/specification.md");
    command->callback(
        [markdown] { std::cout << (*markdown ? detent::vocabulary::markdown() : detent::vocabulary::plain_text()); });
}
