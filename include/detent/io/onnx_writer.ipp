// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/io/atomic_file.hpp"
#include "detent/io/onnx_writer.hpp"

namespace detent::inline DETENT_ABI::io {

// The numbers of fields are those of onnx.proto.

DETENT_INLINE void protobuf_message::add_varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
        bytes_ += static_cast<char>(static_cast<unsigned char>(value | 0x80));
    }
    bytes_ += static_cast<char>(static_cast<unsigned char>(value));
}

DETENT_INLINE protobuf_message& protobuf_message::add(int field, std::int64_t value) {
    add_varint(static_cast<std::uint64_t>(field) << 3);
    add_varint(static_cast<std::uint64_t>(value));
    return *this;
}

DETENT_INLINE protobuf_message& protobuf_message::add(int field, float value) {
    add_varint(static_cast<std::uint64_t>(field) << 3 | 5);
    bytes_.append(reinterpret_cast<char const*>(&value), sizeof value);
    return *this;
}

DETENT_INLINE protobuf_message& protobuf_message::begin(int field, index_t length) {
    add_varint(static_cast<std::uint64_t>(field) << 3 | 2);
    add_varint(static_cast<std::uint64_t>(length));
    return *this;
}

DETENT_INLINE protobuf_message& protobuf_message::add(int field, std::string_view value) {
    begin(field, std::ssize(value));
    bytes_ += value;
    return *this;
}

DETENT_INLINE std::string onnx_writer::unique(std::string_view wanted) {
    std::string name(wanted);
    while (!names_.insert(name).second) {
        name = std::string(wanted) + "_" + std::to_string(++taken_[std::string(wanted)]);
    }
    return name;
}

/// A setting of a node as its message.
inline protobuf_message onnx_attribute_message(onnx_attribute const& a) {
    protobuf_message message;
    message.add(1, a.name);
    std::visit(
        [&]<class T>(T const& value) {
            if constexpr (std::is_same_v<T, float>) {
                message.add(2, value).add(20, std::int64_t{1});
            } else if constexpr (std::is_same_v<T, std::int64_t>) {
                message.add(3, value).add(20, std::int64_t{2});
            } else {
                for (auto const one : value) {
                    message.add(8, one);
                }
                message.add(20, std::int64_t{7});
            }
        },
        a.value);
    return message;
}

DETENT_INLINE std::string onnx_writer::node(std::string_view type, std::vector<std::string> const& inputs,
                                            std::string_view scope, std::vector<onnx_attribute> const& attributes,
                                            std::string_view domain) {
    std::string const name = unique(std::string(scope) + (scope.empty() ? "" : "/") + std::string(type));
    protobuf_message message;
    for (auto const& input : inputs) {
        message.add(1, std::string_view(input));
    }
    message.add(2, std::string_view(name)).add(3, std::string_view(name)).add(4, type);
    for (auto const& attribute : attributes) {
        message.add(5, onnx_attribute_message(attribute));
    }
    if (!domain.empty()) {
        message.add(7, domain);
    }
    nodes_.add(1, message);
    return name;
}

DETENT_INLINE std::string onnx_writer::tensor(std::string_view name, onnx_type type, std::vector<index_t> const& shape,
                                              source bytes) {
    std::string const given = unique(name);
    protobuf_message head;
    index_t size = size_of(type);
    for (index_t const extent : shape) {
        if (extent < 0) {
            throw error("tensor '" + given + "'", "has a negative extent");
        }
        head.add(1, std::int64_t{extent});
        size *= extent;
    }
    head.add(2, static_cast<std::int64_t>(type)).add(8, std::string_view(given));
    tensors_.push_back({std::move(head), given, size, std::move(bytes)});
    return given;
}

template <class T>
std::string onnx_writer::keep(std::string_view name, onnx_type type, std::vector<index_t> const& shape,
                              std::vector<T> const& numbers) {
    auto const kept = std::make_shared<std::vector<T> const>(numbers);
    std::span const bytes(reinterpret_cast<std::uint8_t const*>(kept->data()), kept->size() * sizeof(T));
    auto given = tensor(name, type, shape, [kept, bytes](sink const& to) { to(bytes); });
    if (tensors_.back().size != std::ssize(bytes)) {
        throw error("tensor '" + given + "'", "has other numbers than its shape says");
    }
    return given;
}

DETENT_INLINE std::string onnx_writer::tensor(std::string_view name, std::vector<index_t> const& shape,
                                              std::vector<float> const& numbers) {
    return keep(name, onnx_type::f32, shape, numbers);
}

DETENT_INLINE std::string onnx_writer::tensor(std::string_view name, std::vector<index_t> const& shape,
                                              std::vector<double> const& numbers) {
    return keep(name, onnx_type::f64, shape, numbers);
}

DETENT_INLINE std::string onnx_writer::tensor(std::string_view name, std::vector<index_t> const& shape,
                                              std::vector<std::int64_t> const& numbers) {
    return keep(name, onnx_type::i64, shape, numbers);
}

DETENT_INLINE std::string onnx_writer::scalar(float number) {
    auto& name = scalars_[number];
    return name.empty() ? name = tensor("number", {}, std::vector<float>{number}) : name;
}

DETENT_INLINE std::string onnx_writer::scalar(std::int64_t number) {
    auto& name = integers_[number];
    return name.empty() ? name = tensor("integer", {}, std::vector<std::int64_t>{number}) : name;
}

DETENT_INLINE std::string onnx_writer::list(std::vector<std::int64_t> const& numbers) {
    auto& name = lists_[numbers];
    return name.empty() ? name = tensor("list", {std::ssize(numbers)}, numbers) : name;
}

