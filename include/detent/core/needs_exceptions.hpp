// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

// Included by headers of what reads files and specifications, where wrong data is common and a program goes on after it.
#if !defined(__cpp_exceptions)
#error "files, models, calibration and the run-time catalogue of detent need exceptions; detent/detent.hpp does not"
#endif
