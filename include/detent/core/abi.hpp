// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

/// An inline namespace chosen from the compile flags, so that two translation units built for different instruction
/// sets never share an inline function: without it the linker keeps one of the two, and an AVX-512 body may end up
/// in a program that runs on an older processor.
#if defined(__AVX512F__) && defined(__AVX512BW__)
#define DETENT_ABI abi_avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define DETENT_ABI abi_avx2
#elif defined(__AVX__)
#define DETENT_ABI abi_avx
#elif defined(__SSE4_2__)
#define DETENT_ABI abi_sse4_2
#elif defined(__ARM_NEON)
#define DETENT_ABI abi_neon
#else
#define DETENT_ABI abi_generic
#endif
