// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "detent/calibrate/learned_file.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/core/progress.hpp"
#include "detent/model/block.hpp"
#include "detent/model/dense_block.hpp"
#include "detent/model/equivalent_transform.hpp"
#include "detent/model/learned_block.hpp"
#include "detent/scale/given_range.hpp"
#include "detent/transform/fake_quantizer.hpp"
#include "detent/transform/learning.hpp"

namespace detent::inline DETENT_ABI {

/// The scales and shifts a transform of `b` begins with (SmoothQuant's, as in OmniQuant), given the hidden states `x`
/// (token, hidden) before it in the float model: those of all sites that can have some (sites.hpp), of `hidden` only
/// where `how.hidden`; and, where activations are rounded, 1 for keys, and shifts where norms have a bias: the middle
/// of each channel's range.
equivalent_transform<float> first_transform(dense_block<float> const& b, matrix_view x, nn::token_rows rows,
                                            learning_options const& how, bool rounds_activations,
                                            executor_ref executor = {});

/// Learns by AdamW how `b` is to be quantized so that it makes of the hidden states `x` what each of `targets` says;
/// all are (token, hidden). Starts from `parameters`; those that are not there are not learned. Sequences come one
/// after the other, as in OmniQuant (section 3.1). The same bits for any executor. @throws error when the loss is not
/// finite; `cancelled`.
learned learn(learned_block<float> const& b, block_parameters<float> parameters, learning_options const& how,
              matrix_view x, std::span<matrix const> targets, nn::token_rows rows, executor_ref executor = {},
              progress const& report = {});

/// Learns, before a block of a decoder is quantized, how that is to be done (OmniQuant, algorithm 1): transforms it in
/// place, and keeps the scales for its weights. To be called for one block after the other (`calibration::prepare`).
class block_learner {
public:
    /// `weights` rounds weights. What linear layers read is rounded to `activations` for each token, where that is
    /// given, and what attention reads for each token and head.
    block_learner(learning_options const& how, fake_quantizer<float> weights, std::optional<any_grid> activations = {},
                  executor_ref executor = {}, progress report = {});

    /// Keeps what is learned of each block in a file of this directory, and does not learn again what is found there.
    /// The bits are those of learning it. @throws error when the directory cannot be made.
    block_learner& keep_in(std::filesystem::path directory);

    /// The block that is learned next is number `block` of the model; the losses of those before it are not known.
    block_learner& begin_at(index_t block);

    /// `x` and `floats` (token, hidden) are the hidden states before the block in the quantized and the float model.
    /// @throws error as `learn` and `dense`.
    void operator()(block& b, matrix_view x, matrix_view floats, nn::token_rows rows);

    /// The scales that were learned for a layer of the last block that was learned.
    given_range scales(layer_place place) const;

    /// The mean loss of each epoch, by block.
    std::vector<std::vector<double>> const& losses() const { return losses_; }

private:
    /// The ranges of weights that learning begins with.
    std::map<layer_place, learned_clip<float>> first_clips(dense_block<float> const& b) const;

    /// Rounds the weights of a block as they were learned, and keeps their scales.
    void keep_scales(dense_block<float> const& made, block_parameters<float> const& found);

    /// What was learned before from all this, or else is now.
    template <class Learn>
    learned kept(learning_options const& how, dense_block<float> const& b, matrix_view x,
                 std::span<matrix const> targets, block_parameters<float> first, Learn const& learn_it) const;

    learning_options how_;
    fake_quantizer<float> weights_;
    std::optional<any_grid> activations_;
    executor_ref executor_;
    progress progress_;
    std::filesystem::path directory_; // or none
    struct layer_scales {
        fake_quantizer<float>::tiles tiles;
        index_t columns; // of the weight
    };
    std::map<layer_place, layer_scales> scales_;
    std::vector<std::vector<double>> losses_;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/learn_block.ipp" // IWYU pragma: export
#endif
