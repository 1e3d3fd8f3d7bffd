// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/solver/activation_search.hpp"
#include "detent/solver/asymmetric.hpp"
#include "detent/solver/better_rows.hpp"
#include "detent/solver/clip_learning.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/joint_search.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/output_search.hpp"
#include "detent/solver/owq.hpp"

// Each line has its `extern template` in the header.
namespace detent::inline DETENT_ABI {

template activation_search::answer activation_search::operator()<float>(matrix_view, matrix_view, matrix_view,
                                                                        std::span<any_grid const>, executor_ref) const;
template matrix corrected_weights<double>(matrix_view, layer_inputs const&, hessian_factor const&, double, correction,
                                          executor_ref);
template basic_vector<double> row_losses<float>(matrix_view, solution const&, matrix const&, executor_ref);
template solution better_rows<double>(solution, basic_vector<double> const&, solution, basic_vector<double> const&);
template solution learn_clips<float>(matrix_view, matrix const&, problem const&, clip_learning, executor_ref);
template solution gptq<double>::solve(matrix_view, hessian const&, problem const&, executor_ref) const;
template solution gptq<double>::solve(matrix_view, hessian_factor const&, problem const&, executor_ref) const;
template solution gptq<float>::solve(matrix_view, hessian const&, problem const&, executor_ref) const;
template solution gptq<float>::solve(matrix_view, hessian_factor const&, problem const&, executor_ref) const;
template format_choice choose_format<float>(matrix_view, layer_inputs const&, std::span<problem const* const>,
                                            output_search const&, executor_ref);
template format_choice choose_format<float>(matrix_view, matrix_view, matrix_view, std::span<problem const* const>,
                                            metric_search const&, executor_ref);
template joint_search::answer joint_search::operator()<float>(matrix_view, matrix_view, std::span<problem const* const>,
                                                              std::span<any_grid const>, executor_ref) const;
template solution obq::solve<double>(matrix_view, hessian const&, problem const&, executor_ref) const;
template solution obq::solve<double>(matrix_view, hessian_factor, problem const&, executor_ref) const;
template solution output_search::solve<float>(matrix_view, layer_inputs const&, problem const&, executor_ref) const;
template solution output_search::solve<float>(matrix_view, output_cost const&, problem const&, executor_ref) const;
template double output_search::estimate<float>(matrix_view, output_cost const&, problem const&, executor_ref) const;
template basic_vector<double> sensitivities<double>(matrix_view, hessian const&, problem const&, sensitivity,
                                                    executor_ref);
template basic_matrix<double> compensated<double>(basic_matrix<double>, basic_matrix<double> const&,
                                                  basic_matrix<double> const&, executor_ref);
template weak_split split_weak<double>(basic_vector<double> const&, basic_vector<double> const&, index_t, bool);
template hessian_factor factor_with_weak_last<double>(hessian const&, weak_split const&, factor_options, executor_ref);
template hessian_factor without_weak<double>(hessian_factor const&, weak_split const&);
template basic_matrix<double> rounding_errors<double>(matrix const&, solution const&, std::vector<std::int32_t> const&);
template solution join_weak<double>(solution const&, index_t, weak_split const&, basic_matrix<double> const&,
                                    float_format);

} // namespace detent::inline DETENT_ABI
