// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// A type of the tensors in GGUF files: numbers, or blocks of codes with their scales. All that is particular to a type
/// is its entry in `ggml_types()`.
struct ggml_type {
    std::uint32_t id;      ///< in files
    std::string_view name; ///< ggml's, in capitals, such as "Q4_0" or "Q4_K"
    index_t block_codes;   ///< numbers of a block, of which a row has several; 1 for plain numbers
    index_t block_bytes;
    std::optional<dtype> plain = {}; ///< of plain numbers, their type in safetensors files

    /// Of codes that are read: the matrix `shape` (out, in) of whole blocks at `blocks`, row after row, exactly. What
    /// blocks add to weights (Q4_1, Q5_1, Q2_K, Q4_K, Q5_K) becomes zero points, which give the weights but for
    /// rounding of floats, and which are integers only in matrices that `write` has written (`has_integer_zeros`).
    /// Scales of two levels are f32. Null for types that are not read as a packed matrix. @throws error naming the
    /// block where a scale is no finite number.
    packed_matrix (*read)(std::uint8_t const* blocks, extents shape) = nullptr;

    /// Of codes that are written: why such blocks cannot hold a matrix, as the end of a sentence, and empty when they
    /// can. It asks for the width of codes, whole blocks in a row, tiles of whole blocks, numbers, zero points, the
    /// numbers that scales are, an empty map and no weak columns. A matrix of one row tells of a larger one.
    std::string (*obstacle_of)(packed_matrix const& w) = nullptr;

    /// Of codes that are written: rows [first, last) of `w`, which has no obstacle, at `blocks`. Codes and scales are
    /// those of `w` to the bit; what Q4_1 and Q5_1 add, zero points times scales, is rounded to f16. NVFP4 stores
    /// scales over their unit, which is another tensor's business.
    void (*write)(packed_matrix const& w, index_t first, index_t last, std::uint8_t* blocks) = nullptr;

    /// Why this type cannot hold `w` to the bit, as the end of a sentence; empty when it can.
    std::string obstacle(packed_matrix const& w) const;

    /// The bytes of a tensor of that shape, whose last extent is that of a row. @throws error about `subject` when an
    /// extent is negative, a row is not of whole blocks, or the bytes do not fit 63 bits.
    index_t bytes(std::span<index_t const> shape, std::string const& subject) const;
};

/// All types that are known, with those that are neither read nor written.
std::span<ggml_type const> ggml_types();

/// The type of that number in files; null if there is none.
ggml_type const* find_ggml_type(std::uint32_t id);

/// The type of that name. @throws error when there is none.
ggml_type const& ggml_type_named(std::string_view name);

/// Gives E4M3 scales that were read from NVFP4 blocks, in units of 1, the unit that files have in a tensor of its own.
/// @throws error when the scales are others or there can be no such unit.
void set_scale_unit(packed_matrix& w, float unit);

/// The weights (last - first, in) of rows [first, last) of a matrix without a map and weak columns, as GGUF files have
/// it, row after row.
void copy_to_floats(packed_matrix const& w, index_t first, index_t last, float* out);

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/ggml_type.ipp" // IWYU pragma: export
#endif
