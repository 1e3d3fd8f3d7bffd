// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Quantizes a language model, says what it costs in perplexity, saves it, and runs it from its packed weights.

#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <CLI/CLI.hpp>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "detent/calibrate/perplexity.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/io/text_file.hpp"
#include "detent/io/tokens.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/generate.hpp"
#include "detent/model/load.hpp"
#include "detent/model/save.hpp"
#include "detent/quantizer/find_kv_format.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "detent/quantizer/vocabulary_text.hpp"
#include "report.hpp"
#include "specification.hpp"
#include "terminal.hpp"

namespace {

using clock_type = std::chrono::steady_clock;
using namespace detent;

std::string name_of(io::packed_layout layout) {
    return layout == io::packed_layout::gptq  ? "GPTQ's layout"
           : layout == io::packed_layout::owq ? "OWQ's layout"
                                              : "detent's layout";
}

double seconds_since(clock_type::time_point start) {
    return std::chrono::duration<double>(clock_type::now() - start).count();
}

/// Says what is odd about the checkpoint of a model.
void print_warnings(decoder const& model) {
    for (auto const& warning : model.warnings) {
        std::cerr << "warning: " << warning << '\n';
    }
}

/// What the command line asks for.
struct options {
    std::filesystem::path model = DETENT_EXAMPLES_DIR "/models/tiny-llama";
    std::filesystem::path calibration = DETENT_EXAMPLES_DIR "/text/novels_calibration.txt";
    std::filesystem::path evaluation = DETENT_EXAMPLES_DIR "/text/novels_evaluation.txt";
    std::filesystem::path output;
    std::optional<io::packed_layout> layout; // GPTQ's where it can hold the model, else detent's
    std::vector<std::string> specs;
    bool compare = false;
    bool at_once = false;     // calibrate all layers of a block at once
    bool all_experts = false; // calibrate every expert with all tokens
    index_t window = 0;
    index_t calibration_windows = 128;
    index_t evaluation_windows = 0;
    std::filesystem::path learned;
    kv_format cache;     // of keys and values
    bool cached = false; // evaluate through the cache
    float outliers = 1;  // how much larger four planted channels of each norm are
    index_t threads = 0;

    std::filesystem::path packed_model;
    std::string prompt;
    std::vector<nn::token_id> prompt_ids;
    index_t tokens = 200;
    sampling sampling_options;
};

/// A model and texts, ready to be quantized as often as there are specifications.
class job {
public:
    job(options const& o, executor_ref executor)
        : options_(o), executor_(executor.timed_by(watch_)), calibration_(io::read_tokens(o.calibration)),
          evaluation_(io::read_tokens(o.evaluation)) {
        auto const configuration = read_configuration(o.model / "config.json");
        window_ = o.window > 0 ? o.window : std::min<index_t>(512, configuration.max_positions);
        if (o.evaluation_windows > 0) {
            auto const wanted = static_cast<std::size_t>(o.evaluation_windows * window_);
            evaluation_.resize(std::min(evaluation_.size(), wanted));
        }
        auto const directory = std::filesystem::canonical(o.model); // "." and a final slash have no name
        report_.model = directory.filename().string();
    }

    run_report run() {
        auto const start = clock_type::now();
        {
            decoder const model = load();
            print_warnings(model);
            for (auto const& text : options_.specs) { // complains of impossible numbers of weak columns before any work
                check_specification(spec::parse(text), model);
            }
            report_.float_perplexity = measure(model, report_.model);
        }
        report_.float_seconds = seconds_since(start);
        io::checkpoint const original(options_.model);
        for (auto const& name : original.names()) {
            report_.float_bytes += static_cast<double>(original.at(name).bytes.size());
        }
        report_.float_times = watch_.lap();
        for (auto const& text : options_.specs) {
            report_.results.push_back(quantize_once(spec::parse(text)));
        }
        report_.peak_bytes = peak_memory();
        return report_;
    }

