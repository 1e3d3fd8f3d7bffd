// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

/// The version of detent; CMake reads it from here.
#define DETENT_VERSION_MAJOR 0
#define DETENT_VERSION_MINOR 1
#define DETENT_VERSION_PATCH 0
