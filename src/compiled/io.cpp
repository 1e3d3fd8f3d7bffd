// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/io/atomic_file.ipp"
#include "detent/io/json.ipp"
#include "detent/io/mapped_file.ipp"
#include "detent/io/packed_tensors.ipp"
#include "detent/io/safetensors.ipp"
