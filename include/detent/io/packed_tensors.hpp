// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// How a packed matrix is spread over the tensors of a checkpoint.
enum class packed_layout {
    gptq_v1, ///< AutoGPTQ's, with zero points stored minus one: only read
    gptq_v2, ///< GPTQModel's
    owq,     ///< OWQ's: whole rows, and weak columns
    detent   ///< any grid; see docs/file_format.md
};

/// The bytes of a vector of trivially copyable elements.
template <class T> std::vector<std::uint8_t> bytes_of(std::vector<T> const& values) {
    std::vector<std::uint8_t> bytes(values.size() * sizeof(T));
    if (!bytes.empty()) {
        std::memcpy(bytes.data(), values.data(), bytes.size());
    }
    return bytes;
}

/// The scales as `format` stores them.
std::vector<std::uint8_t> scale_bytes(std::span<float const> scales, scale_format format);

/// The element type of scales stored in `format`.
constexpr dtype dtype_of(scale_format format) {
    switch (format.kind) {
    case scale_kind::f16:
        return dtype::f16;
    case scale_kind::bf16:
        return dtype::bf16;
    case scale_kind::f32:
        break;
    case scale_kind::e8m0:
        return dtype::f8_e8m0;
    case scale_kind::ue4m3:
        return dtype::f8_e4m3;
    }
    return dtype::f32;
}

/// The zero point that the symmetric integer grids have in GPTQ's layout, or 0 for the grids with a zero point; -1 when
/// the numbers are no consecutive integers from there on.
int integer_offset(std::span<float const> table);

/// The codes of a linear packing of `shape` with stored column k at column `position[k]`.
buffer move_columns(int bits, extents shape, std::uint8_t const* bytes, std::vector<std::int32_t> const& position);

/// The input that stored column `k` meets, for a map that is a permutation or empty.
index_t natural(input_map const& map, index_t k);

/// The codes as GPTQ's and OWQ's `qweight` (in * bits / 32, out), inputs in their natural order.
std::vector<std::uint8_t> code_words(packed_matrix const& w);

/// The bytes of codes in linear packing.
std::vector<std::uint8_t> linear_bytes(int bits, extents shape, std::vector<code> const& codes);

/// Codes of `shape` from linear packing.
std::vector<code> linear_codes(int bits, extents shape, std::span<std::uint8_t const> bytes);

/// Whether all zero points are integers within the codes, as products of rounded inputs take them to be. Those of
/// matrices that were read from files of ggml may be any numbers, which only products of floats and detent's own layout
/// take.
bool has_integer_zeros(packed_matrix const& w);

/// Why neither GPTQ's nor OWQ's layout can hold the grid or the tiles of `w`; empty when they can.
std::string integer_obstacle(packed_matrix const& w);

/// Why GPTQ's layout cannot hold `w`; empty when it can.
std::string gptq_obstacle(packed_matrix const& w);

/// Adds the tensors of layer `name` in GPTQ's v2 layout. `w` has no `gptq_obstacle`.
void add_gptq(safetensors_writer& file, std::string const& name, packed_matrix const& w);

/// Why OWQ's layout cannot hold `w`; empty when it can.
std::string owq_obstacle(packed_matrix const& w);

/// Adds the tensors of layer `name` in OWQ's layout; it borrows the weak columns. `w` has no `owq_obstacle`.
void add_owq(safetensors_writer& file, std::string const& name, packed_matrix const& w);

/// Adds a tensor for each step of what happens to the inputs of layer `name`, numbered from 0.
void add_map(safetensors_writer& file, std::string const& name, input_map const& map);

/// Adds the tensors of layer `name` in detent's own layout, which holds any packed matrix; it borrows the codes and
/// weak columns.
void add_packed(safetensors_writer& file, std::string const& name, packed_matrix const& w);

/// How a layer's input is rounded, as files of detent's own layout say it.
struct stored_input {
    std::string grid;               ///< its name
    std::vector<float> scales = {}; ///< of each group of inputs, the same for all tokens; empty where tokens get theirs
    std::vector<float> zeros = {};  ///< the zero points beside these scales; empty for grids without
    std::vector<std::int8_t> shifts = {}; ///< of each input; empty for none
    index_t width = 0;                    ///< consecutive inputs that share a scale, 0 for all; the last may be fewer
    scale_kind kind = scale_kind::f32;    ///< how the scales that tokens get are stored
    std::optional<float> unit = {};       ///< of E4M3 scales; none where tokens have their own

    /// Scales of a token of `in` inputs.
    index_t groups(index_t in) const { return width == 0 || in == 0 ? 1 : ceil_div(in, width); }
};

