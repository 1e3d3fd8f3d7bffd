// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "commands.hpp"
#include "common_options.hpp"
#include "detent/model/save.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "layouts.hpp"
#include "measure.hpp"
#include "model_size.hpp"
#include "specification.hpp"
#include "terminal.hpp"

using namespace detent;

namespace {

struct plan_options {
    std::filesystem::path model;
    std::vector<std::string> specs;
    index_t window = 0;
    index_t windows = 128;
    index_t threads = 0;
};

/// Floating-point operations in a second of the products of this machine, measured in a moment.
double speed(executor_ref executor) {
    linear_layer layer;
    layer.weight = matrix(matrix::Random(512, 512)); // (out, in)
    matrix const x = matrix::Random(512, 512);       // (token, in)
    layer.forward(x, executor);                      // threads start
    auto const start = clock_type::now();
    layer.forward(x, executor);
    return 2 * 512.0 * 512.0 * 512.0 / seconds_since(start);
}

/// What quantizing with a second-order solver takes: three passes, a Hessian for each group of layers that read the
/// same, its factor and the sweep, both in double.
double operations(decoder const& model, double tokens) {
    double sum = 0;
    for (block const& b : model.blocks) {
        double const experts = static_cast<double>(b.mlps.size());
        for (auto const& group : b.groups()) {
            auto const in = static_cast<double>(b.linear(group.front()).shape().cols);
            bool const expert = group.front().role >= linear_role::gate && b.router;
            double const shown = expert ? tokens * static_cast<double>(b.routing.experts_per_token) / experts : tokens;
            sum += shown * in * in + 2 * in * in * in;
            for (auto const place : group) {
                auto const out = static_cast<double>(b.linear(place).shape().rows);
                sum += 3 * 2 * shown * in * out + 2 * 2 * in * in * out;
            }
        }
    }
    return sum;
}

/// Says what memory each specification takes, with and without the activations of all windows.
void print_memory(std::vector<decoder> const& models, std::vector<std::string> const& specs, calibration const& text) {
    table lines({"memory to quantize", "with all activations", "the least (--memory)", "a block", "a layer's solver"});
    auto const megabytes = [](std::uint64_t bytes) { return size_text(static_cast<double>(bytes)); };
    for (std::size_t i = 0; i < models.size(); ++i) {
        auto const s = spec::parse(specs[i]);
        auto const all = memory_of(models[i], s, text);
        lines.add({specs[i], megabytes(all.least() + activations_of(models[i], s, text)),
                   goes_by_blocks(s) ? megabytes(all.least()) : "-", megabytes(all.block), megabytes(all.solver)});
    }
    lines.print();
}

void print_layouts(std::vector<decoder> const& models, std::vector<std::string> const& specs) {
    table lines({"weights", "layout", "fits", "opened by"});
    for (std::size_t i = 0; i < models.size(); ++i) {
        auto const s = spec::parse(specs[i]);
        for (auto const& l : layouts()) {
            auto const obstacle = l.obstacle(models[i], &s, {});
            lines.add(
                {specs[i], l.name(), obstacle ? "no" : "yes", obstacle ? obstacle->what() : l.clients(models[i])});
        }
    }
    lines.print_left();
}

void plan(plan_options o) {
    if (o.specs.empty()) {
        o.specs = {"int4:g128:gptq"};
    }
    bool const file = !std::filesystem::is_directory(o.model);
    auto const configuration = file ? o.model : o.model / "config.json";
    auto const c = read_configuration(configuration);
    std::vector<decoder> models;
    for (auto const& text : o.specs) {
        models.push_back(planned(c, spec::parse(text)));
    }
    auto const numbers = numbers_of(models.front());
    int const bits = float_bits(configuration);
    double const bytes = numbers.all * bits / 8;
    std::cout << c.type << ": " << c.layers.size() << " blocks, hidden " << c.hidden << ", vocabulary " << c.vocabulary
              << ", " << fixed(numbers.all / 1e6, 1) << " million weights, "
              << fixed(100 * numbers.layers / numbers.all, 1) << " % of them in layers that are quantized\n\n";
    table sizes({"weights", "bits/weight", "size"});
    sizes.add({"float", std::to_string(bits), size_text(bytes)});
    for (std::size_t i = 0; i < models.size(); ++i) {
        double const packed = *bits_per_weight(models[i]);
        auto const now = packed_numbers(models[i]);
        sizes.add({o.specs[i], fixed(packed, 3), size_text(bytes - now.replaced * bits / 8 + now.packed * packed / 8)});
    }
    sizes.print();
    std::cout << '\n';
    print_layouts(models, o.specs);
    auto executor = make_executor(o.threads);
    calibration const text{.tokens = {}, .window = window_of(o.window, c), .windows = o.windows};
    std::cout << '\n';
    print_memory(models, o.specs, text);
    double const tokens = static_cast<double>(text.windows * text.window);
    auto const first = spec::parse(o.specs.front());
    auto const bytes_in_memory =
        memory_of(models.front(), first, text).least() + activations_of(models.front(), first, text);
    std::cout << "\nto quantize with " << fixed(tokens, 0)
              << " tokens on this machine, roughly: " << size_text(static_cast<double>(bytes_in_memory))
              << " of memory, " << duration_text(operations(models.front(), tokens) / speed(executor)) << '\n';
}

} // namespace

void add_plan(CLI::App& program) {
    auto* const command = program.add_subcommand(
        "plan", "Say what a quantized model will be, without its weights: sizes, layouts and obstacles, memory, time.");
    auto const o = std::make_shared<plan_options>();
    command->add_option("MODEL", o->model, "directory of a model, or its config.json")
        ->required()
        ->check(CLI::ExistingPath)
        ->type_name("");
    command->add_option("--spec,--compare", o->specs, "quantizers; default: int4:g128:gptq")
        ->delimiter(',')
        ->type_name("SPEC...");
    add_window(*command, o->window);
    command->add_option("--calibration-windows", o->windows, "sequences to calibrate with; default: 128")
        ->check(CLI::PositiveNumber)
        ->type_name("N");
    add_threads(*command, o->threads);
    command->callback([o] { plan(*o); });
}
