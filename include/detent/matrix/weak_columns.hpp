// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "detent/core/buffer.hpp"
#include "detent/core/contract.hpp"
#include "detent/core/error.hpp"
#include "detent/core/finite.hpp"
#include "detent/core/half.hpp"
#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI {

/// Borrowed weak columns, as a kernel sees them: number k, row r is at `values + (k * rows + r) * bits_of(format) / 8`,
/// at any address. Nothing is read after the last.
struct weak_view {
    index_t count = 0;
    std::int32_t const* columns = nullptr; ///< stored columns, ascending
    std::uint8_t const* values = nullptr;  ///< (count, rows)
    index_t rows = 0;
    float_format format = float_format::f16;

    /// Which weak column comes first at or after the stored column `column`; `count` if none does.
    index_t first_from(index_t column) const { return std::lower_bound(columns, columns + count, column) - columns; }

    /// Weak column `k` at `row`.
    float at(index_t k, index_t row) const {
        std::uint8_t const* const p = values + (k * rows + row) * (bits_of(format) / 8);
        auto const read = [p]<class T>(T number) {
            std::memcpy(&number, p, sizeof number);
            return static_cast<float>(number);
        };
        return format == float_format::f16    ? read(half{})
               : format == float_format::bf16 ? read(bfloat16{})
                                              : read(float{});
    }
};

/// The few columns of a quantized matrix that stay in high precision (OWQ): those whose rounding would cost most. Their
/// numbers take the place of what the codes there stand for.
class weak_columns {
public:
    weak_columns() = default;

    /// Columns of zeros with `rows` numbers each; `columns` are stored columns, ascending, none twice. @throws error
    /// when they are not, or `rows` is negative.
    weak_columns(std::vector<std::int32_t> columns, index_t rows, float_format format)
        : columns_(std::move(columns)), rows_(rows), format_(format), values_(count() * rows * (bits_of(format) / 8)) {
        expect_option(rows >= 0, "weak columns", "number of rows", rows, "0 or more");
        for (std::size_t k = 0; k < columns_.size(); ++k) {
            expect_valid(columns_[k] > (k == 0 ? -1 : columns_[k - 1]), "weak columns", "do not ascend from 0");
        }
    }

    index_t count() const { return static_cast<index_t>(columns_.size()); }
    bool empty() const { return columns_.empty(); }
    index_t rows() const { return rows_; }
    float_format format() const { return format_; }
    /// Stored columns, ascending.
    std::vector<std::int32_t> const& columns() const { return columns_; }
    /// The numbers as they are stored, (count, rows).
    buffer const& values() const { return values_; }
    buffer& values() { return values_; }

    weak_view view() const {
        return {
            .count = count(), .columns = columns_.data(), .values = values_.data(), .rows = rows_, .format = format_};
    }

    /// Which of the weak columns the stored column `column` is; -1 if none.
    index_t find(index_t column) const {
        index_t const k = view().first_from(column);
        return k < count() && columns_[static_cast<std::size_t>(k)] == column ? k : -1;
    }

    /// Weak column `k` at `row`.
    float at(index_t k, index_t row) const {
        DETENT_EXPECTS(k >= 0 && k < count() && row >= 0 && row < rows_);
        return view().at(k, row);
    }

    /// Rounds `value` to the format.
    void set(index_t k, index_t row, float value) {
        DETENT_EXPECTS(k >= 0 && k < count() && row >= 0 && row < rows_);
        std::uint8_t* const p = values_.data() + (k * rows_ + row) * (bits_of(format_) / 8);
        auto const write = [p](auto number) { std::memcpy(p, &number, sizeof number); };
        format_ == float_format::f16    ? write(half{value})
        : format_ == float_format::bf16 ? write(bfloat16{value})
                                        : write(value);
    }

    /// Whether no number is infinite, as one too large for f16 has become, or NaN.
    bool all_finite() const {
        for (index_t k = 0; k < count(); ++k) {
            for (index_t row = 0; row < rows_; ++row) {
                if (!is_finite(at(k, row))) {
                    return false;
                }
            }
        }
        return true;
    }

    /// The same numbers, rounded to another format.
    weak_columns stored_as(float_format format) const {
        weak_columns other(columns_, rows_, format);
        for (index_t k = 0; k < count(); ++k) {
            for (index_t row = 0; row < rows_; ++row) {
                other.set(k, row, at(k, row));
            }
        }
        return other;
    }

    /// The same columns with the same bits; without columns, rows and format mean nothing.
    friend bool operator==(weak_columns const& a, weak_columns const& b) {
        return a.columns_ == b.columns_ &&
               (a.empty() || (a.rows_ == b.rows_ && a.format_ == b.format_ && a.values_ == b.values_));
    }

private:
    std::vector<std::int32_t> columns_;
    index_t rows_ = 0;
    float_format format_ = float_format::f16;
    buffer values_;
};

} // namespace detent::inline DETENT_ABI
