// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/scale/scale_store.hpp"

namespace detent::inline DETENT_ABI::io {

/// Reads tensors of a checkpoint that must have a certain shape and type. Every error names checkpoint and tensor. It
/// refers to the checkpoint.
class tensor_reader {
public:
    explicit tensor_reader(checkpoint const& file) : file_(&file) {}

    checkpoint const& file() const { return *file_; }

    bool contains(std::string const& tensor) const { return file_->contains(tensor); }

    /// @throws error when there is no such tensor.
    tensor_view const& at(std::string const& tensor) const { return file_->at(tensor); }

    /// An error about a tensor, to be thrown.
    error wrong(std::string const& tensor, std::string const& problem) const;

    /// The error that a tensor has not the type that it must have.
    error wrong_type(std::string const& tensor) const;

    /// The tensor. @throws error when it has another shape.
    tensor_view const& checked(std::string const& tensor, std::vector<index_t> const& shape) const;

    /// A tensor of integers of the size of `T`.
    template <class T>
    tensor_view const& checked_integers(std::string const& tensor, std::vector<index_t> const& shape) const {
        auto const& t = checked(tensor, shape);
        dtype const byte = std::is_signed_v<T> ? dtype::i8 : dtype::u8;
        bool const right = sizeof(T) == 1   ? t.type == byte
                           : sizeof(T) == 8 ? t.type == dtype::i64 || t.type == dtype::u64
                                            : t.type == dtype::i32 || t.type == dtype::u32;
        if (!right) {
            throw wrong_type(tensor);
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

    /// The numbers of an F32, F16, BF16 or F64 tensor, all of them finite.
    std::vector<float> floats(std::string const& tensor, std::vector<index_t> const& shape,
                              bool nan_allowed = false) const;

    /// The finite numbers of an F32 tensor.
    std::vector<float> numbers(std::string const& tensor, std::vector<index_t> const& shape) const;

    /// The only number of an F32, F16 or BF16 tensor of any shape. @throws error when there are more or none.
    float number(std::string const& tensor) const;

    /// The bytes of a U8 tensor as text.
    std::string text(std::string const& tensor) const;

    /// A number that may be the unit of E4M3 scales. @throws error naming `tensor`.
    float unit(std::string const& tensor, float value) const;

    /// The numbers of `bytes`, which are scales of 8 bits of tensor `tensor`. @throws error when one means none.
    std::vector<float> scales(std::string const& tensor, scale_format format) const;

private:
    checkpoint const* file_;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/tensor_reader.ipp" // IWYU pragma: export
#endif
