// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/error.hpp"
#include "detent/core/half.hpp"
#include "detent/io/json.hpp"
#include "detent/io/tensor_view.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE index_t tensor_view::size() const {
    index_t count = 1;
    for (index_t const extent : shape) {
        count *= extent;
    }
    return count;
}

DETENT_INLINE index_t byte_size(dtype type, std::span<index_t const> shape, std::string const& subject) {
    return byte_size(type, shape, [&] { return subject; });
}

DETENT_INLINE index_t byte_size(dtype type, std::span<index_t const> shape, function_ref<std::string()> subject) {
    index_t bits = bit_size(type);
    bool empty = false;
    for (index_t const extent : shape) {
        if (extent < 0) {
            throw error(subject(), "has the negative extent " + std::to_string(extent));
        }
        empty = empty || extent == 0;
        if (extent != 0 && __builtin_mul_overflow(bits, extent, &bits)) {
            throw error(subject(), "is too large: its number of bits does not fit 63 bits");
        }
    }
    if (!empty && bits % 8 != 0) {
        throw error(subject(), "does not fill whole bytes with elements of type " + std::string(name(type)));
    }
    return empty ? 0 : bits / 8;
}

/// Converts elements stored as `Stored` to float; unlike a cast pointer, memcpy reads them at any alignment.
template <typename Stored> void copy_as_floats(std::span<std::uint8_t const> bytes, float* out) {
    std::size_t const count = bytes.size() / sizeof(Stored);
    for (std::size_t i = 0; i < count; ++i) {
        Stored value;
        std::memcpy(&value, bytes.data() + i * sizeof(Stored), sizeof(Stored));
        out[i] = static_cast<float>(value);
    }
}

DETENT_INLINE void copy_to_floats(tensor_view const& tensor, std::string const& name, float* out) {
    DETENT_EXPECTS(tensor.size() * bit_size(tensor.type) == static_cast<index_t>(tensor.bytes.size()) * 8);
    switch (tensor.type) {
    case dtype::f32:
        return copy_as_floats<float>(tensor.bytes, out);
    case dtype::f16:
        return copy_as_floats<half>(tensor.bytes, out);
    case dtype::bf16:
        return copy_as_floats<bfloat16>(tensor.bytes, out);
    case dtype::f64:
        return copy_as_floats<double>(tensor.bytes, out);
    default:
        throw error("tensor '" + printable(name) + "'",
                    "has type " + std::string(io::name(tensor.type)) + "; expected F32, F16, BF16 or F64");
    }
}

DETENT_INLINE std::vector<float> to_floats(tensor_view const& tensor, std::string const& name) {
    std::vector<float> result(static_cast<std::size_t>(tensor.size()));
    copy_to_floats(tensor, name, result.data());
    return result;
}

DETENT_INLINE std::string subject_of(std::filesystem::path const& path, std::string_view tensor,
                                     std::string_view field) {
    std::string subject = path.string() + ", tensor '" + printable(tensor) + "'";
    return field.empty() ? subject : subject + ", field '" + std::string(field) + "'";
}

} // namespace detent::inline DETENT_ABI::io