    /// Where the model quantized by `text` is saved.
    std::filesystem::path destination(std::string const& text) const {
        if (options_.output.empty()) {
            return report_.model + "-" + file_name(text);
        }
        return options_.compare ? options_.output / file_name(text) : options_.output;
    }

private:
    /// A specification as the name of a directory.
    static std::string file_name(std::string text) {
        std::ranges::replace(text, ':', '-');
        return text;
    }

    decoder load() const {
        decoder model = load_decoder(options_.model);
        if (options_.outliers > 1) {
            plant_outliers(model, options_.outliers);
        }
        return model;
    }

    /// The perplexity of `model`, with the cache that was asked for.
    double measure(decoder const& model, std::string const& name) {
        auto const report = bar_.callback(name);
        return options_.cached ? cached_perplexity(model, evaluation_, window_, options_.cache, executor_, report)
                               : perplexity(model, evaluation_, window_, executor_, report);
    }

    model_report quantize_once(spec const& s) {
        model_report result;
        result.spec = s.text;
        auto start = clock_type::now();
        decoder model = load();
        calibration text{.tokens = calibration_,
                         .window = window_,
                         .windows = options_.calibration_windows,
                         .true_sequential = !options_.at_once,
                         .all_experts = options_.all_experts};
        if (!options_.learned.empty()) {
            text.learned = options_.learned / file_name(s.text);
        }
        result.layers = quantize_by(model, s, text, executor_, bar_.callback(s.text));
        result.quantize_seconds = seconds_since(start);
        double weights = 0;
        for (auto const& layer : result.layers) {
            auto const size = static_cast<double>(layer.shape.size());
            weights += size;
            result.bits_per_weight += size * layer.bits_per_weight;
            result.effective_bits += size * layer.effective_bits;
            result.weak_columns += layer.weak_columns;
        }
        result.bytes = report_.float_bytes - replaced_bytes(model) + result.bits_per_weight / 8;
        result.bits_per_weight /= weights;
        result.effective_bits /= weights;

        if (!options_.compare || !options_.output.empty()) { // from here on the model is what its file says
            auto const directory = destination(s.text);
            auto const plan = save_decoder(model, options_.model, directory, s.text, options_.layout);
            model = load_decoder(directory);
            std::cout << "saved " << directory.string() << " in " << name_of(plan.layout)
                      << (plan.obstacle.empty() ? "" : " (" + plan.obstacle + ")") << '\n';
        }
        start = clock_type::now();
        result.perplexity = measure(model, s.text);
        result.evaluate_seconds = seconds_since(start);
        result.times = watch_.lap();
        return result;
    }

    /// The bytes of the checkpoint's tensors, or of the parts of them, that packed ones replace.
    double replaced_bytes(decoder const& model) const {
        io::checkpoint const original(options_.model);
        double bytes = 0;
        auto const add = [&](linear_layer const& layer) {
            std::string name = layer.name + ".weight";
            if (layer.stored && !original.contains(name)) {
                name = layer.stored->weight_name();
            }
            // A head that was tied has no tensor.
            if (std::holds_alternative<packed_matrix>(layer.weight) && original.contains(name)) {
                auto const& tensor = original.at(name);
                double const part = static_cast<double>(layer.shape().size()) / static_cast<double>(tensor.size());
                bytes += part * static_cast<double>(tensor.bytes.size());
            }
        };
        add(model.embeddings);
        if (model.lm_head) {
            add(*model.lm_head);
        }
        for (block const& b : model.blocks) {
            for (layer_place const place : b.places()) {
                add(b.linear(place));
            }
        }
        return bytes;
    }

