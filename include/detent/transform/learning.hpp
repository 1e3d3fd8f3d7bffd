// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI {

/// How the quantization of a block is learned. Defaults are OmniQuant's.
struct learning {
    bool clip = false;          ///< learn how far ranges of weights are clipped (LWC)
    bool transform = false;     ///< learn a transform of the channels (LET)
    bool auxiliary = false;     ///< learn also what the float block makes of the inputs the quantized one has
    index_t epochs = 20;        ///< over all sequences, each of which is a step
    double clip_rate = 1e-2;    ///< learning rates
    double transform_rate = 5e-3;
    double alpha = 0.5; ///< of the first scales: largest activation^alpha / largest weight^(1 - alpha)

    /// Whether anything is learned.
    explicit operator bool() const { return clip || transform; }

    friend bool operator==(learning const&, learning const&) = default;
};

} // namespace detent::inline DETENT_ABI
