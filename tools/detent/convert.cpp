// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

#include "commands.hpp"
#include "common_options.hpp"
#include "detent/model/dequantize_decoder.hpp"
#include "detent/model/save.hpp"
#include "layouts.hpp"
#include "measure.hpp"

using namespace detent;

namespace {

struct convert_options {
    std::filesystem::path model;
    std::filesystem::path output;
    std::string layout;
    std::string client;
    bool dequantize = false;
    index_t shard_bytes = usual_shard_bytes;
};

void convert(convert_options const& o) {
    check_destination(o.model, o.output);
    decoder model = load_model(o.model);
    print_warnings(model);
    if (o.dequantize && dequantize_decoder(model) == 0) {
        throw error(o.model.string(), "is not quantized");
    }
    source_directory const source(o.model, model);
    auto const chosen = choose_layout(model, nullptr, source.path(), o.layout, o.client);
    save_and_reload(std::move(model), source.path(), o.output, "converted", chosen, o.shard_bytes);
}

} // namespace

void add_convert(CLI::App& program) {
    auto* const command =
        program.add_subcommand("convert", "Write a quantized model in another layout, code for code.");
    auto const o = std::make_shared<convert_options>();
    command->add_option("MODEL", o->model, "directory or file of a model")
        ->required()
        ->check(CLI::ExistingPath)
        ->type_name("");
    command->add_option("--output", o->output, "directory to write")->required()->type_name("DIR");
    auto* const layout = command->add_option("--layout", o->layout, "of the files")
                             ->check(CLI::IsMember(layout_names()))
                             ->type_name("LAYOUT");
    command->add_option("--for", o->client, "program that shall open it, which chooses the layout")
        ->check(CLI::IsMember(client_names()))
        ->excludes(layout)
        ->type_name("CLIENT");
    command->add_flag("--dequantize", o->dequantize, "write the numbers that codes stand for, as a float model");
    add_shard_size(*command, o->shard_bytes);
    command->callback([o] { convert(*o); });
}
