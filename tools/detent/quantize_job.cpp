// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <chrono>
#include <iostream>
#include <limits>
#include <set>
#include <span>
#include <variant>

#include "detent/calibrate/blocks_of_file.hpp"
#include "detent/calibrate/learned_file.hpp"
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
    : options_(o), executor_(executor.timed_by(watch_)), activation_bytes_(std::numeric_limits<std::uint64_t>::max()),
      cache_(cache_of(o.cache)) {
    auto const configuration = read_configuration(o.model / "config.json");
    auto const directory = std::filesystem::canonical(o.model); // "." and a final slash have no name
    report_.model = directory.filename().string();
    window_ = window_of(o.window, configuration);
    plan(configuration);
    check_destinations();
    read_texts(configuration);
    check_memory(configuration);
    check_journals();
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

/// @throws error where another program writes to a destination, or a run with other settings was stopped there.
void quantize_job::check_journals() const {
    for (task const& t : tasks_) {
        if (!t.destination.empty()) {
            io::work_directory const work(t.destination);
            if (std::filesystem::exists(work.path() / journal_name)) {
                block_journal const begun(work.path(), settings_of(t));
            }
        }
    }
}

void quantize_job::check_memory(model_configuration const& c) {
    if (options_.memory == 0) {
        return;
    }
    for (task const& t : tasks_) {
        auto const refuse = [&](std::string const& what) {
            return error("--memory", what + ", which needs the whole model in memory");
        };
        if (t.destination.empty()) {
            throw error("--memory", "needs --output: what does not fit into memory is kept beside it");
        }
        if (!options_.gguf.empty()) {
            throw refuse("a file of GGUF is read at once");
        }
        if (!goes_by_blocks(t.spec)) {
            throw refuse("'" + t.spec.text + "' folds scales into all blocks before one is quantized");
        }
        if (t.layout.of.of == nullptr) {
            throw refuse(t.layout.of.title() + " is written from all blocks");
        }
        if (cache_ && !evaluation_.empty()) {
            throw refuse("--kv evaluates through a cache");
        }
        auto const least = memory_of(planned(c, t.spec), t.spec, calibration_of(t)).least();
        if (least > options_.memory) {
            throw error("--memory", size_text(static_cast<double>(options_.memory)) + " are not enough for '" +
                                        t.spec.text + "': the least is " + size_text(static_cast<double>(least)));
        }
        activation_bytes_ = std::min(activation_bytes_, options_.memory - least);
    }
}

calibration quantize_job::calibration_of(task const& t) const {
    calibration text{.tokens = calibration_,
                     .window = window_,
                     .windows = options_.calibration_windows,
                     .true_sequential = !options_.at_once,
                     .all_experts = options_.all_experts,
                     .activation_bytes = activation_bytes_};
    if (!options_.learned.empty()) {
        text.learned = options_.learned / file_name(t.spec.text);
    }
    return text;
}

/// What must be the same for a run that was stopped to go on.
run_settings quantize_job::settings_of(task const& t) const {
    auto const windows = std::min(options_.calibration_windows, std::ssize(calibration_) / window_);
    fingerprint text;
    text.add(std::span(calibration_).first(static_cast<std::size_t>(windows * window_)));
    run_settings settings{{"version of detent", version_text()},
                          {"specification", t.spec.text},
                          {"window", std::to_string(window_)},
                          {"number of windows", std::to_string(windows)},
                          {"calibration text", text.text()},
                          {"--at-once", options_.at_once ? "yes" : "no"},
                          {"--all-experts", options_.all_experts ? "yes" : "no"},
                          {"--dequantize", options_.dequantize ? "yes" : "no"},
                          {"--plant-outliers", std::to_string(options_.outliers)}};
    auto const add = [&](std::filesystem::path const& file) {
        auto const stamp = io::stamp_of(file);
        settings["source file " + file.filename().string()] =
            std::to_string(stamp.size) + " bytes, of time " + std::to_string(stamp.time);
    };
    add(options_.model / "config.json");
    io::checkpoint const original(options_.model);
    for (auto const& file : original.files()) {
        add(file.path());
    }
    return settings;
}

/// What is done to a model before it is quantized.
void quantize_job::prepare(block& b) const {
    dequantize_block(b);
    if (options_.outliers > 1) {
        plant_outliers(b, options_.outliers);
    }
}

decoder quantize_job::load() const {
    decoder model =
        options_.gguf.empty() ? load_decoder(options_.model) : load_gguf(options_.gguf, gguf_weights::floats);
    dequantize_decoder(model);
    for (block& b : model.blocks) {
        prepare(b);
    }
    return model;
}

run_report quantize_job::run() {
    auto const start = clock_type::now();
    print_warnings(options_.gguf.empty() ? decoder_file(options_.model).take_ends() : load());
    if (!evaluation_.empty()) {
        report_.float_perplexity = measure_file(options_.model, report_.model, true);
    }
    report_.float_seconds = seconds_since(start);
    io::checkpoint const original(options_.model);
    for (auto const& name : original.names()) {
        report_.float_bytes += static_cast<double>(original.at(name).bytes.size());
    }
    report_.float_times = watch_.lap();
    for (task const& t : tasks_) {
        auto const result = quantize(t);
        if (t.destination.empty() || options_.compare) { // else it is there already
            report_.results.push_back(result);
        }
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

/// The perplexity of the model in a directory, prepared as one that is quantized or as it is.
double quantize_job::measure_file(std::filesystem::path const& directory, std::string const& name, bool prepared) {
    bool const by_blocks = prepared ? options_.gguf.empty() : !is_gguf(directory);
    if (cache_ || !by_blocks) {
        return measure(prepared ? load() : load_model(directory), name);
    }
    decoder_file file(directory);
    decoder ends = file.take_ends();
    if (prepared) {
        dequantize_decoder(ends);
    }
    blocks_of_file blocks(file, [&](block& b) {
        if (prepared) {
            prepare(b);
        }
    });
    std::uint64_t const bytes = std::min<std::uint64_t>(activation_bytes_, std::uint64_t{1} << 30);
    double const result = perplexity(ends, blocks, evaluation_, window_, bytes, executor_, bar_.callback(name));
    file.expect_all_read();
    return result;
}

/// What the layers of a quantized model, or of outlines of it, take.
void quantize_job::count(decoder const& model, model_report& result) const {
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
}

model_report quantize_job::quantize(task const& t) {
    model_report result;
    result.spec = t.spec.text;
    if (t.destination.empty()) {
        quantize_whole(t, result);
    } else {
        quantize_and_save(t, result);
    }
    return result;
}

/// Quantizes a model that is not saved, in memory.
void quantize_job::quantize_whole(task const& t, model_report& result) {
    auto start = clock_type::now();
    decoder model = load();
    result.layers = quantize_by(model, t.spec, calibration_of(t), executor_, bar_.callback(t.spec.text));
    result.quantize_seconds = seconds_since(start);
    count(model, result);
    start = clock_type::now();
    if (!evaluation_.empty()) {
        result.perplexity = measure(model, t.spec.text);
    }
    result.evaluate_seconds = seconds_since(start);
    result.times = watch_.lap();
}

/// Quantizes and saves a model. From then on it is what its files say, which appear when all else is done.
void quantize_job::quantize_and_save(task const& t, model_report& result) {
    io::work_directory work(t.destination);
    saved const made = by_blocks(t) ? save_by_blocks(t, work, result) : save_whole(t, work, result);
    auto const start = clock_type::now();
    if (!evaluation_.empty()) {
        result.perplexity =
            made.model ? measure(*made.model, t.spec.text) : measure_file(work.result(), t.spec.text, false);
    }
    result.evaluate_seconds = seconds_since(start);
    result.times = watch_.lap();
    if (!options_.compare) {
        report_.results.push_back(result);
        report_.peak_bytes = peak_memory();
        write_report(report_, work.result());
    }
    work.commit(io::files_of_checkpoint(t.destination));
    say_saved(t.layout, t.destination, made.programs);
}

/// Whether a model is quantized one block at a time. All of a file of GGUF is read at once.
bool quantize_job::by_blocks(task const& t) const { return goes_by_blocks(t.spec) && options_.gguf.empty(); }

/// Quantizes one block at a time, going on where a run that was stopped has ended, and writes all to the result's
/// directory.
quantize_job::saved quantize_job::save_by_blocks(task const& t, io::work_directory& work, model_report& result) {
    auto const start = clock_type::now();
    decoder_file file(options_.model);
    decoder model = file.take_ends();
    dequantize_decoder(model);
    blocks_of_file blocks(file, [&](block& b) { prepare(b); });
    block_journal journal(work.path(), settings_of(t));
    if (journal.done() > 0) {
        std::cerr << "note: goes on where a run that was stopped has ended, after " << journal.done() << " of "
                  << file.size() << " blocks\n";
    }
    auto text = calibration_of(t);
    text.journal = &journal;
    text.scratch = work.path();
    result.layers = quantize_by(model, blocks, t.spec, text, executor_, bar_.callback(t.spec.text));
    file.expect_all_read();
    model.blocks = blocks.take_outlines();
    result.quantize_seconds = seconds_since(start);
    count(model, result);
    blocks_of_journal done(journal, model.blocks);
    write(t, model, done, work);
    file.expect_unchanged();
    return what_was_saved(t, std::move(model));
}

/// The same with the whole model in memory.
quantize_job::saved quantize_job::save_whole(task const& t, io::work_directory& work, model_report& result) {
    auto const start = clock_type::now();
    decoder model = load();
    result.layers = quantize_by(model, t.spec, calibration_of(t), executor_, bar_.callback(t.spec.text));
    result.quantize_seconds = seconds_since(start);
    count(model, result);
    blocks_in_memory blocks(model);
    write(t, model, blocks, work);
    return what_was_saved(t, std::move(model));
}

quantize_job::saved quantize_job::what_was_saved(task const& t, decoder model) const {
    std::string programs = t.layout.of.clients(model);
    return {std::move(programs), t.layout.of.is_read() ? std::nullopt : std::optional(std::move(model))};
}

/// Writes a model, of which all but the numbers of blocks is known, to the result's directory.
void quantize_job::write(task const& t, decoder& model, block_sequence& blocks, io::work_directory& work) const {
    layout const& l = t.layout.of;
    if (l.of != nullptr) {
        write_decoder(model, blocks, options_.model, work.result(), t.spec.text, l.of->id, work.path(),
                      options_.shard_bytes);
        return;
    }
    for (index_t i = 0; i < blocks.size(); ++i) { // one file is written from all of them
        block now = blocks.open(i);
        blocks.close(i);
        model.blocks[static_cast<std::size_t>(i)] = std::move(now);
    }
    l.save(model, options_.model, work.result(), t.spec.text, options_.shard_bytes);
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
