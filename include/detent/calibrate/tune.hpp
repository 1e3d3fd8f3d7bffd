// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/core/progress.hpp"
#include "detent/model/decoder.hpp"
#include "detent/nn/adamw.hpp"

namespace detent::inline DETENT_ABI {

/// What a model is tuned on, and how. The default learning rate is for weak columns of small models; it should shrink
/// with the root of the number of trained columns, and far more for all weights.
struct tuning {
    std::span<nn::token_id const> tokens;
    index_t window = 512; ///< tokens of a sequence; the rest of the text after the last whole one is not used
    index_t batch = 16;   ///< sequences whose mean loss makes a step
    index_t at_once = 1;  ///< of these, how many are in memory together
    index_t epochs = 1;
    nn::adamw_options optimizer{.learning_rate = 1e-3};
    double largest_norm = 0.3; ///< longer gradients are scaled down to this
    std::uint64_t seed = 1;    ///< of the order of the windows, a new one in every epoch
};

/// One step.
struct tuning_step {
    double loss = 0;          ///< mean cross entropy of the batch before the step, in nats
    double gradient_norm = 0; ///< before clipping
};

/// Tunes on a text what the linear layers of a decoder's blocks have in high precision, by AdamW on the cross entropy
/// of the next token: the weak columns of quantized layers (weak column tuning, OWQ), and all weights of float ones.
/// Codes, scales, biases, norms, routers, embeddings and the output head stay as they are.
///
/// Forward and backward passes run from the packed bytes; no dense weight is made. From its construction on the weak
/// columns are kept in f32, since a step may be smaller than what f16 can tell apart; `finish` rounds them to the
/// format they had.
/// The same bits come out for any executor, and for a run that was interrupted and resumed.
class decoder_tuner {
public:
    /// `model` and the text must outlive the tuner. @throws error when the text has no window or no layer has anything
    /// to tune.
    decoder_tuner(decoder& model, tuning const& how, executor_ref executor = {});

    /// How many numbers are trained.
    index_t parameters() const;

    /// Steps done, and steps in all epochs.
    index_t steps_done() const { return done_; }
    index_t steps() const { return how_.epochs * steps_per_epoch(); }

    /// The next step. @throws error when loss or gradient is not finite, the model is then as before the step; and
    /// after `finish`, as `save` and `resume` do.
    tuning_step step();

    /// All steps that are left. @throws error as `step`; `cancelled`. What is done then stays done.
    std::vector<tuning_step> run(progress const& report = {});

    /// Writes what it takes to resume after the last step: the numbers in f32, the state of the optimizer, the number
    /// of steps. @throws error naming the file where it cannot be written, which is then as it was.
    void save(std::filesystem::path const& path) const;

    /// Goes on where the tuner that wrote this file was: with the same text and options it then does the same steps.
    /// @throws error naming the file and the tensor that is missing, has another size or is not finite; nothing is
    /// changed then.
    void resume(std::filesystem::path const& path);

    /// Stores weak columns in the format they had, and ends the tuning. @throws error where a number has become too
    /// large for it; nothing is changed then.
    void finish();

private:
    /// What is trained of one layer.
    struct part {
        linear_layer* layer;
        index_t block;
        layer_place place;
        std::vector<std::int32_t> inputs; ///< mapped ones that meet weak columns; empty where all weights are trained
        float_format format;              ///< that weak columns had
        matrix gradient;                  ///< (weak, out), or (out, in) of all weights
        nn::adamw optimizer;

        std::span<float> values() const;
    };

    void expect_unfinished() const;

    void add(index_t block, layer_place place, linear_layer& layer);

    /// Adds what some tokens give to the gradient of a layer.
    void collect(index_t block, layer_place place, matrix_view input, matrix_view gradient);

    index_t steps_per_epoch() const { return ceil_div(windows_, how_.batch); }

    /// The windows in the order of an epoch, which depends on nothing else: a Fisher-Yates shuffle.
    std::vector<index_t> order_of_epoch(index_t epoch) const;

    /// The bytes of numbers that outlive the writing of a file.
    static std::span<std::uint8_t const> bytes_of(std::span<float const> values);

    decoder& model_;
    tuning how_;
    executor_ref executor_;
    index_t windows_ = 0;
    index_t done_ = 0; // steps
    bool finished_ = false;
    std::vector<part> parts_;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/tune.ipp" // IWYU pragma: export
#endif
