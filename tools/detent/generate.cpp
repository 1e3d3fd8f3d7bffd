// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "commands.hpp"
#include "common_options.hpp"
#include "detent/model/generate.hpp"
#include "layouts.hpp"
#include "measure.hpp"
#include "terminal.hpp"

using namespace detent;

namespace {

struct generate_options {
    std::filesystem::path model;
    std::filesystem::path tokenizer;
    std::optional<std::string> prompt;
    std::vector<nn::token_id> prompt_ids;
    index_t tokens = 200;
    sampling how;
    std::optional<std::string> cache;
    index_t threads = 0;
};

void generate_text(generate_options const& o) {
    auto executor = make_executor(o.threads);
    kv_format const cache = cache_of(o.cache).value_or(kv_format{});
    decoder const model = load_model(o.model);
    print_warnings(model);
    auto const text = text_of(files_of(o.model), o.tokenizer, model.configuration);
    auto const prompt = o.prompt ? text.prompt(*o.prompt) : o.prompt_ids;
    text.expect_in_vocabulary(prompt, "--prompt-ids");
    token_writer writer(text);
    if (text.has_text()) { // what tokens look like may depend on those before them
        for (auto const id : prompt) {
            std::cout << writer.push(id);
        }
        std::cout << std::flush;
    }
    auto const start = clock_type::now();
    auto const generated = generate(
        model, prompt, o.tokens, o.how,
        [&](nn::token_id id) {
            std::cout << writer.push(id) << std::flush;
            return true;
        },
        executor, cache);
    std::cout << writer.finish() << '\n';
    std::cerr << fixed(static_cast<double>(generated.size()) / seconds_since(start), 1) << " tokens per second\n";
}

} // namespace

void add_generate(CLI::App& program) {
    auto* const command = program.add_subcommand("generate", "Continue a prompt with a model, float or quantized.");
    auto const o = std::make_shared<generate_options>();
    command->add_option("MODEL", o->model, "directory or file of a model")
        ->required()
        ->check(CLI::ExistingPath)
        ->type_name("");
    auto* const prompt = command->add_option("--prompt", o->prompt, "text to continue; \"\" begins a text");
    prompt->type_name("TEXT");
    command->add_option("--prompt-ids", o->prompt_ids, "token ids to continue instead, with commas")
        ->delimiter(',')
        ->excludes(prompt)
        ->type_name("ID,...");
    add_tokenizer(*command, o->tokenizer);
    command->add_option("--tokens", o->tokens, "how many to add; default: 200")
        ->check(CLI::PositiveNumber)
        ->type_name("N");
    command->add_option("--temperature", o->how.temperature, "0, the default, takes the most likely token")
        ->check(CLI::NonNegativeNumber)
        ->type_name("T");
    command->add_option("--seed", o->how.seed, "of the random draws")->type_name("N");
    add_cache(*command, o->cache);
    add_threads(*command, o->threads);
    command->callback([o] {
        if (!o->prompt && o->prompt_ids.empty()) {
            throw error("generate", "needs --prompt or --prompt-ids");
        }
        generate_text(*o);
    });
}
