// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/layout.hpp"

namespace detent::inline DETENT_ABI::io {

/// Programs that open checkpoints.
enum class client { llama_cpp, vllm, transformers, mlx, onnxruntime };

/// What people call them, in the order of `client`.
inline constexpr std::array<std::string_view, 5> client_names{"llama.cpp", "vllm", "transformers", "mlx",
                                                              "onnxruntime"};

/// The client of that name, or nothing.
std::optional<client> find_client(std::string_view name);

/// What of a layout's possibilities a layer uses, as far as clients care.
struct stored_form {
    packed_layout layout = packed_layout::gptq;
    std::string format = {}; ///< of compressed-tensors; empty for other layouts
    int bits = 4;
    index_t group = 0;      ///< inputs that share a scale, 0 for all of them
    bool symmetric = true;  ///< no zero points
    bool reordered = false; ///< groups follow activation order
    bool rounds_input = false;

    friend bool operator==(stored_form const&, stored_form const&) = default;
};

/// The form of a layer in a layout that can hold it; of the matrix, codes and scales are not looked at.
stored_form form_of(packed_layout layout, packed_matrix const& w, stored_input const* input = nullptr);

/// Why a client does not open a checkpoint with such layers as they are; empty when it does. What is known of clients
/// is in a table beside the definition; it follows their sources and documentation as of 2026.
std::string client_obstacle(client who, stored_form const& form);

/// The clients that open such layers.
std::vector<client> clients_of(stored_form const& form);

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/clients.ipp" // IWYU pragma: export
#endif
