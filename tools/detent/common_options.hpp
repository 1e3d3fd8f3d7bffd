// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "detent/core/thread_team.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/model_text.hpp"
#include "detent/quantizer/find_kv_format.hpp"

// What several commands ask for, each in the same words.

using paths = std::vector<std::filesystem::path>;

constexpr char const* text_help = "plain text, JSONL with a field 'text', or token ids (.u16, .u32)";

/// Adds the option for files of text, called `names`.
inline CLI::Option* add_texts(CLI::App& command, std::string const& names, paths& files, std::string const& purpose) {
    return command.add_option(names, files, purpose + ": " + text_help)->check(CLI::ExistingFile)->type_name("FILE...");
}

inline void add_tokenizer(CLI::App& command, std::filesystem::path& tokenizer) {
    command.add_option("--tokenizer", tokenizer, "directory or file of the tokenizer; default: the model's own")
        ->check(CLI::ExistingPath)
        ->type_name("PATH");
}

inline void add_window(CLI::App& command, detent::index_t& window) {
    command.add_option("--window", window, "tokens of a sequence; default: 512, or what the model can take")
        ->check(CLI::PositiveNumber)
        ->type_name("N");
}

/// The option for the size of files of weights, in bytes.
inline void add_shard_size(CLI::App& command, detent::index_t& bytes) {
    command.add_option("--shard-size", bytes, "largest file of a checkpoint's weights, such as 500MB; default: 5GB")
        ->transform(CLI::AsSizeValue(true))
        ->check(CLI::PositiveNumber)
        ->type_name("SIZE");
}

inline void add_cache(CLI::App& command, std::optional<std::string>& format) {
    command.add_option("--kv", format, "format of cached keys and values: float, f16, int8, int4:g16, ...")
        ->type_name("FORMAT");
}

/// The format that was asked for. Throws where there is none of that name.
inline std::optional<detent::kv_format> cache_of(std::optional<std::string> const& format) {
    return format ? std::optional(detent::find_kv_format(*format)) : std::nullopt;
}

inline void add_threads(CLI::App& command, detent::index_t& threads) {
    command.add_option("--threads", threads, "default: one for each processor")
        ->check(CLI::PositiveNumber)
        ->type_name("N");
}

/// The executor of so many threads, by default one for each processor.
inline auto make_executor(detent::index_t threads) {
    return detent::thread_team(threads > 0 ? threads : detent::thread_team::processors());
}

/// The tokens of a sequence that were asked for, by default 512, or what the model can take.
inline detent::index_t window_of(detent::index_t wanted, detent::model_configuration const& c) {
    return wanted > 0 ? wanted : std::min<detent::index_t>(512, c.max_positions);
}

/// Text of `model`, by its own tokenizer unless another is named.
inline detent::model_text text_of(std::filesystem::path const& model, std::filesystem::path const& tokenizer,
                                  detent::model_configuration const& c) {
    return {tokenizer.empty() ? model : tokenizer, c};
}
