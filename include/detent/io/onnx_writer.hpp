// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/atomic_file.hpp"

namespace detent::inline DETENT_ABI::io {

/// The bytes of a message of Protocol Buffers, in which files of ONNX are written: fields one after the other, in any
/// order. Three kinds of fields are all that these files need. Google's library would bring generated code of all of
/// ONNX's definitions, and holds a whole message in memory; here weights go from the model to the file.
class protobuf_message {
public:
    /// Adds an integer, an enumeration or a truth value.
    protobuf_message& add(int field, std::int64_t value);
    /// Adds a float.
    protobuf_message& add(int field, float value);
    /// Adds a text or bytes.
    protobuf_message& add(int field, std::string_view value);
    /// Adds a message.
    protobuf_message& add(int field, protobuf_message const& value) {
        return add(field, std::string_view(value.bytes_));
    }
    /// Adds the tag and the length of a field whose `length` bytes the caller puts behind it.
    protobuf_message& begin(int field, index_t length);

    std::string const& bytes() const { return bytes_; }

private:
    void add_varint(std::uint64_t value);

    std::string bytes_;
};

/// The types of numbers in tensors, as ONNX counts them.
enum class onnx_type : std::int64_t { f32 = 1, u8 = 2, i64 = 7, boolean = 9, f16 = 10, f64 = 11, bf16 = 16 };

/// The bytes of a number of this type.
constexpr index_t size_of(onnx_type type) {
    switch (type) {
    case onnx_type::u8:
    case onnx_type::boolean:
        return 1;
    case onnx_type::f16:
    case onnx_type::bf16:
        return 2;
    case onnx_type::f32:
        return 4;
    default:
        return 8;
    }
}

/// A setting of a node.
struct onnx_attribute {
    std::string_view name;
    std::variant<std::int64_t, float, std::vector<std::int64_t>> value;
};

/// An extent of what a graph takes or gives: a number, or the name of one that is known when it runs.
using onnx_extent = std::variant<index_t, std::string_view>;

/// Files of ONNX up to this size are one file, so that the messages of Protocol Buffers stay below their 2 GiB.
inline constexpr index_t onnx_largest_file = 2'000'000'000;

/// Tensors of a file of their own begin at multiples of this, so that they can be mapped.
inline constexpr index_t onnx_page = 4096;

/// Collects the nodes and tensors of a graph and writes them as a file of ONNX: version 8 of the format, with the
/// operators of version 17 and those that ONNX Runtime has beside them ("com.microsoft"). What is in a name is the
/// caller's business, as is whether the nodes make sense.
class onnx_writer {
public:
    /// Takes the next bytes of a tensor.
    using sink = std::function<void(std::span<std::uint8_t const>)>;
    /// Gives all bytes of a tensor, in pieces of any size; called once for each save.
    using source = std::function<void(sink const&)>;

    /// Adds a node of the operator `type` and answers the name of its one result, which begins with `scope`.
    std::string node(std::string_view type, std::vector<std::string> const& inputs, std::string_view scope = {},
                     std::vector<onnx_attribute> const& attributes = {}, std::string_view domain = {});

    /// Adds a tensor whose bytes are made when the file is written; answers its name, which is `name` but for a number
    /// where that is taken. @throws error when an extent is negative.
    std::string tensor(std::string_view name, onnx_type type, std::vector<index_t> const& shape, source bytes);

    /// Adds a tensor and keeps its numbers. @throws error as well when they are not as many as the shape says.
    std::string tensor(std::string_view name, std::vector<index_t> const& shape, std::vector<float> const& numbers);
    std::string tensor(std::string_view name, std::vector<index_t> const& shape, std::vector<double> const& numbers);
    std::string tensor(std::string_view name, std::vector<index_t> const& shape,
                       std::vector<std::int64_t> const& numbers);

    /// The tensor of one number without extents, or of a few in a row, which is added when it is first asked for.
    std::string scalar(float number);
    std::string scalar(std::int64_t number);
    std::string list(std::vector<std::int64_t> const& numbers);

    /// Names what the graph takes.
    void input(std::string_view name, onnx_type type, std::vector<onnx_extent> const& shape);

    /// Gives the result `value` of a node out as `name`.
    void output(std::string_view name, std::string const& value, onnx_type type, std::vector<onnx_extent> const& shape);

    /// Adds a line to what the file says of itself.
    void note(std::string_view key, std::string_view value);

    /// Writes or replaces a file. Where it would be larger than `largest_file`, tensors are in another beside it, of
    /// the same name with `.data` behind it. The files appear whole or not at all, that of tensors first. @throws error
    /// naming a file that cannot be written, or the tensor whose source gave too few or too many bytes.
    void save(std::filesystem::path const& path, index_t largest_file = onnx_largest_file) const;

private:
    struct stored_tensor {
        protobuf_message head; ///< name, type and shape
        std::string name;
        index_t size; ///< in bytes
        source bytes;
    };

    template <class T>
    std::string keep(std::string_view name, onnx_type type, std::vector<index_t> const& shape,
                     std::vector<T> const& numbers);
    std::string unique(std::string_view wanted);
    static std::string tensor_head(stored_tensor const& t, std::string const& data_name, index_t offset);
    static void write(stored_tensor const& t, atomic_file& file);

    protobuf_message nodes_, ends_, notes_;
    std::vector<stored_tensor> tensors_;
    std::set<std::string, std::less<>> names_;
    std::map<std::string, std::int64_t, std::less<>> taken_; ///< how often a name was wanted again
    std::map<float, std::string> scalars_;
    std::map<std::int64_t, std::string> integers_;
    std::map<std::vector<std::int64_t>, std::string> lists_;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/onnx_writer.ipp" // IWYU pragma: export
#endif