/// The message of what a graph takes or gives.
inline protobuf_message onnx_value_message(std::string_view name, onnx_type type,
                                           std::vector<onnx_extent> const& extents) {
    protobuf_message shape;
    for (auto const& extent : extents) {
        protobuf_message dimension;
        if (auto const* const number = std::get_if<index_t>(&extent)) {
            dimension.add(1, std::int64_t{*number});
        } else {
            dimension.add(2, std::get<std::string_view>(extent));
        }
        shape.add(1, dimension);
    }
    protobuf_message const tensor = protobuf_message().add(1, static_cast<std::int64_t>(type)).add(2, shape);
    return protobuf_message().add(1, name).add(2, protobuf_message().add(1, tensor));
}

DETENT_INLINE void onnx_writer::input(std::string_view name, onnx_type type, std::vector<onnx_extent> const& shape) {
    ends_.add(11, onnx_value_message(unique(name), type, shape));
}

DETENT_INLINE void onnx_writer::output(std::string_view name, std::string const& value, onnx_type type,
                                       std::vector<onnx_extent> const& shape) {
    std::string const given = unique(name);
    nodes_.add(1, protobuf_message()
                      .add(1, std::string_view(value))
                      .add(2, std::string_view(given))
                      .add(3, std::string_view(given))
                      .add(4, std::string_view("Identity")));
    ends_.add(12, onnx_value_message(given, type, shape));
}

DETENT_INLINE void onnx_writer::note(std::string_view key, std::string_view value) {
    notes_.add(14, protobuf_message().add(1, key).add(2, value));
}

/// The message that says that `version` of the operators of `domain` is meant.
inline protobuf_message onnx_operators(std::string_view domain, std::int64_t version) {
    return protobuf_message().add(1, domain).add(2, version);
}

/// The entry of a tensor's message that says `key` of where its bytes are.
inline protobuf_message onnx_place(std::string_view key, std::string const& value) {
    return protobuf_message().add(1, key).add(2, std::string_view(value));
}

/// All of a file that is before its graph.
inline std::string onnx_start(protobuf_message const& notes) {
    protobuf_message start;
    start.add(1, std::int64_t{8}).add(2, std::string_view("detent"));
    start.add(8, onnx_operators("", 17)).add(8, onnx_operators("com.microsoft", 1));
    return start.bytes() + notes.bytes();
}

DETENT_INLINE void onnx_writer::save(std::filesystem::path const& path, index_t largest_file) const {
    index_t size = std::ssize(nodes_.bytes());
    for (auto const& t : tensors_) {
        size += std::ssize(t.head.bytes()) + t.size + 32;
    }
    std::filesystem::path data_path = path;
    data_path += ".data";
    // Where shapes are worked out, only what is in the file itself is read.
    constexpr index_t smallest_apart = 1024;
    bool const two_files = size > largest_file;
    auto const is_apart = [&](stored_tensor const& t) { return two_files && t.size >= smallest_apart; };
    auto const data_name = data_path.filename().string();
    std::vector<std::string> heads; // of tensors: all but the bytes that follow in this file
    index_t length = 0;             // of all tensors in this file
    index_t end = 0;                // of what is in the other file
    for (auto const& t : tensors_) {
        heads.push_back(tensor_head(t, is_apart(t) ? data_name : std::string(), end));
        length += std::ssize(heads.back()) + (is_apart(t) ? 0 : t.size);
        end += is_apart(t) ? ceil_div(t.size, onnx_page) * onnx_page : 0;
    }
    std::string const graph = nodes_.bytes() + protobuf_message().add(2, std::string_view("decoder")).bytes() +
                              ends_.bytes(); // a graph has a name
    auto data = two_files ? std::optional<atomic_file>(std::in_place, data_path) : std::nullopt;
    atomic_file file(path);
    file.write(onnx_start(notes_) + protobuf_message().begin(7, std::ssize(graph) + length).bytes());
    file.write(graph);
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        file.write(heads[i]);
        bool const apart = is_apart(tensors_[i]);
        write(tensors_[i], apart ? *data : file);
        if (apart) {
            index_t const gap = (onnx_page - tensors_[i].size % onnx_page) % onnx_page;
            data->write(std::string(static_cast<std::size_t>(gap), '\0'));
        }
    }
    if (two_files) {
        data->commit();
    }
    file.commit();
    if (std::error_code ignored; !two_files) { // of an earlier file of this name
        std::filesystem::remove(data_path, ignored);
    }
}

DETENT_INLINE std::string onnx_writer::tensor_head(stored_tensor const& t, std::string const& data_name,
                                                   index_t offset) {
    protobuf_message head = t.head;
    if (!data_name.empty()) {
        head.add(13, onnx_place("location", data_name)).add(13, onnx_place("offset", std::to_string(offset)));
        head.add(13, onnx_place("length", std::to_string(t.size))).add(14, std::int64_t{1});
        return protobuf_message().add(5, head).bytes();
    }
    head.begin(9, t.size);
    return protobuf_message().begin(5, std::ssize(head.bytes()) + t.size).bytes() + head.bytes();
}

DETENT_INLINE void onnx_writer::write(stored_tensor const& t, atomic_file& file) {
    index_t written = 0;
    t.bytes([&](std::span<std::uint8_t const> bytes) {
        written += std::ssize(bytes);
        file.write(bytes);
    });
    if (written != t.size) {
        throw error("tensor '" + t.name + "'", "has other bytes than its shape says");
    }
}

} // namespace detent::inline DETENT_ABI::io
