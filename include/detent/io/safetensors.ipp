// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/contract.hpp"
#include "detent/core/error.hpp"
#include "detent/core/half.hpp"
#include "detent/core/index.hpp"
#include "detent/io/json.hpp"
#include "detent/io/mapped_file.hpp"
#include "detent/io/safetensors.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE safetensors_file::safetensors_file(std::filesystem::path const& path) : file_(path) {
    auto const bytes = file_.bytes();
    if (bytes.size() < sizeof(std::uint64_t)) {
        throw error(path.string(), "is not a safetensors file: it has only " + std::to_string(bytes.size()) +
                                       " bytes, fewer than the 8 of the header length");
    }
    constexpr std::string_view pointer = "version https://git-lfs.github.com/spec/";
    if (std::string_view(reinterpret_cast<char const*>(bytes.data()), bytes.size()).starts_with(pointer)) {
        throw error(path.string(),
                    "is not the weights but a pointer of Git LFS to them: 'git lfs pull' there gets them");
    }
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    auto const rest = bytes.subspan(sizeof length);
    if (length > max_header_bytes) {
        throw error(path.string(), "is not a safetensors file: the header length " + std::to_string(length) +
                                       " exceeds the limit of " + std::to_string(max_header_bytes) + " bytes");
    }
    if (length > rest.size()) {
        throw error(path.string(), "is truncated: the header length is " + std::to_string(length) + " but only " +
                                       std::to_string(rest.size()) + " bytes follow");
    }
    std::string_view const text(reinterpret_cast<char const*>(rest.data()), static_cast<std::size_t>(length));
    if (!text.starts_with('{')) {
        throw error(path.string() + ", header", "does not start with '{'");
    }
    auto const data = rest.subspan(text.size());
    std::string const subject = path.string() + ", header";
    bool has_metadata = false;
    parse_members(text, subject, [&](std::string const& key, nlohmann::json const& value) {
        bool is_new = true;
        if (key == "__metadata__") {
            is_new = !std::exchange(has_metadata, true);
            read_metadata(value);
        } else {
            auto const before = tensors_.size();
            tensors_.emplace_hint(tensors_.end(), key, read_tensor(key, value, data)); // most files are in order
            is_new = tensors_.size() > before;
        }
        if (!is_new) {
            throw error(subject, "repeats the key '" + printable(key) + "'");
        }
    });
    check_layout(data);
}

DETENT_INLINE std::vector<std::string> safetensors_file::names() const {
    std::vector<std::string> result;
    for (auto const& [name, tensor] : tensors_) {
        result.push_back(name);
    }
    return result;
}

DETENT_INLINE tensor_view const& safetensors_file::at(std::string_view name) const {
    auto const found = tensors_.find(name);
    if (found == tensors_.end()) {
        throw error(subject_of(path(), name), "is missing");
    }
    return found->second;
}

DETENT_INLINE void safetensors_file::read_metadata(nlohmann::json const& value) {
    std::string const subject = path().string() + ", field '__metadata__'";
    if (!value.is_object()) {
        throw error(subject, "is not an object");
    }
    for (auto const& [key, text] : value.items()) {
        if (!text.is_string()) {
            throw error(subject, "the value of '" + printable(key) + "' is not a string");
        }
        metadata_.emplace(key, text.get<std::string>());
    }
}

