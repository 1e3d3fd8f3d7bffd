// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/version.hpp"

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__)
#error "detent rounds by IEEE 754: after -ffast-math or -Ofast also give -fno-unsafe-math-optimizations"
#endif

// All of detent lives in an inline namespace whose name contains every compile flag that changes the body of a
// function, so that translation units with other flags never share one: a linker keeps one body for each name, and an
// AVX-512 body would end up in a program that runs on an older processor. tools/check_rooms.py finds flags that
// headers test and the name lacks.
//
// The name is v<version>_<instructions>_<options>, hexadecimal digits of which most stand for four flags; macros named
// DETENT_ABI_<letter> are their bits, from left to right. Each is chosen here once, because a macro that tests flags
// would be evaluated again wherever the name is written.

// The first digit: which of the instruction sets that contain each other.
#if defined(__AVX512F__)
#define DETENT_ABI_SET 8
#elif defined(__AVX2__) || defined(__ARM_FEATURE_SVE2)
#define DETENT_ABI_SET 7
#elif defined(__AVX__) || defined(__ARM_FEATURE_SVE)
#define DETENT_ABI_SET 6
#elif defined(__SSE4_2__)
#define DETENT_ABI_SET 5
#elif defined(__SSE4_1__)
#define DETENT_ABI_SET 4
#elif defined(__SSSE3__)
#define DETENT_ABI_SET 3
#elif defined(__SSE3__)
#define DETENT_ABI_SET 2
#elif defined(__SSE2__) || defined(__ARM_NEON) || defined(__VSX__) || defined(__wasm_simd128__)
#define DETENT_ABI_SET 1
#else
#define DETENT_ABI_SET 0
#endif

// What AVX and AVX2 may come with; of ARM, what products of integers and of halves use.
#if defined(__F16C__) || defined(__ARM_FEATURE_DOTPROD)
#define DETENT_ABI_A 1
#else
#define DETENT_ABI_A 0
#endif
#if defined(__FMA__) || defined(__ARM_FEATURE_MATMUL_INT8)
#define DETENT_ABI_B 1
#else
#define DETENT_ABI_B 0
#endif
#if defined(__BMI2__) || defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
#define DETENT_ABI_C 1
#else
#define DETENT_ABI_C 0
#endif
#if defined(__AVXVNNI__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define DETENT_ABI_D 1
#else
#define DETENT_ABI_D 0
#endif

// Parts of AVX-512.
#if defined(__AVX512BW__)
#define DETENT_ABI_E 1
#else
#define DETENT_ABI_E 0
#endif
#if defined(__AVX512CD__)
#define DETENT_ABI_F 1
#else
#define DETENT_ABI_F 0
#endif
#if defined(__AVX512DQ__)
#define DETENT_ABI_G 1
#else
#define DETENT_ABI_G 0
#endif
#if defined(__AVX512VL__)
#define DETENT_ABI_H 1
#else
#define DETENT_ABI_H 0
#endif

// More of them.
#if defined(__AVX512VBMI__)
#define DETENT_ABI_I 1
#else
#define DETENT_ABI_I 0
#endif
#if defined(__AVX512VNNI__)
#define DETENT_ABI_J 1
#else
#define DETENT_ABI_J 0
#endif
#if defined(__AVX512BF16__)
#define DETENT_ABI_K 1
#else
#define DETENT_ABI_K 0
#endif
#if defined(__AVX512FP16__)
#define DETENT_ABI_L 1
#else
#define DETENT_ABI_L 0
#endif

// Others that only compilers and xsimd use.
#if defined(__AVX512IFMA__) || defined(__AVX512VBMI2__)
#define DETENT_ABI_M 1
#else
#define DETENT_ABI_M 0
#endif
#if defined(__FMA4__) || defined(__XOP__)
#define DETENT_ABI_N 1
#else
#define DETENT_ABI_N 0
#endif
#if defined(__POPCNT__)
#define DETENT_ABI_O 1
#else
#define DETENT_ABI_O 0
#endif
#if defined(__BMI__) || defined(__LZCNT__) || defined(__MOVBE__)
#define DETENT_ABI_P 1
#else
#define DETENT_ABI_P 0
#endif

