// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/layout.hpp"
#include "detent/io/packed_parts.hpp"
#include "detent/io/quantization_settings.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/io/stored_input.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// All layouts that are known: the only list of them.
std::span<checkpoint_layout const* const> layouts();

/// The layout of this kind.
checkpoint_layout const& layout_of(packed_layout id);

/// The layout that people call so, such as `compressed-tensors`; null for none.
checkpoint_layout const* find_layout(std::string_view name);

/// Reads packed matrices back from a checkpoint, in whatever layout its settings name. Every error names the tensor or
/// the field of the settings.
class packed_reader {
public:
    /// @throws error when the settings name a layout that is not known, or one of their fields is impossible; without
    /// settings, when a tensor has a name that only packed weights have.
    packed_reader(checkpoint const& file, quantization_settings const& settings);

    /// Whether layer `name` is stored packed.
    bool contains(std::string const& name) const { return reader_->contains(name); }

    /// Layer `name` of this shape. @throws error when a tensor is missing, has another shape or makes no sense.
    packed_matrix read(std::string const& name, extents shape) const { return reader_->read(name, shape); }

    /// As `layout_reader` has them.
    std::optional<stored_input> input(std::string const& name, index_t in) const { return reader_->input(name, in); }
    std::optional<packed_matrix> read_expert(std::string const& name, index_t experts, index_t expert,
                                             extents shape) const {
        return reader_->read_expert(name, experts, expert, shape);
    }
    bool is_extra(std::string const& tensor) const { return reader_->is_extra(tensor); }
    bool has_new_biases() const { return reader_->has_new_biases(); }
    std::vector<std::string> const& warnings() const { return reader_->warnings(); }

private:
    std::unique_ptr<layout_reader> reader_;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/packed_tensors.ipp" // IWYU pragma: export
#endif
