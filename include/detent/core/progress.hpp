// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <functional>
#include <string_view>

#include "detent/core/error.hpp"

namespace detent::inline DETENT_ABI {

/// Called during long work with what is being done and the fraction done, 0 to 1; answers whether to go on.
using progress = std::function<bool(std::string_view what, double fraction)>;

/// Tells `report` (which may be empty) how far the work is. @throws cancelled when it answers false.
inline void advance(progress const& report, std::string_view what, double fraction) {
    if (report && !report(what, fraction)) {
        raise(cancelled{});
    }
}

} // namespace detent::inline DETENT_ABI
