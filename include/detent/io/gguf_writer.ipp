// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/io/atomic_file.hpp"
#include "detent/io/gguf_file.hpp"
#include "detent/io/gguf_metadata.hpp"
#include "detent/io/gguf_writer.hpp"
#include "detent/io/json.hpp"

namespace detent::inline DETENT_ABI::io {

/// How an error of the writer names a tensor.
inline std::string gguf_tensor_subject(std::string const& name) { return "tensor '" + printable(name) + "'"; }

/// @throws error unless a tensor has the bytes that its type and shape need.
inline void expect_size(index_t needed, index_t bytes, std::string const& name) {
    if (bytes != needed) {
        throw error(gguf_tensor_subject(name),
                    "has " + std::to_string(bytes) + " bytes, but type and shape need " + std::to_string(needed));
    }
}

/// Appends the bytes of a number.
template <class T> void append_number(std::string& to, T number) {
    to.append(reinterpret_cast<char const*>(&number), sizeof number);
}

/// Appends the length and the bytes of a text.
inline void append_text(std::string& to, std::string const& text) {
    append_number(to, std::uint64_t{text.size()});
    to += text;
}

/// Appends type and value of an entry of the metadata.
inline void append_value(std::string& to, gguf_value const& value) {
    auto const append = [&]<class T>(T const& one) {
        if constexpr (std::is_same_v<T, std::string>) {
            append_text(to, one);
        } else {
            append_number(to, one);
        }
    };
    std::size_t const place = value.index();
    bool const is_array = place >= gguf_scalar_types;
    if (is_array) {
        append_number(to, gguf_array_id);
    }
    append_number(to, gguf_id_of(place % gguf_scalar_types));
    std::visit(
        [&]<class T>(T const& v) {
            if constexpr (requires { typename T::allocator_type; } && !std::is_same_v<T, std::string>) {
                append_number(to, std::uint64_t{v.size()});
                for (typename T::value_type const& one : v) {
                    append(one);
                }
            } else {
                append(v);
            }
        },
        value);
}

DETENT_INLINE void gguf_writer::add(std::string name, ggml_type const& type, std::vector<index_t> shape, source bytes) {
    std::string const subject = gguf_tensor_subject(name);
    if (name.empty() || name.size() > 63) {
        throw error(subject, "has a name of " + std::to_string(name.size()) + " bytes; those of ggml have 1 to 63");
    }
    if (shape.size() > 4) {
        throw error(subject, "has " + std::to_string(shape.size()) + " extents; the most are 4");
    }
    index_t const size = type.bytes(shape, subject);
    if (!names_.insert(name).second) {
        throw error(subject, "was added twice");
    }
    tensors_.push_back({std::move(name), &type, std::move(shape), size, std::move(bytes)});
}

DETENT_INLINE void gguf_writer::add(std::string name, ggml_type const& type, std::vector<index_t> shape,
                                    std::span<std::uint8_t const> bytes) {
    expect_size(type.bytes(shape, gguf_tensor_subject(name)), std::ssize(bytes), name);
    add(std::move(name), type, std::move(shape), source([bytes](sink const& to) { to(bytes); }));
}

DETENT_INLINE void gguf_writer::add(std::string name, ggml_type const& type, std::vector<index_t> shape,
                                    std::vector<std::uint8_t>&& bytes) {
    auto const kept = std::make_shared<std::vector<std::uint8_t> const>(std::move(bytes));
    expect_size(type.bytes(shape, gguf_tensor_subject(name)), std::ssize(*kept), name);
    add(std::move(name), type, std::move(shape), source([kept](sink const& to) { to(*kept); }));
}

DETENT_INLINE void gguf_writer::add(std::string name, ggml_type const& type, packed_matrix const& w) {
    if (auto const obstacle = type.obstacle(w); !obstacle.empty()) {
        throw error(gguf_tensor_subject(name), "cannot be of type " + std::string(type.name) + ": " + obstacle);
    }
    expect_complete(w);
    add(std::move(name), type, {w.shape().rows, w.shape().cols}, source([&type, &w](sink const& to) {
            auto const [rows, cols] = w.shape();
            index_t const row_bytes = cols / type.block_codes * type.block_bytes;
            index_t const step = std::max<index_t>(1, (index_t{1} << 20) / std::max<index_t>(row_bytes, 1));
            std::vector<std::uint8_t> blocks(static_cast<std::size_t>(std::min(step, rows) * row_bytes));
            for (index_t row = 0; row < rows; row += step) {
                index_t const last = std::min(row + step, rows);
                type.write(w, row, last, blocks.data());
                to(std::span(blocks).first(static_cast<std::size_t>((last - row) * row_bytes)));
            }
        }));
}

DETENT_INLINE index_t gguf_writer::alignment() const {
    constexpr char const* key = "general.alignment";
    if (!metadata_.contains(key)) {
        return gguf_alignment;
    }
    auto const alignment = metadata_.get<std::uint32_t>(key);
    expect_option(std::has_single_bit(alignment) && alignment <= 1U << 20, "GGUF", key, alignment,
                  "a power of two up to 2^20");
    return alignment;
}

DETENT_INLINE std::string gguf_writer::header(index_t alignment) const {
    std::string bytes = "GGUF";
    append_number(bytes, std::uint32_t{3});
    append_number(bytes, std::uint64_t{tensors_.size()});
    append_number(bytes, std::uint64_t{metadata_.entries().size()});
    for (auto const& [key, value] : metadata_.entries()) {
        append_text(bytes, key);
        append_value(bytes, value);
    }
    index_t offset = 0;
    for (auto const& tensor : tensors_) {
        append_text(bytes, tensor.name);
        append_number(bytes, static_cast<std::uint32_t>(tensor.shape.size()));
        std::for_each(tensor.shape.rbegin(), tensor.shape.rend(),
                      [&](index_t extent) { append_number(bytes, static_cast<std::uint64_t>(extent)); });
        append_number(bytes, tensor.type->id);
        append_number(bytes, static_cast<std::uint64_t>(offset));
        offset += ceil_div(tensor.size, alignment) * alignment;
    }
    return bytes;
}

DETENT_INLINE void gguf_writer::save(std::filesystem::path const& path) const {
    index_t const step = alignment();
    std::string const gap(static_cast<std::size_t>(step), '\0');
    atomic_file file(path);
    auto const fill_up = [&](index_t written) {
        file.write(std::string_view(gap).substr(0, static_cast<std::size_t>((step - written % step) % step)));
    };
    std::string const start = header(step);
    file.write(start);
    fill_up(std::ssize(start));
    for (auto const& tensor : tensors_) {
        index_t written = 0;
        tensor.bytes([&](std::span<std::uint8_t const> bytes) {
            written += std::ssize(bytes);
            file.write(bytes);
        });
        expect_size(tensor.size, written, tensor.name);
        fill_up(tensor.size);
    }
    file.commit();
}

} // namespace detent::inline DETENT_ABI::io