DETENT_INLINE tensor_view safetensors_file::read_tensor(std::string const& name, nlohmann::json const& value,
                                                        std::span<std::uint8_t const> data) const {
    if (!value.is_object()) {
        throw error(subject_of(path(), name), "is not described by an object");
    }
    auto const field = [&](char const* key) -> nlohmann::json const& {
        auto const found = value.find(key);
        if (found == value.end()) {
            throw error(subject_of(path(), name, key), "is missing");
        }
        return *found;
    };
    auto const integers = [&](char const* key) {
        auto const& list = field(key);
        if (!list.is_array()) {
            throw error(subject_of(path(), name, key), "is not a list");
        }
        std::vector<index_t> result;
        for (auto const& item : list) {
            constexpr auto largest = static_cast<std::uint64_t>(std::numeric_limits<index_t>::max());
            if (!item.is_number_unsigned() || item.get<std::uint64_t>() > largest) {
                throw error(subject_of(path(), name, key),
                            "element " + std::to_string(result.size()) + " is not an integer in [0, 2^63)");
            }
            result.push_back(item.get<index_t>());
        }
        return result;
    };

    auto const& type_name = field("dtype");
    if (!type_name.is_string()) {
        throw error(subject_of(path(), name, "dtype"), "is not a string");
    }
    auto const type = parse_dtype(type_name.get_ref<std::string const&>());
    if (!type) {
        throw error(subject_of(path(), name, "dtype"),
                    "unknown type '" + printable(type_name.get_ref<std::string const&>()) + "'");
    }
    auto shape = integers("shape");
    index_t const needed = byte_size(*type, shape, [&] { return subject_of(path(), name, "shape"); });

    auto const offsets = integers("data_offsets");
    auto const subject = [&] { return subject_of(path(), name, "data_offsets"); };
    if (offsets.size() != 2) {
        throw error(subject(), "has " + std::to_string(offsets.size()) + " elements instead of 2");
    }
    index_t const begin = offsets[0];
    index_t const end = offsets[1];
    auto const range = [&] { return "[" + std::to_string(begin) + ", " + std::to_string(end) + ")"; };
    if (begin > end) {
        throw error(subject(), range() + " ends before it begins");
    }
    if (end - begin != needed) {
        throw error(subject(), range() + " holds " + std::to_string(end - begin) + " bytes, but dtype and shape need " +
                                   std::to_string(needed));
    }
    if (end > std::ssize(data)) {
        throw error(subject(), range() + " lies beyond the " + std::to_string(data.size()) +
                                   " bytes of data: the file is truncated or the offsets are wrong");
    }
    return {*type, std::move(shape), data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(needed))};
}

DETENT_INLINE void safetensors_file::check_layout(std::span<std::uint8_t const> data) const {
    struct range {
        index_t begin;
        index_t end;
        std::string const* name;
    };
    std::vector<range> ranges;
    for (auto const& [name, tensor] : tensors_) {
        index_t const begin = tensor.bytes.data() - data.data();
        ranges.push_back({begin, begin + std::ssize(tensor.bytes), &name});
    }
    std::ranges::sort(ranges, {}, [](range const& r) { return std::pair(r.begin, r.end); });
    index_t expected = 0;
    for (auto const& r : ranges) {
        if (r.begin != expected) {
            throw error(subject_of(path(), *r.name, "data_offsets"),
                        "begins at " + std::to_string(r.begin) + ", which leaves a hole or an overlap: expected " +
                            std::to_string(expected));
        }
        expected = r.end;
    }
    if (expected != std::ssize(data)) {
        throw error(path().string(), "has " + std::to_string(std::ssize(data) - expected) +
                                         " bytes after the last tensor that belong to none");
    }
}

/// @throws error that says how to convert the weights in a directory, where they are in PyTorch's own format.
DETENT_INLINE void expect_no_pytorch_files(std::filesystem::path const& directory) {
    std::vector<std::string> found;
    std::error_code ignored;
    for (auto const& entry : std::filesystem::directory_iterator(directory, ignored)) {
        std::string const name = entry.path().filename().string();
        if (name.starts_with("pytorch_model") && name.ends_with(".bin")) {
            found.push_back(name);
        }
    }
    if (!found.empty()) {
        std::string const path = directory.string();
        throw error(
            (directory / *std::ranges::min_element(found)).string(),
            "is in PyTorch's own format, which is not read. Convert it to safetensors: python3 -c \"import glob, "
            "torch; from safetensors.torch import save_file; save_file({name: x.clone().contiguous() for file in "
            "sorted(glob.glob('" +
                path +
                "/pytorch_model*.bin')) for name, x in torch.load(file, "
                "map_location='cpu', weights_only=True).items()}, '" +
                path +
                "/model.safetensors', "
                "{'format': 'pt'})\"");
    }
}

DETENT_INLINE checkpoint::checkpoint(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code ignored; // a path that cannot be examined fails below, when it is opened
    auto const single = path_ / "model.safetensors", index = path_ / "model.safetensors.index.json";
    bool const has_single = std::filesystem::exists(single, ignored);
    if (!std::filesystem::is_directory(path_, ignored)) {
        open_file(path_);
    } else if (std::filesystem::exists(index, ignored) && (!has_single || has_shards(index))) {
        open_shards(index);
        if (has_single && !std::ranges::count(files_, single, &safetensors_file::path)) {
            warnings_.push_back(single.string() + " is not read: the weights are in the files that " +
                                index.filename().string() + " names");
        }
    } else if (has_single) {
        open_file(single);
        if (std::filesystem::exists(index, ignored)) {
            warnings_.push_back(index.string() + " names files that are not there; the weights are read from " +
                                single.filename().string());
        }
    } else {
        expect_no_pytorch_files(path_);
        throw error(path_.string(), "holds neither model.safetensors nor model.safetensors.index.json");
    }
}

