// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "calibrate/tiny_models.hpp"
#include "detent/calibrate/perplexity.hpp"
#include "detent/calibrate/quantize_named.hpp"
#include "detent/model/load.hpp"
#include "detent/model/save.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "io/temporary_directory.hpp"
#include "model/family_fixtures.hpp"

// What the papers do to models, done to a small checkpoint of every family: quantized, saved, and run from the file.
namespace detent {
namespace {

/// One kind of each paper: GPTQ, OWQ, OmniQuant with both of its parts, LLM-FP4; and one whose layers map their inputs.
constexpr char const* specifications[] = {"int4:g32:gptq", "int3:owq=2", "int4:lwc:let:epochs=2", "fp4:a=fp4",
                                          "int4:smooth:gptq"};

class family_quantized : public testing::TestWithParam<test::family_fixture> {
protected:
    static constexpr index_t window = 64;
    std::vector<nn::token_id> const tokens_ = test::family_tokens(); // 4 windows

    double perplexity_of(decoder const& model) const { return perplexity(model, tokens_, window, test::two_threads()); }
};
INSTANTIATE_TEST_SUITE_P(, family_quantized, testing::ValuesIn(test::family_fixtures("decoder")), test::fixture_name);

TEST_P(family_quantized, runs_from_its_file_as_it_did_in_memory) {
    decoder const original = load_decoder(GetParam().directory);
    double const exact = perplexity_of(original);
    EXPECT_NEAR(exact, GetParam().reference().at("perplexity").get<double>(), 1e-4 * exact);
    for (std::string const text : specifications) {
        SCOPED_TRACE(text);
        decoder model = original;
        auto const reports = quantize_decoder(
            model, spec::parse(text), {.tokens = tokens_, .window = window, .all_experts = true}, test::two_threads());
        EXPECT_EQ(reports.size(), packed_layers(model).size());
        for (auto const& r : reports) {
            EXPECT_EQ(r.tokens, std::ssize(tokens_)) << r.name;
            EXPECT_GT(r.error, 0) << r.name;
            EXPECT_LT(r.error, 0.2) << r.name;
        }
        double const packed = perplexity_of(model);
        EXPECT_NE(packed, exact);
        EXPECT_NEAR(std::log(packed), std::log(exact), 0.5);

        temporary_directory const directory;
        save_decoder(model, GetParam().directory, directory / "saved", text);
        EXPECT_NEAR(perplexity_of(load_decoder(directory / "saved")), packed, 1e-5 * packed);
    }
}

// Experts as their router finds them.
TEST_P(family_quantized, tells_how_many_tokens_an_expert_saw) {
    decoder model = load_decoder(GetParam().directory);
    bool const experts = model.configuration.experts.has_value();
    auto const reports = quantize_decoder(model, spec::parse("int4:g32:gptq:or-rtn"),
                                          {.tokens = tokens_, .window = window}, test::two_threads());
    index_t sent = 0; // to all experts of all blocks
    for (auto const& r : reports) {
        sent += r.place.role == linear_role::up ? r.tokens : 0;
        EXPECT_EQ(r.few_tokens, experts && r.tokens < r.shape.cols) << r.name;
    }
    index_t expected = 0;
    for (block const& b : model.blocks) {
        index_t const shared = std::ssize(b.mlps) - b.experts();
        expected += std::ssize(tokens_) * (shared + (b.router ? b.routing.experts_per_token : 0));
    }
    EXPECT_EQ(sent, expected);
    EXPECT_TRUE(std::isfinite(perplexity_of(model)));
}

} // namespace
} // namespace detent