// The options. DETENT_CHECKS=1 keeps the checks of core/contract.hpp in release builds, DETENT_CHECKS=0 leaves them out
// of others.
#if defined(DETENT_CHECKS)
#define DETENT_ABI_CHECKS DETENT_CHECKS
#elif defined(NDEBUG)
#define DETENT_ABI_CHECKS 0
#else
#define DETENT_ABI_CHECKS 1
#endif
// Errors are thrown or handed to a handler.
#if defined(__cpp_exceptions)
#define DETENT_ABI_R 1
#else
#define DETENT_ABI_R 0
#endif
// OpenMP changes what `serial` is.
#if defined(_OPENMP)
#define DETENT_ABI_S 1
#else
#define DETENT_ABI_S 0
#endif
// With the target detent::kernels, products are its own.
#if defined(DETENT_KERNELS)
#define DETENT_ABI_T 1
#else
#define DETENT_ABI_T 0
#endif

// The BLAS and LAPACK that Eigen was told to use are where the products of solvers go.
#if defined(EIGEN_USE_BLAS)
#define DETENT_ABI_U 1
#else
#define DETENT_ABI_U 0
#endif
#if defined(EIGEN_USE_LAPACKE)
#define DETENT_ABI_V 1
#else
#define DETENT_ABI_V 0
#endif
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#define DETENT_ABI_W 1
#else
#define DETENT_ABI_W 0
#endif

// The libraries that tokenizers need and CMake found: PCRE2 and utf8proc, and SentencePiece.
#if defined(DETENT_UNICODE)
#define DETENT_ABI_X 1
#else
#define DETENT_ABI_X 0
#endif
#if defined(DETENT_SENTENCEPIECE)
#define DETENT_ABI_Y 1
#else
#define DETENT_ABI_Y 0
#endif

// The last digit: where Eigen's matrices begin. This is what Eigen will say, which may not be included yet.
#if defined(EIGEN_DONT_ALIGN)
#define DETENT_ABI_ALIGNMENT 0
#elif defined(EIGEN_MAX_ALIGN_BYTES) && EIGEN_MAX_ALIGN_BYTES > 64
#define DETENT_ABI_ALIGNMENT 8
#elif (defined(EIGEN_MAX_ALIGN_BYTES) && EIGEN_MAX_ALIGN_BYTES > 32) ||                                                \
    (!defined(EIGEN_MAX_ALIGN_BYTES) && !defined(EIGEN_DONT_VECTORIZE) && defined(__AVX512F__))
#define DETENT_ABI_ALIGNMENT 4
#elif (defined(EIGEN_MAX_ALIGN_BYTES) && EIGEN_MAX_ALIGN_BYTES > 16) ||                                                \
    (!defined(EIGEN_MAX_ALIGN_BYTES) && !defined(EIGEN_DONT_VECTORIZE) && defined(__AVX__))
#define DETENT_ABI_ALIGNMENT 2
#elif (defined(EIGEN_MAX_ALIGN_BYTES) && EIGEN_MAX_ALIGN_BYTES > 0) ||                                                 \
    (!defined(EIGEN_MAX_ALIGN_BYTES) && !defined(EIGEN_DONT_VECTORIZE))
#define DETENT_ABI_ALIGNMENT 1
#else
#define DETENT_ABI_ALIGNMENT 0
#endif

