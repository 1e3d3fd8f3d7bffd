// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A program that is linked with detent::compiled, if that has its flags.
#include "detent/core/abi.hpp"

int main() {}
