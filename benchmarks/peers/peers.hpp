// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "contestant.hpp"

namespace peers {

// Each is defined where its library was found.
peer ggml_peer();
peer onnxruntime_peer();

} // namespace peers