DETENT_INLINE std::vector<std::string> checkpoint::names() const {
    std::vector<std::string> result;
    for (auto const& [name, tensor] : tensors_) {
        result.push_back(name);
    }
    return result;
}

DETENT_INLINE tensor_view const& checkpoint::at(std::string_view name) const {
    auto const found = tensors_.find(name);
    if (found == tensors_.end()) {
        throw error(subject_of(path_, name), "is missing");
    }
    return *found->second;
}

DETENT_INLINE bool checkpoint::owns(std::span<std::uint8_t const> bytes) const noexcept {
    return std::ranges::any_of(files_, [&](safetensors_file const& f) { return f.file().owns(bytes); });
}

DETENT_INLINE void checkpoint::release(std::span<std::uint8_t const> bytes) const noexcept {
    for (auto const& f : files_) {
        f.file().release(bytes);
    }
}

DETENT_INLINE void checkpoint::release() const noexcept {
    for (auto const& f : files_) {
        f.file().release(f.file().bytes());
    }
}

DETENT_INLINE void checkpoint::expect_unchanged() const {
    for (auto const& f : files_) {
        expect_stamp(f.path(), f.file().stamp());
    }
}

DETENT_INLINE void checkpoint::open_file(std::filesystem::path const& path) {
    auto const& file = files_.emplace_back(path);
    for (auto const& [name, tensor] : file.tensors()) {
        tensors_.emplace_hint(tensors_.end(), name, &tensor);
    }
}

/// The files that an index names; empty where it is none.
DETENT_INLINE std::set<std::string> files_of_index(std::filesystem::path const& index_path) {
    auto const listing = read_json(index_path);
    auto const weight_map = listing.find("weight_map");
    std::set<std::string> names;
    if (weight_map != listing.end() && weight_map->is_object()) {
        for (auto const& value : *weight_map) {
            if (value.is_string()) {
                names.insert(value.get<std::string>());
            }
        }
    }
    return names;
}

DETENT_INLINE bool checkpoint::has_shards(std::filesystem::path const& index_path) const {
    try {
        std::error_code ignored;
        auto const exists = [&](std::string const& name) { return std::filesystem::exists(path_ / name, ignored); };
        auto const names = files_of_index(index_path);
        return !names.empty() && std::ranges::all_of(names, exists);
    } catch (error const&) {
        return false; // it is no index
    }
}

DETENT_INLINE void checkpoint::open_shards(std::filesystem::path const& index_path) {
    auto const listing = read_json(index_path);
    auto const weight_map = listing.find("weight_map");
    if (weight_map == listing.end() || !weight_map->is_object()) {
        throw error(index_path.string() + ", field 'weight_map'", "is missing or not an object");
    }
    std::map<std::string, std::size_t> opened; // file name -> position in files_
    for (auto const& [name, value] : weight_map->items()) {
        std::string const subject = subject_of(index_path, name, "weight_map");
        if (!value.is_string()) {
            throw error(subject, "is not a string");
        }
        auto const& file_name = value.get_ref<std::string const&>();
        if (file_name.empty() || file_name == "." || file_name == ".." ||
            file_name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
            throw error(subject, "'" + printable(file_name) + "' is not a plain file name");
        }
        auto const [shard, is_new] = opened.emplace(file_name, files_.size());
        if (is_new) {
            files_.emplace_back(path_ / file_name);
        }
        auto const& file = files_[shard->second];
        if (!file.contains(name)) {
            throw error(subject, "the file '" + printable(file_name) + "' does not contain this tensor");
        }
        tensors_.emplace(name, &file.at(name));
    }
}

DETENT_INLINE std::set<std::string> files_of_checkpoint(std::filesystem::path const& directory) {
    std::set<std::string> names;
    std::error_code ignored;
    std::string const index = "model.safetensors.index.json";
    if (std::filesystem::exists(directory / index, ignored)) {
        names.insert(index);
        try {
            for (auto const& name : files_of_index(directory / index)) {
                bool const plain = name.find('/') == std::string::npos;
                if (plain && name.starts_with("model-") && name.ends_with(".safetensors")) {
                    names.insert(name);
                }
            }
        } catch (error const&) { // it is no index, and names nothing
        }
    }
    names.insert("model.safetensors");
    return names;
}

} // namespace detent::inline DETENT_ABI::io