    options const& options_;
    stopwatch watch_;
    executor_ref executor_;
    std::vector<nn::token_id> calibration_;
    std::vector<nn::token_id> evaluation_;
    index_t window_ = 0;
    progress_bar bar_;
    run_report report_;
};

void quantize_models(options const& o, executor_ref executor) {
    for (auto const& text : o.specs) {
        check_specification(spec::parse(text)); // before any work
    }
    if (std::filesystem::exists(o.output) && !std::filesystem::is_directory(o.output)) {
        throw error("--output", "'" + o.output.string() + "' is a file");
    }
    job work(o, executor);
    run_report const report = work.run();
    print(report);
    std::cout << "peak memory " << fixed(report.peak_bytes / 1e6, 0) << " MB\n";
    if (!o.compare || !o.output.empty()) {
        auto const directory = o.compare ? o.output : work.destination(o.specs.front());
        std::filesystem::create_directories(directory);
        io::write_text(directory / "report.json", to_json(report));
        io::write_text(directory / "layer_errors.svg", to_svg(report));
        std::cout << "wrote report.json and layer_errors.svg to " << directory.string() << '\n';
    }
}

void generate_text(options const& o, executor_ref executor) {
    decoder const model = load_decoder(o.packed_model);
    print_warnings(model);
    bool const bytes = model.configuration.vocabulary == 256;
    std::vector<nn::token_id> prompt = o.prompt_ids;
    if (prompt.empty()) {
        if (!bytes) {
            throw error("--prompt", "this model's tokens are not bytes; give --prompt-ids");
        }
        for (char const c : o.prompt) {
            prompt.push_back(static_cast<unsigned char>(c));
        }
        std::cout << o.prompt;
    }
    auto const start = clock_type::now();
    auto const generated = generate(
        model, prompt, o.tokens, o.sampling_options,
        [&](nn::token_id id) {
            if (bytes) {
                std::cout << static_cast<char>(id) << std::flush;
            } else {
                std::cout << id << ' ' << std::flush;
            }
            return true;
        },
        executor, o.cache);
    std::cout << '\n';
    std::cerr << fixed(static_cast<double>(generated.size()) / seconds_since(start), 1) << " tokens per second\n";
}

} // namespace

