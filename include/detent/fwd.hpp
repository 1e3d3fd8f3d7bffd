// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

/// Declares the nouns, for headers that only name them.

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI {

class buffer;
class error;
class executor_ref;
class scratch;
class workspace;

class input_map;
class activation_quantizer;
class weak_columns;
struct activation_view;
struct epilogue;
struct extents;
struct matrix_product;
struct packed_matrix;
struct packed_product;
struct packed_view;
struct quantized_activations;
struct quantization;
struct solution;
struct solve_report;

template <class Scalar> class basic_hessian;
template <class Scalar> struct basic_hessian_factor;
template <class Scalar> class basic_layer_inputs;
using hessian = basic_hessian<double>;
using hessian_factor = basic_hessian_factor<double>;
using layer_inputs = basic_layer_inputs<double>;

class any_grid;
class any_range;
class any_solver;
class problem;

class named_quantizer;
struct spec;

struct block;
struct decoder;
struct image_encoder;
struct text_encoder;

} // namespace detent::inline DETENT_ABI
