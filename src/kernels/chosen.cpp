// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "detent/kernel/compiled.hpp"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace detent::compiled {

extern "C" {
#if defined(__x86_64__)
extern unit const detent_kernels_avx512_bf16;
extern unit const detent_kernels_avx512_vbmi;
extern unit const detent_kernels_avx512;
extern unit const detent_kernels_avx2;
#elif defined(__aarch64__)
extern unit const detent_kernels_dotprod;
#endif
extern unit const detent_kernels_baseline;
}

namespace {

std::vector<unit const*> units_of_processor() {
    std::vector<unit const*> units;
    auto const add_if = [&](bool runs, unit const& u) {
        if (runs) {
            units.push_back(&u);
        }
    };
#if defined(__x86_64__)
    auto const all = [](auto... supported) { return (static_cast<bool>(supported) && ...); };
    bool const avx2 = all(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma"), __builtin_cpu_supports("bmi"),
                          __builtin_cpu_supports("bmi2"));
    bool const avx512 =
        all(avx2, __builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"),
            __builtin_cpu_supports("avx512dq"), __builtin_cpu_supports("avx512vl"), __builtin_cpu_supports("avx512cd"));
    bool const vbmi = all(avx512, __builtin_cpu_supports("avx512vbmi"), __builtin_cpu_supports("avx512vnni"));
    add_if(all(vbmi, __builtin_cpu_supports("avx512bf16")), detent_kernels_avx512_bf16);
    add_if(vbmi, detent_kernels_avx512_vbmi);
    add_if(avx512, detent_kernels_avx512);
    add_if(avx2, detent_kernels_avx2);
#elif defined(__aarch64__) && defined(__linux__)
    add_if((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0, detent_kernels_dotprod);
#endif
    units.push_back(&detent_kernels_baseline);
    return units;
}

} // namespace

std::span<unit const* const> available() {
    static std::vector<unit const*> const units = units_of_processor();
    return units;
}

namespace {

/// The fastest unit, or the one that DETENT_KERNELS names.
unit const& choice() {
    static unit const& found = []() -> unit const& {
        char const* const name = std::getenv("DETENT_KERNELS");
        if (name == nullptr) {
            return *available().front();
        }
        std::string names;
        for (unit const* const u : available()) {
            if (u->name == std::string_view(name)) {
                return *u;
            }
            names += std::string(" ") + u->name;
        }
        throw std::runtime_error(std::string("DETENT_KERNELS is \"") + name + "\"; this processor runs:" + names);
    }();
    return found;
}

/// Throws where detent::kernels says another number of its headers than its caller.
void expect_same(std::uint32_t ours, std::uint32_t callers, char const* what) {
    if (ours != callers) {
        throw std::runtime_error("detent::kernels was compiled from other headers of detent (" + std::string(what) +
                                 " " + std::to_string(ours) + ") than its caller (" + what + " " +
                                 std::to_string(callers) + "): use the headers that were installed with it");
    }
}

} // namespace

unit const& chosen(std::uint32_t layout) {
    unit const& u = choice();
    expect_same(u.layout, layout, "layout");
    return u;
}

dense_products const& chosen_products(std::uint32_t version) {
    dense_products const& products = choice().dense;
    expect_same(products.version, version, "dense products");
    return products;
}

} // namespace detent::compiled