/// Adds the tensors that say how the input of layer `name` is rounded.
void add_input(safetensors_writer& file, std::string const& name, stored_input const& input);

/// Reads packed matrices back from a checkpoint, in any layout. Every error names the tensor.
class packed_reader {
public:
    /// `layout` says what names cannot: how tensors in GPTQ's layout store their zero points, and whether layers
    /// without weak columns are OWQ's.
    explicit packed_reader(checkpoint const& file, packed_layout layout = packed_layout::gptq_v2);

    /// Whether layer `name` is stored packed.
    bool contains(std::string const& name) const;

    /// Layer `name` of this shape. @throws error when a tensor is missing, has another shape or makes no sense.
    packed_matrix read(std::string const& name, extents shape) const;

    /// How the input of layer `name`, `in` numbers wide, is rounded; nothing where it is not. Scales are positive and
    /// finite, zero points finite, shifts are 0 to 15; whether there is such a grid is not looked at. @throws error
    /// when a tensor lacks another that it needs, has another shape or makes no sense, and when there is one in any
    /// layout but detent's.
    std::optional<stored_input> input(std::string const& name, index_t in) const;

private:
    /// Whether there is this tensor of a rounded input, which needs another. @throws error when it may not be there.
    bool has_input(std::string const& tensor, std::string const& needed) const;

    /// How the scales that tokens of layer `name` get are stored.
    scale_kind scale_type(std::string const& name) const;

    packed_matrix read_gptq(std::string const& name, extents shape) const;

    packed_matrix read_owq(std::string const& name, extents shape) const;

    /// The bits of the codes of a `qweight`, from its shape.
    int bits_of_words(std::string const& name, extents shape) const;

    /// What happens to the `in` inputs of layer `name`, from the tensors of its steps.
    input_map map(std::string const& name, index_t in) const;

    /// The tensors that there are of step `i` of the map of layer `name`: each kind of step has another.
    std::vector<std::string> map_tensors(std::string const& name, index_t i) const;

    error does_not_hold(std::string const& name, extents shape) const;

    /// A matrix of integers from 0 on, still without codes and scales.
    static packed_matrix integer_matrix(int bits, extents shape);

    /// The codes of a `qweight` as a `packed_matrix` has them, inputs in their natural order.
    static buffer linear_of_words(int bits, extents shape, std::span<std::uint8_t const> words);

    /// The shape of a tensor of `n` elements that may be a column.
    static std::vector<index_t> column(tensor_view const& t, index_t n);

    /// Reads the weak columns of `w`, which has its codes, where there are any. Old files of OWQ `may_be_transposed`.
    void read_weak(packed_matrix& w, std::string const& positions, std::string const& numbers, std::string const& codes,
                   bool may_be_transposed) const;

    packed_matrix read_detent(std::string const& name, extents shape) const;

    error wrong(std::string const& tensor, std::string const& problem) const;

    tensor_view const& checked(std::string const& tensor, std::vector<index_t> const& shape) const;

    /// A tensor of integers of the size of `T`.
    template <class T>
    tensor_view const& checked_integers(std::string const& tensor, std::vector<index_t> const& shape) const {
        auto const& t = checked(tensor, shape);
        dtype const byte = std::is_signed_v<T> ? dtype::i8 : dtype::u8;
        bool const right = sizeof(T) == 1 ? t.type == byte : t.type == dtype::i32 || t.type == dtype::u32;
        if (!right) {
            throw wrong(tensor, "has type " + std::string(io::name(t.type)));
        }
        return t;
    }

    template <class T> std::vector<T> integers(std::string const& tensor, std::vector<index_t> const& shape) const {
        auto const& t = checked_integers<T>(tensor, shape);
        std::vector<T> values(t.bytes.size() / sizeof(T));
        if (!values.empty()) {
            std::memcpy(values.data(), t.bytes.data(), t.bytes.size());
        }
        return values;
    }

    std::vector<float> floats(std::string const& tensor, std::vector<index_t> const& shape,
                              bool nan_allowed = false) const;

    /// The finite numbers of an F32 tensor.
    std::vector<float> numbers(std::string const& tensor, std::vector<index_t> const& shape) const;

    /// The bytes of a U8 tensor as text.
    std::string text(std::string const& tensor) const;

    /// The unit of E4M3 scales.
    float scale_unit(std::string const& tensor) const;

    static float_format format_of(dtype type);

    /// The format of the scales of this type of layer `name` in detent's layout.
    scale_format scale_format_of(std::string const& name, dtype type) const;

    checkpoint const& file_;
    packed_layout layout_;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/packed_tensors.ipp" // IWYU pragma: export
#endif
