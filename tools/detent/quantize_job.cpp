// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <chrono>
#include <iostream>
#include <set>
#include <variant>

#include "detent/io/quantization_settings.hpp"
#include "detent/model/dequantize_decoder.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/load.hpp"
#include "detent/model/load_gguf.hpp"
#include "detent/model/save.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "measure.hpp"
#include "quantize_job.hpp"

using namespace detent;

namespace {

/// A specification as the name of a directory.
std::string file_name(std::string text) {
    std::ranges::replace(text, ':', '-');
    return text;
}

/// The layers whose statistics come from fewer tokens than they have inputs, so that these are not independent.
void warn_of_few_tokens(decoder const& model, index_t tokens) {
    linear_layer const* widest = nullptr;
    for (block const& b : model.blocks) {
        for (layer_place const place : b.places()) {
            linear_layer const& layer = b.linear(place);
            if (widest == nullptr || layer.shape().cols > widest->shape().cols) {
                widest = &layer;
            }
        }
    }
    if (widest != nullptr && tokens < widest->shape().cols) {
        std::cerr << "warning: " << tokens << " calibration tokens are fewer than the " << widest->shape().cols
                  << " inputs of '" << widest->name << "', which they cannot tell apart\n";
    }
}

} // namespace

quantize_job::quantize_job(quantize_options const& o, executor_ref executor)
    : options_(o), executor_(executor.timed_by(watch_)), cache_(cache_of(o.cache)) {
    auto const configuration = read_configuration(o.model / "config.json");
    auto const directory = std::filesystem::canonical(o.model); // "." and a final slash have no name
    report_.model = directory.filename().string();
    window_ = window_of(o.window, configuration);
    plan(configuration);
    check_destinations();
    read_texts(configuration);
}

void quantize_job::plan(model_configuration const& c) {
    if (!options_.dequantize && !io::quantization_settings::of(options_.model).empty()) {
        throw error(options_.model.string(), "is quantized already; --dequantize quantizes what its codes stand for");
    }
    io::checkpoint const original(options_.model);
    bool const saves = !options_.compare || !options_.output.empty();
    for (auto const& text : options_.specs) {
        task t{.spec = spec::parse(text), .layout = {}, .destination = {}};
        auto const model = planned(c, t.spec, original);
        t.layout =
            saves ? choose_layout(model, &t.spec, options_.model, options_.layout, options_.client) : layout_choice{};
        if (saves) {
            t.destination = options_.output.empty()
                                ? std::filesystem::path(report_.model + "-" + file_name(text))
                                : (options_.compare ? options_.output / file_name(text) : options_.output);
        }
        tasks_.push_back(std::move(t));
    }
}

void quantize_job::check_destinations() const {
    for (auto const& t : tasks_) {
        if (!t.destination.empty()) {
            check_destination(options_.model, t.destination);
        }
    }
    if (options_.compare && !options_.output.empty()) {
        check_destination(options_.model, options_.output);
    }
}

void quantize_job::read_texts(model_configuration const& c) {
    auto const text = text_of(options_.model, options_.tokenizer, c);
    calibration_ = text.read(options_.calibration);
    auto const found = count_windows("calibration text", calibration_, window_, options_.calibration_windows);
    bool const solved = std::ranges::any_of(
        tasks_, [](task const& t) { return t.spec.solver != spec::solver_kind::rtn || t.spec.weak.wanted; });
    if (solved) {
        warn_of_few_tokens(planned(c, tasks_.front().spec), std::min(found, options_.calibration_windows) * window_);
    }
    evaluation_ = text.read(options_.evaluation);
    if (!options_.evaluation.empty()) {
        take_windows(evaluation_, window_, options_.evaluation_windows);
    }
}

decoder quantize_job::load() const {
    decoder model =
        options_.gguf.empty() ? load_decoder(options_.model) : load_gguf(options_.gguf, gguf_weights::floats);
    dequantize_decoder(model);
    if (options_.outliers > 1) {
        plant_outliers(model, options_.outliers);
    }
    return model;
}

run_report quantize_job::run() {
    auto const start = clock_type::now();
    {
        decoder const model = load();
        print_warnings(model);
        if (!evaluation_.empty()) {
            report_.float_perplexity = measure(model, report_.model);
        }
    }
    report_.float_seconds = seconds_since(start);
    io::checkpoint const original(options_.model);
    for (auto const& name : original.names()) {
        report_.float_bytes += static_cast<double>(original.at(name).bytes.size());
    }
    report_.float_times = watch_.lap();
    for (task const& t : tasks_) {
        report_.results.push_back(quantize(t));
    }
    report_.peak_bytes = peak_memory();
    return report_;
}

std::filesystem::path quantize_job::report_directory() const {
    return options_.compare ? options_.output : tasks_.front().destination;
}

double quantize_job::measure(decoder const& model, std::string const& name) {
    return measure_perplexity(model, evaluation_, window_, cache_, executor_, bar_.callback(name));
}

model_report quantize_job::quantize(task const& t) {
    spec const& s = t.spec;
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

    if (!t.destination.empty()) { // from here on the model is what its file says
        model =
            save_and_reload(std::move(model), options_.model, t.destination, s.text, t.layout, options_.shard_bytes);
    }
    start = clock_type::now();
    if (!evaluation_.empty()) {
        result.perplexity = measure(model, s.text);
    }
    result.evaluate_seconds = seconds_since(start);
    result.times = watch_.lap();
    return result;
}

/// The bytes of the checkpoint's tensors, or of the parts of them, that packed ones replace.
double quantize_job::replaced_bytes(decoder const& model) const {
    io::checkpoint const original(options_.model);
    double bytes = 0;
    for (auto const& entry : tensors_of(model).layers) {
        linear_layer const& layer = *entry.of;
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
    }
    return bytes;
}