int main(int argc, char** argv) {
    // Activations come and go by the megabyte: keep their pages instead of returning them to the system each time.
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
#endif

    options o;
    std::string kv = "float";
    std::string grid;
    std::string group;
    std::string range;
    std::string solver;
    std::string damping;
    bool symmetric = false;
    bool activation_order = false;
    bool static_groups = false;
    std::vector<std::string> compared;

    CLI::App app{"Quantizes a language model and measures its perplexity, float and packed."};
    app.add_option("model", o.model, "directory with config.json and safetensors")->check(CLI::ExistingDirectory);
    app.add_option("--calibration", o.calibration, "text (bytes) or token ids (.u16, .u32)")->check(CLI::ExistingFile);
    app.add_option("--evaluation", o.evaluation, "text (bytes) or token ids (.u16, .u32)")->check(CLI::ExistingFile);
    app.add_option("--output", o.output, "directory to write; default: the model's name and the specification");
    std::map<std::string, io::packed_layout> const layouts{
        {"gptq", io::packed_layout::gptq}, {"owq", io::packed_layout::owq}, {"detent", io::packed_layout::detent}};
    app.add_option("--layout", o.layout, "of the file: gptq, owq or detent; default: gptq where that can hold it")
        ->transform(CLI::CheckedTransformer(layouts));
    auto* const spec_option =
        app.add_option("--spec", o.specs, "quantizer, such as int4:g128:gptq (the default)")->expected(1);
    auto* const compare_option =
        app.add_option("--compare", compared, "quantizers to print side by side; nothing is saved without --output")
            ->expected(0, -1)
            ->delimiter(',')
            ->excludes(spec_option);
    app.add_option("--grid", grid, "instead of --spec: int4, e2m1, nf4, ...")->excludes(spec_option);
    app.add_option("--group", group, "instead of --spec: inputs that share a scale")->excludes(spec_option);
    app.add_option("--range", range, "instead of --spec: minmax, absmax or mse")->excludes(spec_option);
    app.add_option("--solver", solver, "instead of --spec: rtn or gptq")->excludes(spec_option);
    app.add_option("--damping", damping, "instead of --spec: relative damping of gptq")->excludes(spec_option);
    app.add_flag("--sym", symmetric, "instead of --spec: integers without a zero point")->excludes(spec_option);
    app.add_flag("--act-order", activation_order, "instead of --spec: gptq in activation order")->excludes(spec_option);
    app.add_flag("--static-groups", static_groups, "instead of --spec: scales of groups first")->excludes(spec_option);
    app.add_option("--window", o.window, "tokens of a sequence; default: 512, or what the model can take")
        ->check(CLI::PositiveNumber);
    app.add_option("--calibration-windows", o.calibration_windows, "sequences to calibrate with")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--evaluation-windows", o.evaluation_windows, "sequences to evaluate; default: all")
        ->check(CLI::PositiveNumber);
    auto* const kv_option = app.add_option(
        "--kv", kv, "format of cached keys and values to evaluate with: float, f16, int8, int4:g16, ...");
    app.add_option("--learned", o.learned,
                   "directory that keeps what lwc and let learned of each block; started again, a run goes on from it");
    app.add_option("--plant-outliers", o.outliers,
                   "make four channels of each norm so many times larger, and what reads them smaller")
        ->check(CLI::Range(1.0, 65536.0));
    app.add_flag("--at-once", o.at_once, "calibrate all layers of a block before quantizing any");
    app.add_flag("--all-experts", o.all_experts,
                 "calibrate every expert with all tokens, not only those that the router sends it");
    app.add_option("--threads", o.threads, "default: one for each processor")->check(CLI::PositiveNumber);

    auto* const generation = app.add_subcommand("generate", "Continues a prompt with a saved or float model.");
    generation->add_option("model", o.packed_model, "directory with config.json and safetensors")
        ->required()
        ->check(CLI::ExistingDirectory);
    generation->add_option("--prompt", o.prompt, "text, for models whose tokens are bytes")
        ->default_val("It was a dark night, and");
    generation->add_option("--prompt-ids", o.prompt_ids, "token ids, for other models")->delimiter(',');
    generation->add_option("--tokens", o.tokens, "how many to add")->capture_default_str()->check(CLI::PositiveNumber);
    generation->add_option("--temperature", o.sampling_options.temperature, "0 takes the most likely token")
        ->check(CLI::NonNegativeNumber);
    generation->add_option("--seed", o.sampling_options.seed, "of the random draws");
    generation->add_option("--kv", kv, "format of cached keys and values: float, f16, int8, int4:g16, ...");
    generation->add_option("--threads", o.threads, "default: one for each processor")->check(CLI::PositiveNumber);

    bool markdown = false;
    auto* const words = app.add_subcommand("words", "Lists the words of specifications.");
    words->add_flag("--markdown", markdown, "as docs/specification.md");
    app.footer("Specifications such as int4:g128:gptq are explained by `quantize_model words`.");
    CLI11_PARSE(app, argc, argv);

    if (*words) {
        std::cout << (markdown ? vocabulary::markdown() : vocabulary::plain_text());
        return 0;
    }
    o.compare = compare_option->count() > 0;
    if (o.compare) {
        o.specs = compared;
        std::erase(o.specs, "");
        if (o.specs.empty()) {
            o.specs = {"int4:rtn", "int4:g128:gptq", "int3:rtn", "int3:g128:gptq", "e2m1:g32:gptq"};
        }
    } else if (o.specs.empty()) {
        std::string text = grid.empty() ? "int4" : grid;
        text += symmetric ? ":sym" : "";
        text += !group.empty() ? ":g" + group : grid.empty() ? ":g128" : "";
        text += !range.empty() ? ":" + range : "";
        text += ":" + (solver.empty() ? "gptq" : solver);
        text += activation_order ? ":act" : "";
        text += static_groups ? ":static" : "";
        text += damping.empty() ? "" : ":damp=" + damping;
        o.specs = {text};
    }

    try {
#if defined(_OPENMP)
        thread_team executor(o.threads > 0 ? o.threads : omp_get_num_procs());
#else
        serial executor;
#endif
        o.cache = find_kv_format(kv);
        o.cached = kv_option->count() > 0;
        if (*generation) {
            generate_text(o, executor);
        } else {
            quantize_models(o, executor);
        }
    } catch (cancelled const&) {
        std::cerr << "cancelled\n";
        return 130;
    } catch (std::exception const& e) {
        std::cerr << "error: " << e.what() << '\n';
        return 1;
    }
    return 0;
}
