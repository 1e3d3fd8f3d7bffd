// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/io/tensor_reader.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE error tensor_reader::wrong(std::string const& tensor, std::string const& problem) const {
    return {subject_of(file_->path(), tensor), problem};
}

DETENT_INLINE error tensor_reader::wrong_type(std::string const& tensor) const {
    return wrong(tensor, "has type " + std::string(name(at(tensor).type)));
}

DETENT_INLINE tensor_view const& tensor_reader::checked(std::string const& tensor,
                                                        std::vector<index_t> const& shape) const {
    auto const& t = at(tensor);
    if (t.shape != shape) {
        std::string expected;
        for (index_t const n : shape) {
            expected += (expected.empty() ? "" : ", ") + std::to_string(n);
        }
        throw wrong(tensor, "must have the shape (" + expected + ")");
    }
    return t;
}

DETENT_INLINE std::vector<float> tensor_reader::floats(std::string const& tensor, std::vector<index_t> const& shape,
                                                       bool nan_allowed) const {
    auto values = to_floats(checked(tensor, shape), tensor);
    if (!std::ranges::all_of(values, [&](float v) { return std::isfinite(v) || (nan_allowed && std::isnan(v)); })) {
        throw wrong(tensor, "holds a value that is not finite");
    }
    return values;
}

DETENT_INLINE std::vector<float> tensor_reader::numbers(std::string const& tensor,
                                                        std::vector<index_t> const& shape) const {
    if (checked(tensor, shape).type != dtype::f32) {
        throw wrong_type(tensor);
    }
    return floats(tensor, shape);
}

DETENT_INLINE float tensor_reader::number(std::string const& tensor) const {
    auto const& t = at(tensor);
    if (t.size() != 1) {
        throw wrong(tensor, "must have one element");
    }
    return floats(tensor, t.shape).front();
}

DETENT_INLINE std::string tensor_reader::text(std::string const& tensor) const {
    auto const& letters = at(tensor).shape;
    if (letters.size() != 1) {
        throw wrong(tensor, "is no text");
    }
    auto const bytes = integers<std::uint8_t>(tensor, letters);
    return {bytes.begin(), bytes.end()};
}

DETENT_INLINE float tensor_reader::unit(std::string const& tensor, float value) const {
    if (!(value >= unit_limits::lowest && value <= unit_limits::highest)) {
        throw wrong(tensor, "must be a number from 2^-117 to 2^119");
    }
    return value;
}

DETENT_INLINE std::vector<float> tensor_reader::scales(std::string const& tensor, scale_format format) const {
    auto const& bytes = at(tensor).bytes;
    std::vector<float> values(bytes.size());
    std::ranges::transform(bytes, values.begin(), [&](std::uint8_t byte) { return scale_of(format, byte); });
    if (std::ranges::any_of(values, [](float s) { return std::isnan(s); })) {
        throw wrong(tensor, "holds a scale that is no positive number");
    }
    return values;
}

} // namespace detent::inline DETENT_ABI::io
