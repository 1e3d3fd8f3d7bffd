// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/evidence/hessian.hpp"

namespace detent::inline DETENT_ABI {

/// Writes Hessians to one safetensors file, so that inputs need not be collected again for another quantizer; those of
/// several programs are added up by `+=`. For each name it holds
///
///     <name>         F64, n (n + 1) / 2: the upper triangle of sum x x^T, not scaled, row after row
///     <name>.tokens  I64, 1: how many inputs x there were
///
/// @throws error naming the file where it cannot be written, which is then as it was.
void save_hessians(std::filesystem::path const& path, std::map<std::string, hessian> const& hessians);

/// The Hessians of a file that `save_hessians` wrote, to the bit. @throws error naming the file and the tensor whose
/// type, size or numbers are wrong or that has no other half.
std::map<std::string, hessian> load_hessians(std::filesystem::path const& path);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/hessians.ipp" // IWYU pragma: export
#endif
