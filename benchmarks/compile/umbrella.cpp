// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The static API and nothing else.
#include "detent/detent.hpp"
