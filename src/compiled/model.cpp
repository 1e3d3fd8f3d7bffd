// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/model/backward.ipp"
#include "detent/model/block.ipp"
#include "detent/model/block_file.ipp"
#include "detent/model/block_flow.hpp"
#include "detent/model/common_fields.ipp"
#include "detent/model/configuration.ipp"
#include "detent/model/configuration_fields.ipp"
#include "detent/model/decoder.ipp"
#include "detent/model/dequantize_decoder.ipp"
#include "detent/model/encoder.ipp"
#include "detent/model/encoder_configuration.ipp"
#include "detent/model/encoder_family.ipp"
#include "detent/model/family.ipp"
#include "detent/model/fold.ipp"
#include "detent/model/generate.ipp"
#include "detent/model/gguf_architecture.ipp"
#include "detent/model/gguf_checkpoint.ipp"
#include "detent/model/gguf_configuration.ipp"
#include "detent/model/kv_cache.ipp"
#include "detent/model/linear_layer.ipp"
#include "detent/model/load.ipp"
#include "detent/model/load_encoder.ipp"
#include "detent/model/load_gguf.ipp"
#include "detent/model/model_tensors.ipp"
#include "detent/model/model_text.ipp"
#include "detent/model/outline.ipp"
#include "detent/model/plan_gguf.ipp"
#include "detent/model/read_gguf_tokenizer.ipp"
#include "detent/model/save.ipp"
#include "detent/model/save_encoder.ipp"
#include "detent/model/save_gguf.ipp"
#include "detent/model/save_onnx.ipp"
#include "detent/model/weak_plan.ipp"
#include "detent/model/write_gguf_tokenizer.ipp"

// Each has its `extern template` in the header.
namespace detent::inline DETENT_ABI {

template void enter_attention<linear_layer, float>(basic_block<linear_layer> const&, matrix_view, block_tape<float>&,
                                                   executor_ref);
template void prepare_heads<linear_layer, float>(basic_block<linear_layer> const&, nn::token_rows, block_tape<float>&,
                                                 matrix, matrix, matrix, executor_ref);
template void attend<linear_layer, float>(basic_block<linear_layer> const&, nn::token_rows, block_tape<float>&,
                                          executor_ref, kv_layer*);
template void leave_attention<linear_layer, float>(basic_block<linear_layer> const&, matrix_view, block_tape<float>&,
                                                   executor_ref);
template void enter_mlp<linear_layer, float>(basic_block<linear_layer> const&, matrix_view, block_tape<float>&,
                                             executor_ref);
template void run_hidden<linear_layer, float>(basic_block<linear_layer> const&, std::size_t, block_tape<float>&,
                                              executor_ref);
template matrix leave_mlp<linear_layer, float>(basic_block<linear_layer> const&, block_tape<float>&, executor_ref);
template matrix forward<linear_layer, float>(basic_block<linear_layer> const&, matrix_view, nn::token_rows,
                                             block_tape<float>&, executor_ref, kv_layer*);
template void record<linear_layer, float>(basic_block<linear_layer> const&, matrix_view, nn::token_rows,
                                          block_tape<float>&, executor_ref);

} // namespace detent::inline DETENT_ABI
