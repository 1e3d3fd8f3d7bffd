// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <csignal>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <unistd.h>

#include "commands.hpp"
#include "quantize_job.hpp"

namespace {

// What the system sends where a mapped file was cut in the moment in which it was read: there is nothing to go on with,
// and a run that is started again finds all blocks that are done.
extern "C" void on_cut_file(int) {
    constexpr char message[] = "error: a file of the model became shorter while it was read\n";
    static_cast<void>(::write(STDERR_FILENO, message, sizeof message - 1) == 0);
    ::_exit(1);
}

/// Gives memory back to the system as soon as it is free.
void keep_no_memory() {
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
}

void quantize(quantize_options o) {
    std::signal(SIGBUS, on_cut_file);
    if (o.memory > 0) {
        keep_no_memory();
    }
    if (o.compare) {
        std::erase(o.specs, "");
        if (o.specs.empty()) {
            o.specs = {"int4:rtn", "int4:g128:gptq", "int3:rtn", "int3:g128:gptq", "e2m1:g32:gptq"};
        }
    } else if (o.specs.empty()) {
        o.specs.emplace_back(o.client.empty() ? "int4:g128:gptq" : specification_for(o.client));
    }
    std::optional<source_directory> source;
    if (is_gguf(o.model)) {
        detent::decoder const model = load_model(o.model);
        if (!o.dequantize && !detent::packed_layers(model).empty()) {
            throw detent::error(o.model.string(),
                                "is quantized already; --dequantize quantizes what its codes stand for");
        }
        o.gguf = files_of(o.model);
        source.emplace(o.model, model);
        o.model = source->path();
    }
    auto executor = make_executor(o.threads);
    quantize_job job(o, executor);
    run_report const report = job.run();
    print(report);
    std::cout << "peak memory " << fixed(report.peak_bytes / 1e6, 0) << " MB\n";
    auto const directory = job.report_directory();
    if (!directory.empty()) {
        if (o.compare) { // else it came with the model
            std::filesystem::create_directories(directory);
            write_report(report, directory);
        }
        std::cout << "wrote report.json and layer_errors.svg to " << directory.string() << '\n';
    }
}

void add_what(CLI::App& command, quantize_options& o) {
    command.add_option("MODEL", o.model, "directory of a model, as on Hugging Face, or file of GGUF")
        ->required()
        ->check(CLI::ExistingPath)
        ->type_name("");
    auto* const one = command.add_option("--spec", o.specs, "quantizer, such as int4:g128:gptq (the default)")
                          ->expected(1)
                          ->type_name("SPEC");
    command
        .add_option_function<std::vector<std::string>>(
            "--compare",
            [&o](std::vector<std::string> const& specs) {
                o.compare = true;
                o.specs = specs;
            },
            "quantizers to print side by side; nothing is saved without --output")
        ->expected(0, -1)
        ->delimiter(',')
        ->excludes(one)
        ->type_name("SPEC...");
    add_texts(command, "--text,--calibration", o.calibration, "text to calibrate with")->required();
    add_texts(command, "--evaluation", o.evaluation, "text to measure perplexity on, float and packed");
    add_tokenizer(command, o.tokenizer);
    command.add_flag("--dequantize", o.dequantize,
                     "of a quantized model, quantize the weights that its codes stand for");
    command.add_option("--output", o.output, "directory to write; default: the model's name and the specification")
        ->type_name("DIR");
    auto* const layout = command.add_option("--layout", o.layout, "of the files; default: the first that can hold it")
                             ->check(CLI::IsMember(layout_names()))
                             ->type_name("LAYOUT");
    command.add_option("--for", o.client, "program that shall open it, which chooses layout and specification")
        ->check(CLI::IsMember(client_names()))
        ->excludes(layout)
        ->type_name("CLIENT");
    add_shard_size(command, o.shard_bytes);
}

void add_how(CLI::App& command, quantize_options& o) {
    add_window(command, o.window);
    command.add_option("--calibration-windows", o.calibration_windows, "sequences to calibrate with; default: 128")
        ->check(CLI::PositiveNumber)
        ->type_name("N");
    command.add_option("--evaluation-windows", o.evaluation_windows, "sequences to evaluate; default: all")
        ->check(CLI::PositiveNumber)
        ->type_name("N");
    add_cache(command, o.cache);
    command
        .add_option("--learned", o.learned,
                    "directory that keeps what lwc and let learned of each block; started again, a run goes on from it")
        ->type_name("DIR");
    command
        .add_option("--plant-outliers", o.outliers,
                    "make four channels of each norm so many times larger, and what reads them smaller")
        ->check(CLI::Range(1.0, 65536.0))
        ->type_name("FACTOR");
    command
        .add_option("--memory", o.memory,
                    "bytes of memory to stay within, such as 8G: what does not fit is kept in files beside the output")
        ->transform(CLI::AsSizeValue(true))
        ->type_name("BYTES");
    command.add_flag("--at-once", o.at_once, "calibrate all layers of a block before quantizing any");
    command.add_flag("--all-experts", o.all_experts,
                     "calibrate every expert with all tokens, not only those that the router sends it");
    add_threads(command, o.threads);
}

} // namespace

void add_quantize(CLI::App& program) {
    auto* const command = program.add_subcommand("quantize", "Quantize a model, say what it costs, and save it.");
    auto const o = std::make_shared<quantize_options>();
    add_what(*command, *o);
    add_how(*command, *o);
    command->callback([o] { quantize(*o); });
}
