// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/quantizer/catalogue.ipp"
#include "detent/quantizer/find_kv_format.ipp"
#include "detent/quantizer/parse_spec.ipp"
#include "detent/quantizer/vocabulary_text.ipp"
