// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/io/atomic_file.ipp"
#include "detent/io/ggml_type.ipp"
#include "detent/io/gguf_file.ipp"
#include "detent/io/gguf_metadata.ipp"
#include "detent/io/gguf_writer.ipp"
#include "detent/io/json.ipp"
#include "detent/io/mapped_file.ipp"
#include "detent/io/packed_tensors.ipp"
#include "detent/io/row_order.ipp"
#include "detent/io/safetensors.ipp"
