// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>

#include "detent/core/half.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/floats.hpp"
#include "detent/matrix/kv_view.hpp"
#include "detent/simd/bytes.hpp"
#include "detent/simd/code_lanes.hpp"
#include "detent/simd/half.hpp"

// What reads the numbers of a `kv_store`, a step of one or two registers at a time. Numbers of codes come without
// their scales and zero points, which attention multiplies sums with.

namespace detent::inline DETENT_ABI::kernel {

/// Floats and halves.
template <kv_numbers Kind> struct stored_floats {
    static constexpr bool coded = false;
    static constexpr index_t registers = 1; ///< of a step
    static constexpr index_t step_bytes = lanes * (Kind == kv_numbers::f32 ? 4 : 2);

    /// What the table's numbers are more than those that come.
    static constexpr float offset() noexcept { return 0; }

    void operator()(std::uint8_t const* from, floats* to) const noexcept {
        if constexpr (Kind == kv_numbers::f32) {
            to[0] = floats::load_unaligned(reinterpret_cast<float const*>(from));
        } else if constexpr (Kind == kv_numbers::f16) {
            to[0] = simd::load_halves(from);
        } else {
            to[0] = simd::load_bfloats(from);
        }
    }
};

/// Consecutive integers: code c comes as c, and the first number is their offset.
class consecutive_codes {
public:
    explicit consecutive_codes(float first) noexcept : first_(first) {}
    float offset() const noexcept { return first_; }
    floats operator()(simd::ints codes) const noexcept { return xsimd::to_float(codes); }

private:
    float first_;
};

/// Any numbers, by the kinds of tables of products.
template <class Table> class table_codes {
public:
    explicit table_codes(Table const& table) noexcept : table_(table) {}
    static constexpr float offset() noexcept { return 0; }
    floats operator()(simd::ints codes) const noexcept { return table_(codes); }

private:
    Table table_;
};

/// Codes of a byte each.
template <class Numbers> struct byte_codes {
    static constexpr bool coded = true;
    static constexpr index_t registers = 1;
    static constexpr index_t step_bytes = lanes;

    Numbers numbers;

    float offset() const noexcept { return numbers.offset(); }
    void operator()(std::uint8_t const* from, floats* to) const noexcept { to[0] = numbers(simd::load_bytes(from)); }
};

/// Codes of half a byte, the first register's in the lower halves.
template <class Numbers> struct nibble_codes {
    static constexpr bool coded = true;
    static constexpr index_t registers = 2;
    static constexpr index_t step_bytes = lanes;

    Numbers numbers;

    float offset() const noexcept { return numbers.offset(); }
    void operator()(std::uint8_t const* from, floats* to) const noexcept {
        simd::ints const both = simd::load_bytes(from);
        to[0] = numbers(both & simd::ints(15));
        to[1] = numbers(both >> 4);
    }
};

/// Calls `f(numbers)` with what reads the numbers of `v`.
template <class F> void with_numbers(kv_view const& v, F const& f) {
    auto const of_codes = [&](auto const& numbers) {
        using type = std::remove_cvref_t<decltype(numbers)>;
        v.numbers == kv_numbers::nibbles ? f(nibble_codes<type>{numbers}) : f(byte_codes<type>{numbers});
    };
    switch (v.numbers) {
    case kv_numbers::f32:
        return f(stored_floats<kv_numbers::f32>{});
    case kv_numbers::f16:
        return f(stored_floats<kv_numbers::f16>{});
    case kv_numbers::bf16:
        return f(stored_floats<kv_numbers::bf16>{});
    case kv_numbers::bytes:
    case kv_numbers::nibbles:
        break;
    }
    if (v.consecutive) {
        return of_codes(consecutive_codes(v.table[0]));
    }
    simd::with_table(v.table, v.bits, false, v.zeros != nullptr, [&]<class Table>(Table const& table) {
        // Which bits a table is for says which of the two there can be.
        if constexpr (Table::most_bits <= 4) {
            f(nibble_codes<table_codes<Table>>{table_codes<Table>(table)});
        } else if constexpr (Table::fewest_bits > 4) {
            f(byte_codes<table_codes<Table>>{table_codes<Table>(table)});
        } else {
            of_codes(table_codes<Table>(table));
        }
    });
}

} // namespace detent::inline DETENT_ABI::kernel
