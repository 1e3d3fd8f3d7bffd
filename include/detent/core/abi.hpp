// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__)
#error "detent rounds by IEEE 754: after -ffast-math or -Ofast also give -fno-unsafe-math-optimizations"
#endif

/// An inline namespace chosen from the compile flags, so that two translation units built for different instruction
/// sets never share an inline function: without it the linker keeps one of the two, and an AVX-512 body may end up
/// in a program that runs on an older processor.
#if defined(__AVX512F__) && defined(__AVX512BW__)
#define DETENT_ABI_SET avx512bw
#elif defined(__AVX512F__)
#define DETENT_ABI_SET avx512f
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define DETENT_ABI_SET avx2_fma_f16c
#elif defined(__AVX2__) && defined(__FMA__)
#define DETENT_ABI_SET avx2_fma
#elif defined(__AVX2__)
#define DETENT_ABI_SET avx2
#elif defined(__AVX__) && defined(__F16C__)
#define DETENT_ABI_SET avx_f16c
#elif defined(__AVX__)
#define DETENT_ABI_SET avx
#elif defined(__SSE4_2__)
#define DETENT_ABI_SET sse4_2
#elif defined(__ARM_NEON)
#define DETENT_ABI_SET neon
#else
#define DETENT_ABI_SET generic
#endif

// Products of integers and of bfloat16 use these where there are.
#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__) && defined(__AVX512BF16__)
#define DETENT_ABI_BYTES vnni_vbmi_bf16
#elif defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
#define DETENT_ABI_BYTES vnni_vbmi
#elif defined(__AVX512VNNI__)
#define DETENT_ABI_BYTES vnni
#elif defined(__AVX512VBMI__)
#define DETENT_ABI_BYTES vbmi
#elif defined(__AVXVNNI__)
#define DETENT_ABI_BYTES avxvnni
#elif defined(__ARM_FEATURE_DOTPROD)
#define DETENT_ABI_BYTES dotprod
#elif defined(__SSSE3__)
#define DETENT_ABI_BYTES ssse3
#else
#define DETENT_ABI_BYTES plain
#endif

// OpenMP changes what `serial` and `thread_team` are.
#if defined(_OPENMP)
#define DETENT_ABI_THREADS openmp
#else
#define DETENT_ABI_THREADS no_openmp
#endif

// The BLAS and LAPACK that Eigen was told to use are where the products of solvers go.
#if defined(EIGEN_USE_BLAS) && defined(EIGEN_USE_LAPACKE)
#define DETENT_ABI_PRODUCTS blas_lapacke
#elif defined(EIGEN_USE_BLAS)
#define DETENT_ABI_PRODUCTS blas
#elif defined(EIGEN_USE_LAPACKE)
#define DETENT_ABI_PRODUCTS lapacke
#else
#define DETENT_ABI_PRODUCTS own
#endif

// With the target detent::kernels, products are its own.
#if defined(DETENT_KERNELS)
#define DETENT_ABI_KERNELS compiled
#else
#define DETENT_ABI_KERNELS inlined
#endif

#define DETENT_ABI_JOIN(set, bytes, threads, products, kernels) abi_##set##_##bytes##_##threads##_##products##_##kernels
#define DETENT_ABI_NAME(set, bytes, threads, products, kernels) DETENT_ABI_JOIN(set, bytes, threads, products, kernels)
#define DETENT_ABI                                                                                                     \
    DETENT_ABI_NAME(DETENT_ABI_SET, DETENT_ABI_BYTES, DETENT_ABI_THREADS, DETENT_ABI_PRODUCTS, DETENT_ABI_KERNELS)

// Functions declared in a header and defined in the file of the same name that ends in .ipp are inline, or with the
// target detent::compiled, its own.
#if defined(DETENT_COMPILED)
#define DETENT_INLINE
#else
#define DETENT_INLINE inline
#endif
