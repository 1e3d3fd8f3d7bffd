// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common_options.hpp"
#include "detent/calibrate/block_journal.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/io/work_directory.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/save.hpp"
#include "layouts.hpp"
#include "report.hpp"
#include "specification.hpp"
#include "terminal.hpp"

/// What the command line asks of `detent quantize`.
struct quantize_options {
    std::filesystem::path model; // a directory
    std::filesystem::path gguf;  // a file that weights come from, or empty; `model` is then what it says beside them
    paths calibration;
    paths evaluation;
    std::filesystem::path tokenizer;
    std::filesystem::path output;
    std::string layout; // empty: chosen
    std::string client; // for which it is chosen; empty: none
    detent::index_t shard_bytes = detent::usual_shard_bytes;
    std::vector<std::string> specs;
    bool compare = false;
    bool dequantize = false;  // a quantized model is made one of floats first
    bool at_once = false;     // calibrate all layers of a block at once
    bool all_experts = false; // calibrate every expert with all tokens
    detent::index_t window = 0;
    detent::index_t calibration_windows = 128;
    detent::index_t evaluation_windows = 0; // 0: all
    std::filesystem::path learned;
    std::optional<std::string> cache; // of keys and values, to evaluate through
    std::uint64_t memory = 0;         // bytes to stay within; 0: any
    float outliers = 1;               // how much larger four planted channels of each norm are
    detent::index_t threads = 0;
};

/// A model and texts, ready to be quantized as often as there are specifications. All that can be judged without work
/// is judged by the constructor, which throws `detent::error`.
class quantize_job {
public:
    quantize_job(quantize_options const& o, detent::executor_ref executor);

    run_report run();

    /// Where the report is written; empty where nothing is saved.
    std::filesystem::path report_directory() const;

private:
    struct task {
        detent::spec spec;
        layout_choice layout;              // where it is saved
        std::filesystem::path destination; // empty where it is not
    };

    struct saved {
        std::string programs;                 // that open it
        std::optional<detent::decoder> model; // where the files cannot be read back
    };

    void plan(detent::model_configuration const& c);
    void check_destinations() const;
    void read_texts(detent::model_configuration const& c);
    void check_memory(detent::model_configuration const& c);
    void check_journals() const;
    detent::calibration calibration_of(task const& t) const;
    detent::run_settings settings_of(task const& t) const;
    detent::decoder load() const;
    void prepare(detent::block& b) const;
    double measure(detent::decoder const& model, std::string const& name);
    double measure_file(std::filesystem::path const& directory, std::string const& name, bool prepared);
    model_report quantize(task const& t);
    void quantize_whole(task const& t, model_report& result);
    void quantize_and_save(task const& t, model_report& result);
    bool by_blocks(task const& t) const;
    saved save_by_blocks(task const& t, detent::io::work_directory& work, model_report& result);
    saved save_whole(task const& t, detent::io::work_directory& work, model_report& result);
    saved what_was_saved(task const& t, detent::decoder model) const;
    void write(task const& t, detent::decoder& model, detent::block_sequence& blocks,
               detent::io::work_directory& work) const;
    void count(detent::decoder const& model, model_report& result) const;
    double replaced_bytes(detent::decoder const& model) const;

    quantize_options const& options_;
    detent::stopwatch watch_;
    detent::executor_ref executor_;
    std::vector<task> tasks_;
    std::vector<detent::nn::token_id> calibration_;
    std::vector<detent::nn::token_id> evaluation_;
    detent::index_t window_ = 0;
    std::uint64_t activation_bytes_; // of memory for the activations of all windows
    std::optional<detent::kv_format> cache_;
    progress_bar bar_;
    run_report report_;
};
