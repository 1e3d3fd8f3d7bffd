// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/calibrate/block_journal.hpp"
#include "detent/calibrate/learned_file.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/io/atomic_file.hpp"
#include "detent/io/json.hpp"
#include "detent/io/mapped_file.hpp"
#include "detent/io/text_file.hpp"
#include "detent/io/work_directory.hpp"
#include "detent/model/block_file.hpp"

namespace detent::inline DETENT_ABI {

/// What happened to a layer, as JSON and back.
DETENT_INLINE nlohmann::json to_json(layer_report const& r) {
    return {{"name", r.name},
            {"role", static_cast<int>(r.place.role)},
            {"expert", r.place.expert},
            {"shape", {r.shape.rows, r.shape.cols}},
            {"tokens", r.tokens},
            {"few_tokens", r.few_tokens},
            {"bits_per_weight", r.bits_per_weight},
            {"effective_bits", r.effective_bits},
            {"weak_columns", r.weak_columns},
            {"error", r.error},
            {"float_error", r.float_error},
            {"seconds", r.seconds},
            {"loss", r.solve.loss},
            {"damping", r.solve.damping},
            {"damping_raised", r.solve.damping_raised},
            {"dead_columns", r.solve.dead_columns},
            {"weak_missing", r.solve.weak_missing},
            {"clamped_scales", r.solve.clamped_scales},
            {"fallback", r.solve.fallback}};
}

DETENT_INLINE layer_report layer_report_of(nlohmann::json const& j) {
    layer_report r;
    auto const get = [&](char const* name, auto& value) { j.at(name).get_to(value); };
    int role = 0;
    get("name", r.name);
    get("role", role);
    r.place.role = static_cast<linear_role>(role);
    get("expert", r.place.expert);
    r.shape = {j.at("shape").at(0).get<index_t>(), j.at("shape").at(1).get<index_t>()};
    get("tokens", r.tokens);
    get("few_tokens", r.few_tokens);
    get("bits_per_weight", r.bits_per_weight);
    get("effective_bits", r.effective_bits);
    get("weak_columns", r.weak_columns);
    // A number that is not finite is null in JSON.
    auto const number = [&](char const* name, double& value) {
        value = j.at(name).is_null() ? std::numeric_limits<double>::quiet_NaN() : j.at(name).get<double>();
    };
    number("error", r.error);
    number("float_error", r.float_error);
    number("seconds", r.seconds);
    number("loss", r.solve.loss);
    number("damping", r.solve.damping);
    get("damping_raised", r.solve.damping_raised);
    get("dead_columns", r.solve.dead_columns);
    get("weak_missing", r.solve.weak_missing);
    get("clamped_scales", r.solve.clamped_scales);
    get("fallback", r.solve.fallback);
    return r;
}

/// A number that tells the contents of a file from others.
DETENT_INLINE std::string hash_of_file(std::filesystem::path const& path) {
    io::mapped_file const file(path);
    constexpr std::size_t step = std::size_t{1} << 24; // in memory at a time
    fingerprint of;
    for (std::size_t at = 0; at < file.bytes().size(); at += step) {
        auto const part = file.bytes().subspan(at, std::min(step, file.bytes().size() - at));
        of.add<std::uint8_t>(part);
        file.release(part);
    }
    return of.text();
}

DETENT_INLINE block_journal::block_journal(std::filesystem::path directory, run_settings settings)
    : directory_(std::move(directory)), settings_(std::move(settings)) {
    std::error_code ignored;
    if (std::filesystem::exists(directory_ / journal_name, ignored)) {
        open();
    }
    remove_others();
    if (blocks_.empty()) { // nothing goes on from here, and nothing is left of a run that is stopped before a block
        std::filesystem::remove(directory_ / journal_name, ignored);
    }
}

DETENT_INLINE std::filesystem::path block_journal::block_path(index_t i) const {
    return directory_ / ("block." + std::to_string(i) + ".safetensors");
}

DETENT_INLINE std::filesystem::path block_journal::file_of(std::string const& stream) const {
    return directory_ / (stream + ".f32");
}

/// @throws error naming a file that is not what was written.
DETENT_INLINE void expect_hash(std::filesystem::path const& path, std::string const& hash) {
    if (hash_of_file(path) != hash) {
        throw error(path.string(), "is damaged; remove its directory to start anew");
    }
}

DETENT_INLINE void block_journal::open() {
    auto const path = directory_ / journal_name;
    auto const json = io::read_json(path);
    run_settings found;
    try {
        json.at("settings").get_to(found);
        json.at("blocks").get_to(blocks_);
        json.at("activations").get_to(streams_);
        for (auto const& report : json.at("reports")) {
            reports_.push_back(layer_report_of(report));
        }
    } catch (nlohmann::json::exception const&) {
        throw error(path.string(), "is no journal; remove its directory to start anew");
    }
    std::set<std::string> names;
    for (auto const* all : {&found, &settings_}) {
        for (auto const& [name, value] : *all) {
            names.insert(name);
        }
    }
    for (auto const& name : names) {
        auto const text = [&](run_settings const& from) {
            auto const at = from.find(name);
            return at == from.end() ? std::string("nothing") : "'" + io::printable(at->second) + "'";
        };
        if (text(found) != text(settings_)) {
            throw error(directory_.string(), "holds a run that was stopped, with another " + name + ": " + text(found) +
                                                 ", and now " + text(settings_) +
                                                 "; start that one again, or remove the directory");
        }
    }
    // A program that was stopped while it removed a journal has left some of the files: nothing goes on from these.
    std::error_code ignored;
    bool whole = true;
    for (index_t i = 0; i < done(); ++i) {
        whole = whole && std::filesystem::exists(block_path(i), ignored);
    }
    for (auto const& [stream, hash] : streams_) {
        whole = whole && std::filesystem::exists(file_of(stream), ignored);
    }
    if (!whole) {
        blocks_.clear();
        streams_.clear();
        reports_.clear();
    }
    for (auto const& [stream, hash] : streams_) {
        expect_hash(file_of(stream), hash);
    }
}

/// Removes what the journal does not speak of.
DETENT_INLINE void block_journal::remove_others() const {
    std::set<std::filesystem::path> known{directory_ / journal_name};
    for (index_t i = 0; i < done(); ++i) {
        known.insert(block_path(i));
    }
    for (auto const& [stream, hash] : streams_) {
        known.insert(file_of(stream));
    }
    std::error_code ignored;
    for (auto const& entry : std::filesystem::directory_iterator(directory_, ignored)) {
        std::string const name = entry.path().filename().string();
        bool const ours = name.starts_with("block.") || name.ends_with(".f32");
        if (ours && !known.contains(entry.path())) {
            std::filesystem::remove(entry.path(), ignored);
        }
    }
}

DETENT_INLINE void block_journal::commit() const {
    auto reports = nlohmann::json::array();
    for (auto const& r : reports_) {
        reports.push_back(to_json(r));
    }
    nlohmann::json const json = {
        {"settings", settings_}, {"blocks", blocks_}, {"activations", streams_}, {"reports", reports}};
    io::sync_directory(directory_); // the names of what it speaks of come first
    io::write_text(directory_ / journal_name, json.dump(1) + "\n");
    io::sync_directory(directory_);
}

DETENT_INLINE void block_journal::read(index_t i, block& b) const {
    auto const path = block_path(i);
    expect_hash(path, blocks_.at(static_cast<std::size_t>(i)));
    load_block(b, path);
}

/// The rows that are written and read at a time.
DETENT_INLINE index_t rows_at_once(activation_store const& x) {
    return std::clamp<index_t>((index_t{1} << 22) / std::max<index_t>(1, x.cols()), 1, std::max<index_t>(1, x.rows()));
}

DETENT_INLINE void block_journal::read(std::string const& stream, activation_store& x) const {
    auto const path = file_of(stream);
    io::mapped_file const file(path);
    auto const row = static_cast<std::size_t>(x.cols()) * sizeof(float);
    if (!streams_.contains(stream) || file.bytes().size() != row * static_cast<std::size_t>(x.rows())) {
        throw error(path.string(), "holds the activations of another run; remove its directory to start anew");
    }
    for (index_t first = 0; first < x.rows(); first += rows_at_once(x)) {
        matrix some(std::min(rows_at_once(x), x.rows() - first), x.cols());
        auto const bytes =
            file.bytes().subspan(static_cast<std::size_t>(first) * row, static_cast<std::size_t>(some.rows()) * row);
        std::memcpy(some.data(), bytes.data(), bytes.size());
        x.write(first, some);
        file.release(bytes);
    }
}

DETENT_INLINE void block_journal::read(activation_store& quantized, activation_store& floats) const {
    std::string const after = "." + std::to_string(done());
    read("quantized" + after, quantized);
    if (!floats.empty()) {
        read("float" + after, floats);
    }
}

DETENT_INLINE std::string block_journal::write(std::string const& stream, activation_store const& x) const {
    io::atomic_file file(file_of(stream));
    for (index_t first = 0; first < x.rows(); first += rows_at_once(x)) {
        matrix room;
        matrix_view const some = x.read(first, std::min(rows_at_once(x), x.rows() - first), room);
        file.write(std::span(reinterpret_cast<std::uint8_t const*>(some.data()),
                             static_cast<std::size_t>(some.size()) * sizeof(float)));
    }
    file.commit();
    return hash_of_file(file_of(stream));
}

DETENT_INLINE void block_journal::add(block const& b, std::span<layer_report const> reports,
                                      activation_store const& quantized, activation_store const& floats) {
    auto const path = block_path(done());
    save_block(b, path, {});
    blocks_.push_back(hash_of_file(path));
    reports_.insert(reports_.end(), reports.begin(), reports.end());
    std::string const after = "." + std::to_string(done());
    std::map<std::string, std::string> streams;
    streams["quantized" + after] = write("quantized" + after, quantized);
    if (!floats.empty()) {
        streams["float" + after] = write("float" + after, floats);
    }
    streams_ = std::move(streams);
    commit();
    remove_others(); // the activations before the block
}

} // namespace detent::inline DETENT_ABI
