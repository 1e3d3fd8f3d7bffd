// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI {

/// How the quantization of a block is learned. Defaults are OmniQuant's.
struct learning_options {
    bool clip = false;          ///< learn how far ranges of weights are clipped (LWC)
    bool transform = false;     ///< learn a transform of the channels (LET)
    bool hidden = false;        ///< of those from up to down too, where there is a gate
    bool auxiliary = false;     ///< learn also what the float block makes of the inputs the quantized one has
    bool published = false;     ///< instead of these and of `alpha`: what OmniQuant was published with
    int probability_bits = 0;   ///< of attention in the quantized block; 0: they are not rounded
    index_t epochs = 20;        ///< over all sequences, each of which is a step
    double clip_rate = 1e-2;    ///< learning rates
    double transform_rate = 5e-3;
    double alpha = 0.5; ///< of the first scales: largest activation^alpha / largest weight^(1 - alpha)

    /// Whether anything is learned.
    explicit operator bool() const { return clip || transform || published; }

    /// What OmniQuant was published with for weights and activations of so many bits, 16 where activations are not
    /// rounded: for models whose norms have biases (OPT) or not (LLaMA). Epochs other than the default are kept.
    learning_options for_model(int weight_bits, int activation_bits, bool biased_norms) const {
        if (!published) {
            return *this;
        }
        learning_options how = *this;
        bool const few = activation_bits <= 4;
        how.published = false;
        how.clip = true;
        how.transform = biased_norms || activation_bits < 16;
        how.auxiliary = !biased_norms && (few || weight_bits <= 2);
        how.alpha = biased_norms && few ? 0.75 : 0.5;
        if (weight_bits <= 2 && epochs == learning_options{}.epochs) {
            how.epochs = 40;
        }
        return how;
    }

    friend bool operator==(learning_options const&, learning_options const&) = default;
};

} // namespace detent::inline DETENT_ABI
