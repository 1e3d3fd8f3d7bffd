// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Files of Hessians, which are then added and used, and of what was learned. The first byte says which, and whether the
// header has its length already.

#include "detent/calibrate/hessians.hpp"
#include "detent/calibrate/learned_file.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/solver/gptq.hpp"
#include "fuzz.hpp"

namespace {

using namespace detent;

void use_hessians(std::filesystem::path const& path) {
    auto hessians = load_hessians(path);
    for (auto& entry : hessians) {
        hessian& h = entry.second;
        fuzz::attempt([&] { h += hessian(h); });
        fuzz::attempt([&] {
            if (h.features() > 0 && h.features() <= 64) {
                matrix w(4, h.features());
                for (index_t i = 0; i < w.size(); ++i) {
                    w.data()[i] = static_cast<float>(i * 7 % 13 - 6);
                }
                (void)dequantize(quantizer<int_grid<4>, per_group<16>, gptq<>>{}(w, h).packed());
            }
        });
    }
    save_hessians(fuzz::room() / "again.safetensors", hessians);
}

void use_learned(std::filesystem::path const& path) {
    block_parameters<float> first;
    auto& clip = first.clips[{linear_role::query, 0}];
    clip.low = matrix::Zero(2, 2);
    clip.high = matrix::Zero(2, 2);
    auto const found = load(path, first, fingerprint{});
    fuzz::expect(found.parameters.clips.begin()->second.low.size() == 4, "a clip keeps its shape");
}

} // namespace

DETENT_FUZZ_TARGET(stored) {
    if (size == 0) {
        return 0;
    }
    auto const path = fuzz::room() / "stored.safetensors";
    fuzz::put(path, fuzz::file_of(data[0] % 2 != 0, fuzz::text_of(data + 1, size - 1)));
    fuzz::attempt([&] { data[0] / 2 % 2 == 0 ? use_hessians(path) : use_learned(path); });
    return 0;
}
