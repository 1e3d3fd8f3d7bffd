// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/core/eigen.hpp"

// What every unit that is to be linked with the library refers to (core/abi.hpp, core/eigen.hpp).
char const DETENT_ABI_VERSION_SYMBOL = 0;
char const DETENT_ABI_INSTRUCTIONS_SYMBOL = 0;
char const DETENT_ABI_OPTIONS_SYMBOL = 0;
char const DETENT_ABI_EIGEN_SYMBOL = 0;
