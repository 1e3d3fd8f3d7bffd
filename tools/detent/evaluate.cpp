// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "commands.hpp"
#include "common_options.hpp"
#include "detent/model/save.hpp"
#include "layouts.hpp"
#include "measure.hpp"
#include "model_size.hpp"
#include "terminal.hpp"

using namespace detent;

namespace {

struct evaluate_options {
    paths models;
    paths texts;
    std::filesystem::path tokenizer;
    index_t window = 0;
    index_t windows = 0;
    std::optional<std::string> cache;
    index_t threads = 0;
};

void evaluate(evaluate_options const& o) {
    auto executor = make_executor(o.threads);
    auto const cache = cache_of(o.cache);
    progress_bar bar;
    table results({"model", "perplexity", "tokens", "bits/weight", "size", "s"});
    for (auto const& path : o.models) {
        auto const start = clock_type::now();
        decoder const model = load_model(path);
        print_warnings(model);
        auto tokens = text_of(files_of(path), o.tokenizer, model.configuration).read(o.texts);
        index_t const window = window_of(o.window, model.configuration);
        take_windows(tokens, window, o.windows);
        double const result = measure_perplexity(model, tokens, window, cache, executor, bar.callback(path.string()));
        auto const bits = bits_per_weight(model);
        results.add({path.string(), fixed(result, 5), std::to_string(std::ssize(tokens) / window * (window - 1)),
                     bits ? fixed(*bits, 3) : "float", size_text(bytes_of(path)), fixed(seconds_since(start), 1)});
    }
    results.print();
}

} // namespace

void add_evaluate(CLI::App& program) {
    auto* const command = program.add_subcommand("evaluate", "Measure the perplexity of models, float or quantized.");
    auto const o = std::make_shared<evaluate_options>();
    command->add_option("MODEL", o->models, "directories or files of models")
        ->required()
        ->check(CLI::ExistingPath)
        ->type_name("");
    add_texts(*command, "--text,--evaluation", o->texts, "text to measure on")->required();
    add_tokenizer(*command, o->tokenizer);
    add_window(*command, o->window);
    command->add_option("--windows,--evaluation-windows", o->windows, "sequences to evaluate; default: all")
        ->check(CLI::PositiveNumber)
        ->type_name("N");
    add_cache(*command, o->cache);
    add_threads(*command, o->threads);
    command->callback([o] { evaluate(*o); });
}
