// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <limits>

#include "detent/core/executor.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/floats.hpp"
#include "detent/kernel/kv_numbers.hpp"
#include "detent/matrix/kv_view.hpp"
#include "detent/simd/half.hpp"

// Attention that reads keys and values as they are stored: codes become floats in registers, scales and zero points
// multiply sums of many. A softmax is streamed: a block of keys at a time, sums are multiplied when the largest score
// grows (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).

namespace detent::inline DETENT_ABI::kernel {

/// What makes probabilities of the products of queries and keys.
struct score_rule {
    float scale = 1;               ///< of the products
    float soft_cap = 0;            ///< c of c tanh(s / c); 0 for none
    index_t window = 0;            ///< keys that a query sees at most, its own included; 0 for all
    int probability_bits = 0;      ///< where not 0, probabilities are rounded to multiples of 1 / (2^bits - 1)
    float const* slopes = nullptr; ///< of each head, times the place of a key behind the query's (ALiBi); null for none
    float const* sinks = nullptr;  ///< of each head, a score without a value; null for none
};

/// The queries of one sequence, whose tokens are the last ones of a cache, and where attention writes to.
struct cache_queries {
    float const* q;   ///< (token, heads * head_dim)
    index_t q_stride; ///< floats from token to token
    float* y;         ///< like q
    index_t y_stride;
    index_t tokens;
    index_t first;    ///< the position of the first token
    index_t heads;    ///< of queries
    index_t kv_heads; ///< query head h reads head h / (heads / kv_heads)
};

/// Keys that are taken at a time: their scores stay in registers' reach, and their rows in the first-level cache.
inline constexpr index_t keys_per_block = 64;

/// A block of keys or values: rows, and where there are codes the scale s of every group and s (offset - zero).
template <class Numbers> struct kv_block {
    std::uint8_t const* rows;
    float scales[Numbers::coded ? keys_per_block * kv_limits::groups + 16 : 1];
    float shifts[Numbers::coded ? keys_per_block * kv_limits::groups + 16 : 1];

    /// `n` rows of `head` from `slot` on.
    void take(Numbers const& numbers, kv_view const& v, index_t head, index_t slot, index_t n) noexcept {
        index_t const row = head * v.slots + slot;
        rows = v.rows + row * v.row_bytes;
        if constexpr (Numbers::coded) {
            auto const bytes_at = [&](half const* from, index_t i) {
                return reinterpret_cast<std::uint8_t const*>(from + row * v.groups + i);
            };
            for (index_t i = 0; i < n * v.groups; i += lanes) { // 64 bytes more may be read
                floats const scale = simd::load_halves(bytes_at(v.scales, i));
                floats const zero = v.zeros != nullptr ? simd::load_halves(bytes_at(v.zeros, i)) : floats(0.0F);
                scale.store_unaligned(scales + i);
                (scale * (floats(numbers.offset()) - zero)).store_unaligned(shifts + i);
            }
        }
    }
};

/// Attention of up to `Queries` queries that read the same head. The queries may be of several tokens and heads.
template <class Numbers, index_t Queries> class head_reader {
public:
    head_reader(Numbers const& numbers, kv_view const& keys, kv_view const& values) noexcept
        : numbers_(numbers), keys_(keys), values_(values) {}

    /// Queries [begin, begin + count) of those of `kv_head`, counted token by token. Fewer than `Queries` are filled up
    /// with the last one.
    void read(cache_queries const& x, score_rule const& rule, index_t kv_head, index_t begin, index_t count) noexcept {
        index_t const sharing = x.heads / x.kv_heads;
        index_t tokens[array_size(Queries)];
        for (index_t i = 0; i < Queries; ++i) {
            index_t const at = begin + std::min(i, count - 1);
            tokens[i] = at / sharing;
            heads_[i] = kv_head * sharing + at % sharing;
            positions_[i] = x.first + tokens[i];
            take_query(i, x.q + tokens[i] * x.q_stride + heads_[i] * keys_.head_dim);
            highest_[i] = rule.sinks != nullptr ? rule.sinks[heads_[i]] : lowest / 2;
            sums_[i] = rule.sinks != nullptr ? 1.0F : 0.0F;
        }
        if (rule.probability_bits > 0) { // what probabilities are is known when all keys were seen
            for_blocks(rule, kv_head, [&](index_t n, index_t) { exponentials(n); });
            for_blocks(rule, kv_head, [&](index_t n, index_t slot) {
                rounded_probabilities(n, rule.probability_bits);
                add_values(n, kv_head, slot);
            });
            std::fill_n(sums_, Queries, 1.0F);
        } else {
            for_blocks(rule, kv_head, [&](index_t n, index_t slot) {
                exponentials(n);
                add_values(n, kv_head, slot);
            });
        }
        for (index_t i = 0; i < count; ++i) {
            write(i, x.y + tokens[i] * x.y_stride + heads_[i] * values_.head_dim);
        }
    }

private:
    static constexpr index_t keys_at_once = 4 / Queries; // four sums hide how long an addition takes
    static constexpr index_t values_at_once = Queries == 1 ? 4 : 2;
    static constexpr float lowest = std::numeric_limits<float>::lowest(); // the score of what is hidden

    /// Copies a query, each group to whole steps, and sums its groups.
    void take_query(index_t i, float const* q) noexcept {
        for (index_t g = 0; g < keys_.groups; ++g) {
            float* const to = q_[i] + g * keys_.padded_width;
            index_t const n = std::min(keys_.width, keys_.head_dim - g * keys_.width);
            std::fill(std::copy_n(q + g * keys_.width, n, to), to + keys_.padded_width, 0.0F);
            float sum = 0;
            for (index_t k = 0; k < n; ++k) {
                sum += to[k];
            }
            group_sums_[i][g] = sum;
        }
        std::fill_n(y_[i], values_.groups * values_.padded_width, 0.0F);
        std::fill_n(shifts_[i], values_.groups, 0.0F);
    }

    /// Calls `f(n, slot)` for each block of keys that a query sees, with their scores in place.
    template <class F> void for_blocks(score_rule const& rule, index_t kv_head, F const& f) noexcept {
        auto const first_seen = [&](index_t position) {
            return rule.window > 0 ? std::max<index_t>(0, position - rule.window + 1) : 0;
        };
        auto const [earliest, latest] = std::minmax_element(positions_, positions_ + Queries);
        index_t const end = *latest + 1;
        for (index_t t = first_seen(*earliest); t < end;) {
            index_t const slot = t % keys_.slots;
            index_t const n = std::min({keys_per_block, end - t, keys_.slots - slot});
            block_.take(numbers_, keys_, kv_head, slot, n);
            multiply_keys(n);
            for (index_t i = 0; i < Queries; ++i) {
                finish_scores(i, kv_head, n, t, rule);
                hide(i, n, first_seen(positions_[i]) - t, positions_[i] + 1 - t);
            }
            f(n, slot);
            t += n;
        }
    }

    /// The products of queries and keys; some past the last one are of no meaning.
    void multiply_keys(index_t n) noexcept {
        for (index_t k = 0; k < n; k += keys_at_once) {
            floats totals[4] = {floats(0.0F), floats(0.0F), floats(0.0F), floats(0.0F)};
            std::uint8_t const* rows[array_size(keys_at_once)];
            for (index_t j = 0; j < keys_at_once; ++j) {
                rows[j] = block_.rows + std::min(k + j, n - 1) * keys_.row_bytes;
            }
            for (index_t g = 0; g < keys_.groups; ++g) {
                floats sums[4] = {floats(0.0F), floats(0.0F), floats(0.0F), floats(0.0F)};
                float const* q = q_[0] + g * keys_.padded_width;
                float const* const q_end = q + keys_.padded_width;
                for (; q < q_end; q += Numbers::registers * lanes) {
#pragma GCC unroll 4
                    for (index_t j = 0; j < keys_at_once; ++j) {
                        floats key[Numbers::registers];
                        numbers_(rows[j], key);
                        rows[j] += Numbers::step_bytes;
#pragma GCC unroll 4
                        for (index_t i = 0; i < Queries; ++i) {
                            floats& sum = sums[j * Queries + i];
#pragma GCC unroll 2
                            for (index_t r = 0; r < Numbers::registers; ++r) {
                                sum = xsimd::fma(key[r], floats::load_aligned(q + i * width + r * lanes), sum);
                            }
                        }
                    }
                }
#pragma GCC unroll 4
                for (index_t s = 0; s < 4; ++s) {
                    if constexpr (Numbers::coded) {
                        float const scale = block_.scales[(k + s / Queries) * keys_.groups + g];
                        totals[s] = xsimd::fma(sums[s], floats(scale), totals[s]);
                    } else {
                        totals[s] = sums[s];
                    }
                }
            }
            float products[4];
            sums_of_four(totals, products);
            for (index_t s = 0; s < 4; ++s) {
                scores_[s % Queries][k + s / Queries] = products[s];
            }
        }
    }

    /// Makes scores of products, n of them from token t on.
    void finish_scores(index_t i, index_t kv_head, index_t n, index_t t, score_rule const& rule) noexcept {
        float* const scores = scores_[i];
        if constexpr (Numbers::coded) {
            for (index_t g = 0; g < keys_.groups; ++g) {
                for (index_t k = 0; k < n; ++k) {
                    scores[k] += block_.shifts[k * keys_.groups + g] * group_sums_[i][g];
                }
            }
        }
        for (index_t k = 0; k < n && keys_.centers != nullptr;) {
            index_t const next =
                (t + k) / kv_view::centered_tokens * kv_view::centered_tokens + kv_view::centered_tokens;
            float const product = center_product(i, keys_.centers_of(kv_head, t + k));
            for (; k < std::min(n, next - t); ++k) {
                scores[k] += product;
            }
        }
        for (index_t k = 0; k < n; ++k) {
            scores[k] *= rule.scale;
        }
        if (rule.soft_cap > 0) {
            for (index_t k = 0; k < n; k += lanes) {
                floats const s = floats::load_aligned(scores + k) / floats(rule.soft_cap);
                (floats(rule.soft_cap) * xsimd::tanh(s)).store_aligned(scores + k);
            }
        }
        if (rule.slopes != nullptr) {
            for (index_t k = 0; k < n; ++k) {
                scores[k] += rule.slopes[heads_[i]] * static_cast<float>(t + k - positions_[i]);
            }
        }
    }

    /// The product of a query with what was taken from keys.
    float center_product(index_t i, bfloat16 const* centers) const noexcept {
        floats sum(0.0F);
        for (index_t k = 0; k < keys_.groups * keys_.padded_width; k += lanes) {
            floats const center = simd::load_bfloats(reinterpret_cast<std::uint8_t const*>(centers + k));
            sum = xsimd::fma(center, floats::load_aligned(q_[i] + k), sum);
        }
        return kernel::sum(sum);
    }

    /// Hides all but keys [from, to), of which there may be none in the block, up to the end of a register.
    void hide(index_t i, index_t n, index_t from, index_t to) noexcept {
        index_t const padded = ceil_div(n, 16) * 16;
        std::fill_n(scores_[i], std::clamp<index_t>(from, 0, n), lowest);
        index_t const visible = std::clamp<index_t>(to, 0, n);
        std::fill(scores_[i] + visible, scores_[i] + padded, lowest);
    }

    /// Makes exp(score - highest) of scores, and multiplies what was summed when the highest score grows.
    void exponentials(index_t n) noexcept {
        for (index_t i = 0; i < Queries; ++i) {
            floats most(highest_[i]);
            for (index_t k = 0; k < n; k += lanes) {
                most = xsimd::max(most, floats::load_aligned(scores_[i] + k));
            }
            alignas(64) float lane[lanes];
            most.store_aligned(lane);
            float const highest = *std::max_element(lane, lane + lanes);
            if (highest > highest_[i]) {
                floats const factors = xsimd::exp(floats(highest_[i] - highest));
                factors.store_aligned(lane);
                multiply_sums(i, lane[0]);
                highest_[i] = highest;
            }
            floats sum(0.0F);
            for (index_t k = 0; k < n; k += lanes) {
                floats const e = xsimd::exp(floats::load_aligned(scores_[i] + k) - floats(highest));
                e.store_aligned(scores_[i] + k);
                sum += e;
            }
            sums_[i] += kernel::sum(sum);
        }
    }

    void multiply_sums(index_t i, float factor) noexcept {
        sums_[i] *= factor;
        for (index_t g = 0; g < values_.groups; ++g) {
            shifts_[i][g] *= factor;
        }
        for (index_t k = 0; k < values_.groups * values_.padded_width; k += lanes) {
            (floats::load_aligned(y_[i] + k) * floats(factor)).store_aligned(y_[i] + k);
        }
    }

    /// Makes rounded probabilities of scores when the highest score and the sum are known.
    void rounded_probabilities(index_t n, int bits) noexcept {
        floats const steps(static_cast<float>((1 << bits) - 1));
        for (index_t i = 0; i < Queries; ++i) {
            for (index_t k = 0; k < n; k += lanes) {
                floats const e = xsimd::exp(floats::load_aligned(scores_[i] + k) - floats(highest_[i]));
                floats const p = e / floats(sums_[i]);
                (xsimd::floor(xsimd::fma(p, steps, floats(0.5F))) / steps).store_aligned(scores_[i] + k);
            }
        }
    }

    /// y += probabilities times `n` values from `slot` on.
    void add_values(index_t n, index_t kv_head, index_t slot) noexcept {
        block_.take(numbers_, values_, kv_head, slot, n);
        if constexpr (Numbers::coded) {
            for (index_t i = 0; i < Queries; ++i) {
                for (index_t g = 0; g < values_.groups; ++g) {
                    float shift = 0;
                    for (index_t k = 0; k < n; ++k) {
                        shift += scores_[i][k] * block_.shifts[k * values_.groups + g];
                    }
                    shifts_[i][g] += shift;
                }
            }
        }
        for (index_t k = 0; k < n; k += values_at_once) {
            for (index_t g = 0; g < values_.groups; ++g) {
                add_group(n, k, g);
            }
        }
    }

    /// Adds probabilities times group `g` of a few values, from key `k` of a block of `n` on.
    void add_group(index_t n, index_t k, index_t g) noexcept {
        floats factors[array_size(values_at_once * Queries)];
        std::uint8_t const* rows[array_size(values_at_once)];
#pragma GCC unroll 4
        for (index_t j = 0; j < values_at_once; ++j) {
            index_t const steps = values_.padded_width / (Numbers::registers * lanes);
            rows[j] = block_.rows + std::min(k + j, n - 1) * values_.row_bytes + g * steps * Numbers::step_bytes;
            for (index_t i = 0; i < Queries; ++i) {
                float const scale = Numbers::coded ? block_.scales[(k + j) * values_.groups + g] : 1.0F;
                factors[j * Queries + i] = floats(k + j < n ? scores_[i][k + j] * scale : 0.0F);
            }
        }
        float* y = y_[0] + g * values_.padded_width;
        float const* const y_end = y + values_.padded_width;
        for (; y < y_end; y += Numbers::registers * lanes) {
            floats value[array_size(values_at_once)][Numbers::registers];
#pragma GCC unroll 4
            for (index_t j = 0; j < values_at_once; ++j) {
                numbers_(rows[j], value[j]);
                rows[j] += Numbers::step_bytes;
            }
#pragma GCC unroll 4
            for (index_t i = 0; i < Queries; ++i) {
#pragma GCC unroll 2
                for (index_t r = 0; r < Numbers::registers; ++r) {
                    floats sum = floats::load_aligned(y + i * width + r * lanes);
#pragma GCC unroll 4
                    for (index_t j = 0; j < values_at_once; ++j) {
                        sum = xsimd::fma(value[j][r], factors[j * Queries + i], sum);
                    }
                    sum.store_aligned(y + i * width + r * lanes);
                }
            }
        }
    }

    /// Writes the mean of values.
    void write(index_t i, float* y) const noexcept {
        for (index_t g = 0; g < values_.groups; ++g) {
            index_t const begin = g * values_.width;
            index_t const n = std::min(values_.width, values_.head_dim - begin);
            float const* const from = y_[i] + g * values_.padded_width;
            for (index_t k = 0; k < n; ++k) {
                y[begin + k] = (from[k] + shifts_[i][g]) / sums_[i];
            }
        }
    }

    static constexpr index_t width = kv_limits::padded_row;

    Numbers const& numbers_;
    kv_view const& keys_;
    kv_view const& values_;
    index_t heads_[array_size(Queries)];
    index_t positions_[array_size(Queries)];
    float highest_[array_size(Queries)];                       // score
    float sums_[array_size(Queries)];                          // of exp(score - highest)
    float group_sums_[array_size(Queries)][kv_limits::groups]; // of queries
    float shifts_[array_size(Queries)][kv_limits::groups];     // what offsets and zero points add to y
    kv_block<Numbers> block_;
    alignas(64) float scores_[array_size(Queries)][keys_per_block];
    alignas(64) float q_[array_size(Queries)][width];
    alignas(64) float y_[array_size(Queries)][width];
};

/// Attention behind a causal mask of queries over stored keys and values of the same format: each query takes the mean
/// of the values up to its own position, or of the last `window` of them, weighted by softmax(scale q k^T) or what else
/// `rule` makes of it. Takes no memory but 100 KB of the stack. The same bits for any executor.
inline void attend(kv_view const& keys, kv_view const& values, cache_queries const& x, score_rule const& rule,
                   executor_ref executor = {}) {
    constexpr index_t most_queries = 4;
    index_t const queries = x.tokens * (x.heads / x.kv_heads); // of a head of keys
    index_t const parts = ceil_div(queries, most_queries);
    index_t const seen = std::min(x.first + x.tokens, keys.slots);
    // Few keys are little work, so several heads make a piece.
    index_t const grain = std::max<index_t>(1, (index_t{1} << 16) / std::max<index_t>(1, seen * keys.head_dim));
    with_numbers(keys, [&]<class Numbers>(Numbers const& numbers) {
        executor.for_pieces(x.kv_heads * parts, grain, [&](index_t first, index_t last) {
            for (index_t task = first; task < last; ++task) {
                index_t const begin = task % parts * most_queries;
                index_t const count = std::min(most_queries, queries - begin);
                if (count == 1) {
                    head_reader<Numbers, 1>(numbers, keys, values).read(x, rule, task / parts, begin, count);
                } else {
                    head_reader<Numbers, most_queries>(numbers, keys, values).read(x, rule, task / parts, begin, count);
                }
            }
        });
    });
}

} // namespace detent::inline DETENT_ABI::kernel
