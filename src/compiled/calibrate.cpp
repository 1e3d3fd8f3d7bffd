// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/calibrate/fold_transform.ipp"
#include "detent/calibrate/hessians.ipp"
#include "detent/calibrate/learn_block.ipp"
#include "detent/calibrate/learned_file.ipp"
#include "detent/calibrate/perplexity.ipp"
#include "detent/calibrate/quantize_decoder.ipp"
#include "detent/calibrate/quantize_encoder.ipp"
#include "detent/calibrate/quantize_linear.ipp"
#include "detent/calibrate/quantize_named.ipp"
#include "detent/calibrate/tune.ipp"