#define DETENT_ABI_HEX_0000 0
#define DETENT_ABI_HEX_0001 1
#define DETENT_ABI_HEX_0010 2
#define DETENT_ABI_HEX_0011 3
#define DETENT_ABI_HEX_0100 4
#define DETENT_ABI_HEX_0101 5
#define DETENT_ABI_HEX_0110 6
#define DETENT_ABI_HEX_0111 7
#define DETENT_ABI_HEX_1000 8
#define DETENT_ABI_HEX_1001 9
#define DETENT_ABI_HEX_1010 a
#define DETENT_ABI_HEX_1011 b
#define DETENT_ABI_HEX_1100 c
#define DETENT_ABI_HEX_1101 d
#define DETENT_ABI_HEX_1110 e
#define DETENT_ABI_HEX_1111 f
#define DETENT_ABI_HEX_OF(a, b, c, d) DETENT_ABI_HEX_##a##b##c##d
#define DETENT_ABI_HEX(a, b, c, d) DETENT_ABI_HEX_OF(a, b, c, d)
#define DETENT_ABI_PASTE_OF(a, b, c, d, e) a##b##c##d##e
#define DETENT_ABI_PASTE(a, b, c, d, e) DETENT_ABI_PASTE_OF(a, b, c, d, e)

#define DETENT_ABI_VERSION DETENT_ABI_PASTE(v, DETENT_VERSION_MAJOR, _, DETENT_VERSION_MINOR, )
#define DETENT_ABI_INSTRUCTIONS                                                                                        \
    DETENT_ABI_PASTE(DETENT_ABI_SET, DETENT_ABI_HEX(DETENT_ABI_A, DETENT_ABI_B, DETENT_ABI_C, DETENT_ABI_D),           \
                     DETENT_ABI_HEX(DETENT_ABI_E, DETENT_ABI_F, DETENT_ABI_G, DETENT_ABI_H),                           \
                     DETENT_ABI_HEX(DETENT_ABI_I, DETENT_ABI_J, DETENT_ABI_K, DETENT_ABI_L),                           \
                     DETENT_ABI_HEX(DETENT_ABI_M, DETENT_ABI_N, DETENT_ABI_O, DETENT_ABI_P))
#define DETENT_ABI_OPTIONS                                                                                             \
    DETENT_ABI_PASTE(DETENT_ABI_HEX(DETENT_ABI_CHECKS, DETENT_ABI_R, DETENT_ABI_S, DETENT_ABI_T),                      \
                     DETENT_ABI_HEX(DETENT_ABI_U, DETENT_ABI_V, DETENT_ABI_W, 0),                                      \
                     DETENT_ABI_HEX(DETENT_ABI_X, DETENT_ABI_Y, 0, 0), DETENT_ABI_ALIGNMENT, )
#define DETENT_ABI DETENT_ABI_PASTE(DETENT_ABI_VERSION, _, DETENT_ABI_INSTRUCTIONS, _, DETENT_ABI_OPTIONS)

// Functions declared in a header and defined in the file of the same name that ends in .ipp are inline, or with the
// target detent::compiled, its own.
#if defined(DETENT_COMPILED)
#define DETENT_INLINE
#else
#define DETENT_INLINE inline
#endif

#if defined(DETENT_COMPILED)
// detent::compiled has these symbols for its own version and flags. Every unit that is to be linked with it refers to
// those for its own, so that linkers which do not find the functions of other flags say what the matter is.
#define DETENT_ABI_VERSION_SYMBOL DETENT_ABI_PASTE(detent_compiled_has_another_version_than_, DETENT_ABI_VERSION, , , )
#define DETENT_ABI_INSTRUCTIONS_SYMBOL                                                                                 \
    DETENT_ABI_PASTE(detent_compiled_has_other_instructions_than_, DETENT_ABI_INSTRUCTIONS, , , )
#define DETENT_ABI_OPTIONS_SYMBOL DETENT_ABI_PASTE(detent_compiled_has_other_options_than_, DETENT_ABI_OPTIONS, , , )
extern "C" {
extern char const DETENT_ABI_VERSION_SYMBOL;
extern char const DETENT_ABI_INSTRUCTIONS_SYMBOL;
extern char const DETENT_ABI_OPTIONS_SYMBOL;
}
namespace detent::inline DETENT_ABI {
[[gnu::used, gnu::visibility("hidden")]] inline char const* const same_flags[] = {
    &DETENT_ABI_VERSION_SYMBOL, &DETENT_ABI_INSTRUCTIONS_SYMBOL, &DETENT_ABI_OPTIONS_SYMBOL};
} // namespace detent::inline DETENT_ABI
#endif
