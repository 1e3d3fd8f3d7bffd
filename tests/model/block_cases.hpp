// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/model/dense_block.hpp"
#include "detent/model/load.hpp"
#include "model/family_fixtures.hpp"
#include "model/random_decoder.hpp"

namespace detent::test {

/// A block in double, made when a test needs it.
struct block_case {
    std::string name;
    std::function<dense_block<double>()> make;

    friend std::ostream& operator<<(std::ostream& out, block_case const& c) { return out << c.name; }
};

/// The step and the tolerance of differences. Where gates are limited no step should cross the limit, so it is shorter.
struct difference_rule {
    double step = 1e-3;
    double tolerance = 1e-6;

    static difference_rule of(dense_block<double> const& b, double step = 1e-3) {
        return b.gate_form.limit > 0 && b.gate_form.limit < 2 ? difference_rule{1e-6, 1e-4}
                                                              : difference_rule{step, 1e-6};
    }
};

/// The first block of a random decoder of each form.
inline std::vector<block_case> small_blocks() {
    std::vector<block_case> all;
    for (auto const& form : decoder_forms()) {
        all.push_back(
            {form.name, [c = form.configuration] { return dense<double>(random_decoder(c).blocks.front()); }});
    }
    return all;
}

/// The first and the last block of the checkpoint of each family.
inline std::vector<block_case> family_blocks() {
    std::vector<block_case> all;
    for (auto const& fixture : family_fixtures("decoder")) {
        std::string name = fixture.name();
        std::ranges::replace(name, '-', '_');
        all.push_back(
            {name + "_first", [fixture] { return dense<double>(load_decoder(fixture.directory).blocks.front()); }});
        all.push_back(
            {name + "_last", [fixture] { return dense<double>(load_decoder(fixture.directory).blocks.back()); }});
    }
    return all;
}

inline std::string case_name(testing::TestParamInfo<block_case> const& test) { return test.param.name; }

} // namespace detent::test
