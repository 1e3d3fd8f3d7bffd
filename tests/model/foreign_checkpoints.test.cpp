// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "calibrate/tiny_models.hpp"
#include "detent/calibrate/perplexity.hpp"
#include "detent/io/json.hpp"
#include "detent/io/text_file.hpp"
#include "detent/model/load.hpp"

namespace detent {
namespace {

/// The checkpoints that others packed: each has the perplexity that transformers found with its dequantized weights.
TEST(foreign_checkpoints, have_the_perplexity_of_their_reference) {
    std::filesystem::path const all = DETENT_SHARED_DIR "/clients/foreign";
    if (!std::filesystem::exists(all)) {
        GTEST_SKIP() << "no checkpoints at " << all;
    }
    std::string const text = io::read_text(DETENT_EXAMPLES_DIR "/text/novels_evaluation.txt").substr(0, 1024);
    std::vector<nn::token_id> tokens;
    for (char const c : text) {
        tokens.push_back(static_cast<unsigned char>(c));
    }
    int found = 0;
    for (auto const& entry : std::filesystem::directory_iterator(all)) {
        auto const reference = io::read_json(entry.path() / "reference.json").at("perplexity").get<double>();
        EXPECT_NEAR(perplexity(load_decoder(entry.path()), tokens, 512, test::two_threads()), reference, 1e-5)
            << entry.path();
        ++found;
    }
    EXPECT_GE(found, 5);
}

} // namespace
} // namespace detent
