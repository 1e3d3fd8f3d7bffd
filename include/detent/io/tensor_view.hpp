// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/function_ref.hpp"
#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"

namespace detent::inline DETENT_ABI::io {

static_assert(std::endian::native == std::endian::little, "safetensors data are little-endian and used in place");

/// The element types of safetensors.
enum class dtype : std::uint8_t {
    boolean,
    f4,
    f6_e2m3,
    f6_e3m2,
    u8,
    i8,
    f8_e5m2,
    f8_e4m3,
    f8_e8m0,
    f8_e4m3fnuz,
    f8_e5m2fnuz,
    i16,
    u16,
    f16,
    bf16,
    i32,
    u32,
    f32,
    c64,
    f64,
    i64,
    u64
};

/// The name of an element type in a file and its size.
struct dtype_description {
    std::string_view name;
    int bits;
};

/// Every element type, in the order of `dtype`.
inline constexpr std::array<dtype_description, 22> dtypes{
    {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
     {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
     {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
     {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}}};

/// The name of an element type in a file, such as "BF16".
constexpr std::string_view name(dtype type) { return dtypes[static_cast<std::size_t>(type)].name; }

/// The bits of one element.
constexpr int bit_size(dtype type) { return dtypes[static_cast<std::size_t>(type)].bits; }

/// The element type of that name, or nothing.
constexpr std::optional<dtype> parse_dtype(std::string_view name) {
    for (std::size_t i = 0; i < dtypes.size(); ++i) {
        if (dtypes[i].name == name) {
            return static_cast<dtype>(i);
        }
    }
    return std::nullopt;
}

/// A borrowed tensor: row-major, little-endian, at any alignment. Rank 0 is a single element.
struct tensor_view {
    dtype type = dtype::f32;
    std::vector<index_t> shape;
    std::span<std::uint8_t const> bytes;

    /// The number of elements.
    index_t size() const;
};

/// The bytes a tensor of this type and shape takes. Throws `error(subject, ...)` when an extent is negative, when the
/// product of the extents overflows, even one hidden by a zero extent, or when the elements end within a byte.
index_t byte_size(dtype type, std::span<index_t const> shape, std::string const& subject);
/// The same, with a subject that is only made for an error.
index_t byte_size(dtype type, std::span<index_t const> shape, function_ref<std::string()> subject);

/// Writes the elements of an F32, F16, BF16 or F64 tensor to `out[0 .. tensor.size())`. Other types throw `error`
/// naming the tensor and its type.
void copy_to_floats(tensor_view const& tensor, std::string const& name, float* out);

/// The elements of an F32, F16, BF16 or F64 tensor. Throws like `copy_to_floats`.
std::vector<float> to_floats(tensor_view const& tensor, std::string const& name);

/// How errors name a tensor of a file and, if given, one of its fields.
std::string subject_of(std::filesystem::path const& path, std::string_view tensor, std::string_view field = {});

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/tensor_view.ipp" // IWYU pragma: export
#endif
