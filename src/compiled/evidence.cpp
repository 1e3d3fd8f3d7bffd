// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/evidence/factor.hpp"
#include "detent/evidence/hessian.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/matrix/input_map.hpp"
#include "detent/matrix/solution.hpp"

// Each line has its `extern template` in the header.
namespace detent::inline DETENT_ABI {

template hessian_factor factor<double>(hessian const&, factor_options, std::vector<std::int32_t>, executor_ref);
template hessian_factor factor<double>(hessian const&, factor_options, executor_ref);
template basic_matrix<double> damped_hessian<double>(hessian_factor const&, executor_ref);
template class basic_hessian<double>;
template class basic_layer_inputs<double>;
template quantized_activations activation_quantizer::quantize<float>(matrix_view, executor_ref) const;
template activation_view activation_quantizer::quantize<float>(matrix_view, scratch&, executor_ref) const;
template matrix activation_quantizer::round<float>(matrix_view, executor_ref) const;
template matrix dequantize_rows<float>(packed_matrix const&, index_t, index_t);
template matrix input_map::apply<float>(matrix, executor_ref) const;
template basic_matrix<double> input_map::apply<double>(basic_matrix<double>, executor_ref) const;
template matrix input_map::of_weights<float>(matrix, executor_ref) const;
template basic_matrix<double> input_map::of_weights<double>(basic_matrix<double>, executor_ref) const;
template matrix input_map::back<float>(matrix, executor_ref) const;
template basic_matrix<double> input_map::back<double>(basic_matrix<double>, executor_ref) const;
template basic_matrix<double> input_map::both_sides<double>(basic_matrix<double>, executor_ref) const;
template index_t clamped_scales<float>(matrix_view, solution const&);
template matrix decode<float>(solution const&);

} // namespace detent::inline DETENT_ABI
