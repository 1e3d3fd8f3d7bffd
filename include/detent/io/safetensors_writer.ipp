// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/io/atomic_file.hpp"
#include "detent/io/json.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/io/scratch_file.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE void safetensors_writer::keep_in_file(std::filesystem::path const& directory) {
    scratch_ = std::make_shared<scratch_file>(directory);
}

DETENT_INLINE void safetensors_writer::add(std::string const& name, dtype type, std::vector<index_t> shape,
                                           std::span<std::uint8_t const> bytes) {
    insert(name, {.view = {type, std::move(shape), bytes}, .owned = {}});
}

DETENT_INLINE void safetensors_writer::add(std::string const& name, dtype type, std::vector<index_t> shape,
                                           std::vector<std::uint8_t>&& bytes) {
    auto owned = std::make_shared<std::vector<std::uint8_t> const>(std::move(bytes));
    std::span<std::uint8_t const> const view(*owned);
    insert(name, {.view = {type, std::move(shape), view}, .owned = std::move(owned)});
}

DETENT_INLINE void safetensors_writer::save(std::filesystem::path const& path,
                                            std::map<std::string, std::string> metadata) const {
    std::vector<entry const*> all;
    for (auto const& e : tensors_) {
        all.push_back(&e);
    }
    atomic_file file(path);
    write(file, std::move(all), std::move(metadata));
    file.commit();
}

DETENT_INLINE std::vector<std::vector<safetensors_writer::entry const*>>
safetensors_writer::shards_of(index_t max_bytes) const {
    std::vector<std::vector<entry const*>> shards(1);
    index_t size_of_shard = 0;
    for (auto const& e : tensors_) {
        index_t const size = e.second.size;
        if (!shards.back().empty() && size > max_bytes - size_of_shard) {
            shards.emplace_back();
            size_of_shard = 0;
        }
        shards.back().push_back(&e);
        size_of_shard += size;
    }
    return shards;
}

DETENT_INLINE void safetensors_writer::save_checkpoint(std::filesystem::path const& directory,
                                                       index_t max_bytes_per_shard,
                                                       std::map<std::string, std::string> const& metadata) const {
    expect_option(max_bytes_per_shard > 0, "safetensors", "number of bytes of a shard", max_bytes_per_shard,
                  "positive");
    auto const shards = shards_of(max_bytes_per_shard);
    auto old = files_of_checkpoint(directory);
    std::vector<atomic_file> files;
    auto weight_map = nlohmann::json::object();
    index_t total_size = 0;
    for (std::size_t i = 0; i < shards.size(); ++i) {
        std::string file_name = "model.safetensors";
        if (shards.size() > 1) {
            std::array<char, 80> numbered{};
            std::snprintf(numbered.data(), numbered.size(), "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
            file_name = numbered.data();
        }
        for (auto const* e : shards[i]) {
            weight_map[e->first] = file_name;
            total_size += e->second.size;
        }
        auto& file = files.emplace_back(directory / file_name);
        write(file, shards[i], metadata);
        file.close();
    }
    if (shards.size() > 1) {
        nlohmann::json const listing = {{"metadata", {{"total_size", total_size}}}, {"weight_map", weight_map}};
        files.emplace_back(directory / "model.safetensors.index.json").write(listing.dump(2) + "\n");
        files.back().close();
    }
    for (auto& file : files) {
        file.commit();
        old.erase(file.path().filename().string());
    }
    for (auto const& name : old) { // which readers might take instead
        std::error_code ignored;
        std::filesystem::remove(directory / name, ignored);
    }
}

DETENT_INLINE void safetensors_writer::insert(std::string const& name, stored_tensor tensor) {
    std::string const subject = "tensor '" + printable(name) + "'";
    if (name == "__metadata__") {
        throw error(subject, "is a reserved name");
    }
    if (!is_utf8(name)) {
        throw error(subject, "the name is not valid UTF-8");
    }
    index_t const needed = byte_size(tensor.view.type, tensor.view.shape, subject);
    if (std::ssize(tensor.view.bytes) != needed) {
        throw error(subject, "has " + std::to_string(tensor.view.bytes.size()) + " bytes, but dtype and shape need " +
                                 std::to_string(needed));
    }
    auto const [added, is_new] = tensors_.try_emplace(name, std::move(tensor));
    if (!is_new) {
        throw error(subject, "was added twice");
    }
    stored_tensor& mine = added->second;
    mine.size = needed;
    if (scratch_ && needed > 0 && !(source_ != nullptr && source_->owns(mine.view.bytes))) {
        mine.offset = scratch_->size();
        scratch_->write(*mine.offset, mine.view.bytes);
        mine.view.bytes = {};
        mine.owned.reset();
    }
}

DETENT_INLINE void safetensors_writer::write_bytes(atomic_file& file, stored_tensor const& tensor) const {
    constexpr index_t step = index_t{1} << 24; // in memory at a time
    bool const copied = source_ != nullptr && source_->owns(tensor.view.bytes);
    if (!tensor.offset && !copied) {
        file.write(tensor.view.bytes);
        return;
    }
    std::vector<std::uint8_t> room;
    for (index_t at = 0; at < tensor.size; at += step) {
        auto const count = static_cast<std::size_t>(std::min(step, tensor.size - at));
        if (copied) {
            auto const part = tensor.view.bytes.subspan(static_cast<std::size_t>(at), count);
            file.write(part);
            source_->release(part);
        } else {
            room.resize(count);
            scratch_->read(*tensor.offset + static_cast<std::uint64_t>(at), room);
            file.write(room);
        }
    }
}

DETENT_INLINE bool safetensors_writer::is_utf8(std::string const& text) {
    try {
        static_cast<void>(nlohmann::json(text).dump());
        return true;
    } catch (nlohmann::json::exception const&) {
        return false;
    }
}

DETENT_INLINE void safetensors_writer::write(atomic_file& file, std::vector<entry const*> tensors,
                                             std::map<std::string, std::string> metadata) const {
    std::ranges::sort(tensors, {}, [](entry const* e) {
        return std::pair(-bit_size(e->second.view.type), std::string_view(e->first));
    });
    metadata["format"] = "pt";
    for (auto const& [key, value] : metadata) {
        if (!is_utf8(key) || !is_utf8(value)) {
            throw error(file.path().string() + ", field '__metadata__'",
                        "the entry '" + printable(key) + "' is not valid UTF-8");
        }
    }
    nlohmann::json header = {{"__metadata__", metadata}};
    index_t begin = 0;
    for (auto const* e : tensors) {
        auto const& view = e->second.view;
        index_t const end = begin + e->second.size;
        header[e->first] = {{"dtype", name(view.type)}, {"shape", view.shape}, {"data_offsets", {begin, end}}};
        begin = end;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    if (text.size() > max_header_bytes) {
        throw error(file.path().string(), "the header would have " + std::to_string(text.size()) +
                                              " bytes; the limit is " + std::to_string(max_header_bytes));
    }
    std::uint64_t const length = text.size();
    file.write(std::bit_cast<std::array<std::uint8_t, sizeof length>>(length));
    file.write(text);
    for (auto const* e : tensors) {
        write_bytes(file, e->second);
    }
}

} // namespace detent::inline DETENT_ABI::io
