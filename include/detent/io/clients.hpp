// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cstddef>
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

/// A model as one file, of which one kind of client opens all.
enum class model_file { gguf, onnx };

/// What people call it.
constexpr std::string_view name_of(client who) { return client_names[static_cast<std::size_t>(who)]; }
constexpr std::string_view name_of(model_file file) { return file == model_file::gguf ? "GGUF" : "ONNX"; }

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

/// Why a client does not open such a file, which was written without obstacles; empty when it does.
std::string client_obstacle(client who, model_file file);

/// The clients that open all such layers of a checkpoint.
std::vector<client> clients_of(std::span<stored_form const> forms);

/// The clients that open such a file.
std::vector<client> clients_of(model_file file);

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/clients.ipp" // IWYU pragma: export
#endif
