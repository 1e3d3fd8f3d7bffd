// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdio>
#include <initializer_list>

extern "C" {
double of_plain_unit();
double of_avx2_unit();
double of_plain_library();
double of_avx2_library();
}

int main() {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        std::puts("skipped: this processor has no AVX2");
        return 0;
    }
    constexpr double right = 193280;
    for (int i = 0; i < 3; ++i) { // memory that one freed is what another gets
        for (auto const sum : {of_plain_unit, of_avx2_unit, of_plain_library, of_avx2_library}) {
            if (sum() != right) {
                std::printf("%g is not %g\n", sum(), right);
                return 1;
            }
        }
    }
    return 0;
}
