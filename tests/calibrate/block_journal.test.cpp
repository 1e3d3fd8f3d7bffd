// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cctype>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "calibrate/tiny_models.hpp"
#include "detent/calibrate/block_journal.hpp"
#include "detent/calibrate/quantize_named.hpp"
#include "detent/model/block_file.hpp"
#include "detent/model/block_sequence.hpp"
#include "detent/model/load.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"

namespace detent {
namespace {

namespace fs = std::filesystem;

/// Blocks that are read from a file when they are opened, and kept only when they are closed.
class kept_blocks final : public block_sequence {
public:
    explicit kept_blocks(decoder_file const& file) : file_(file) {}
    index_t size() const override { return file_.size(); }
    block& open(index_t i) override {
        EXPECT_FALSE(open_.has_value()) << "one block at a time";
        EXPECT_EQ(i, std::ssize(closed));
        return open_.emplace(file_.read_block(i));
    }
    void close(index_t) override { closed.push_back(*std::exchange(open_, {})); }

    std::vector<block> closed;

private:
    decoder_file const& file_;
    std::optional<block> open_;
};

std::vector<std::pair<std::string, packed_matrix>> packed_of(std::vector<block> const& blocks) {
    std::vector<std::pair<std::string, packed_matrix>> all;
    for (block const& b : blocks) {
        for (layer_place const place : b.places()) {
            if (auto const* packed = std::get_if<packed_matrix>(&b.linear(place).weight)) {
                all.emplace_back(b.linear(place).name, *packed);
            }
        }
    }
    return all;
}

/// All norms that a block may have.
std::vector<std::optional<norm_layer> const*> norms_of(block const& b) {
    auto const &attention = b.attention_norms, &mlp = b.mlp_norms;
    return {&attention.input, &attention.output, &attention.sum, &mlp.input, &mlp.output, &mlp.sum,
            &b.query_norm,    &b.key_norm};
}

/// Equal to the bit in all that a block file holds.
void expect_same(block const& a, block const& b) {
    for (layer_place const place : a.places()) {
        auto const &x = a.linear(place), &y = b.linear(place);
        EXPECT_TRUE(x.weight == y.weight) << x.name;
        EXPECT_EQ(x.bias.size(), y.bias.size()) << x.name;
        EXPECT_TRUE(x.bias == y.bias) << x.name;
        EXPECT_TRUE(x.input == y.input) << x.name;
    }
    auto const norms_a = norms_of(a);
    auto const norms_b = norms_of(b);
    for (std::size_t i = 0; i < norms_a.size(); ++i) {
        ASSERT_EQ(norms_a[i]->has_value(), norms_b[i]->has_value());
        if (*norms_a[i]) {
            EXPECT_TRUE((*norms_a[i])->weight == (*norms_b[i])->weight);
            EXPECT_EQ((*norms_a[i])->bias.size(), (*norms_b[i])->bias.size());
            EXPECT_TRUE((*norms_a[i])->bias == (*norms_b[i])->bias);
        }
    }
    EXPECT_TRUE(a.head_input == b.head_input);
    EXPECT_EQ(a.heads.probability_bits, b.heads.probability_bits);
}

struct run_result {
    std::vector<block> blocks;
    std::vector<layer_report> reports;
    matrix embeddings;
};

class journal_of : public testing::TestWithParam<std::pair<char const*, char const*>> {
protected:
    calibration few() const { return {.tokens = text_, .window = 32, .windows = 2}; }

    fs::path model() const { return test::model_directory(GetParam().first); }
    spec specification() const { return spec::parse(GetParam().second); }

    /// Quantizes from a file, block by block.
    run_result quantize_file(calibration const& text, progress const& report = {}) const {
        decoder_file file(model());
        decoder ends = file.take_ends();
        kept_blocks blocks(file);
        run_result r;
        r.reports = quantize_decoder(ends, blocks, specification(), text, test::two_threads(), report);
        r.blocks = std::move(blocks.closed);
        return r;
    }

    /// A block that is saved and read again is what it was.
    void expect_read_back(std::vector<block> const& blocks) const {
        decoder_file const file(model());
        auto const path = directory_ / "b.safetensors";
        for (index_t i = 0; i < file.size(); ++i) {
            block const& now = blocks[static_cast<std::size_t>(i)];
            save_block(now, path, {{"a", "b"}});
            block b = file.read_block(i);
            EXPECT_EQ(load_block(b, path).at("a"), "b");
            expect_same(b, now);
            block o = outline_of(now);
            load_block(o, path);
            expect_same(o, now);
        }
    }

    std::vector<nn::token_id> const text_ = test::calibration_text();
    temporary_directory directory_;
};

INSTANTIATE_TEST_SUITE_P(, journal_of,
                         testing::Values(std::pair("tiny-llama", "int4:rtn"), std::pair("tiny-llama", "int4:g64:gptq"),
                                         std::pair("tiny-opt", "int3:gptq:owq=2"),
                                         std::pair("tiny-llama", "int4:gptaq"),
                                         std::pair("tiny-opt", "int3:lwc:epochs=1"),
                                         std::pair("tiny-opt", "int4:a=int8:let:epochs=1")),
                         [](auto const& test) {
                             std::string name = std::string(test.param.first) + "_" + test.param.second;
                             for (char& c : name) {
                                 c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
                             }
                             return name;
                         });

TEST_P(journal_of, blocks_from_a_file_and_activations_in_files_give_the_bits_of_a_model_in_memory) {
    decoder model = load_decoder(this->model());
    auto const expected = quantize_decoder(model, specification(), few(), test::two_threads());
    auto text = few();
    text.activation_bytes = 0;
    text.scratch = directory_.path();
    auto const streamed = quantize_file(text);
    ASSERT_EQ(streamed.blocks.size(), model.blocks.size());
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
        expect_same(streamed.blocks[i], model.blocks[i]);
    }
    ASSERT_EQ(streamed.reports.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(streamed.reports[i].name, expected[i].name);
        EXPECT_EQ(streamed.reports[i].error, expected[i].error);
        EXPECT_EQ(streamed.reports[i].float_error, expected[i].float_error);
    }
    EXPECT_TRUE(fs::is_empty(directory_.path()));
    expect_read_back(streamed.blocks);
}

TEST_P(journal_of, a_run_that_is_stopped_anywhere_goes_on_with_the_same_bits) {
    auto const expected = quantize_file(few());
    ASSERT_FALSE(packed_of(expected.blocks).empty());
    // Every number of steps after which the run is stopped is tried, each time going on from where the last was
    // stopped.
    bool finished = false;
    int stopped = 0;
    for (int steps = 1; !finished; steps += 11) {
        auto text = few();
        text.activation_bytes = steps % 2 == 0 ? 0 : text.activation_bytes;
        text.scratch = directory_.path();
        block_journal journal(directory_.path(), {{"specification", GetParam().second}});
        index_t const before = journal.done();
        text.journal = &journal;
        try {
            int left = steps;
            auto const r = quantize_file(text, [&](std::string_view, double) { return left-- > 0; });
            finished = true;
            ASSERT_EQ(r.blocks.size(), expected.blocks.size());
            for (std::size_t i = 0; i < r.blocks.size(); ++i) {
                expect_same(r.blocks[i], expected.blocks[i]);
            }
            ASSERT_EQ(r.reports.size(), expected.reports.size());
            for (std::size_t i = 0; i < r.reports.size(); ++i) {
                EXPECT_EQ(r.reports[i].name, expected.reports[i].name);
                EXPECT_EQ(r.reports[i].place, expected.reports[i].place);
                EXPECT_EQ(r.reports[i].error, expected.reports[i].error);
                EXPECT_EQ(r.reports[i].solve.loss, expected.reports[i].solve.loss);
            }
        } catch (cancelled const&) {
            ++stopped;
            EXPECT_GE(journal.done(), before);
        }
    }
    EXPECT_GT(stopped, 2);
}

class journal : public testing::Test {
protected:
    /// Quantizes a block, so that the journal has something.
    void begin() {
        block_journal j(directory_.path(), {{"specification", "int4:rtn"}, {"window", "32"}});
        calibration text{.tokens = text_, .window = 32, .windows = 2, .journal = &j};
        decoder model = load_decoder(test::model_directory("tiny-llama"));
        auto const stop = [&](std::string_view, double) { return j.done() == 0; };
        EXPECT_THROW(quantize_decoder(model, spec::parse("int4:rtn"), text, test::two_threads(), stop), cancelled);
        ASSERT_EQ(j.done(), 1);
    }

    std::vector<nn::token_id> const text_ = test::calibration_text();
    temporary_directory directory_;
};

TEST_F(journal, names_the_setting_that_is_another) {
    begin();
    auto const open = [&](run_settings settings) {
        return failure_message([&] { block_journal const j(directory_.path(), std::move(settings)); });
    };
    EXPECT_EQ(open({{"specification", "int4:rtn"}, {"window", "32"}}), "");
    EXPECT_THAT(open({{"specification", "int3:rtn"}, {"window", "32"}}),
                testing::HasSubstr("another specification: 'int4:rtn', and now 'int3:rtn'"));
    EXPECT_THAT(open({{"specification", "int4:rtn"}}), testing::HasSubstr("another window: '32', and now nothing"));
    EXPECT_THAT(open({{"specification", "int4:rtn"}, {"window", "32"}, {"text", "1"}}),
                testing::HasSubstr("another text: nothing, and now '1'"));
}

TEST_F(journal, notices_damaged_files) {
    run_settings const same{{"specification", "int4:rtn"}, {"window", "32"}};
    for (auto const* name : {"block.0.safetensors", "quantized.1.f32"}) {
        fs::remove_all(directory_.path());
        fs::create_directories(directory_.path());
        begin();
        ASSERT_TRUE(fs::exists(directory_.path() / name));
        std::fstream file(directory_.path() / name, std::ios::in | std::ios::out | std::ios::binary);
        file.seekg(-9, std::ios::end);
        char byte = 0;
        file.get(byte);
        file.seekp(-9, std::ios::end);
        file.put(static_cast<char>(byte ^ 1));
        file.close();
        EXPECT_THAT(failure_message([&] {
                        block_journal const j(directory_.path(), same);
                        block b = decoder_file(test::model_directory("tiny-llama")).read_block(0);
                        j.read(0, b);
                    }),
                    testing::AllOf(testing::HasSubstr(name), testing::HasSubstr("is damaged")));
    }
}

TEST_F(journal, begins_anew_where_files_are_missing_and_removes_what_nobody_speaks_of) {
    run_settings const same{{"specification", "int4:rtn"}, {"window", "32"}};
    begin();
    std::ofstream(directory_.path() / "block.7.safetensors") << "unfinished";
    EXPECT_EQ(block_journal(directory_.path(), same).done(), 1);
    EXPECT_FALSE(fs::exists(directory_.path() / "block.7.safetensors"));
    fs::remove(directory_.path() / "quantized.1.f32");
    EXPECT_EQ(block_journal(directory_.path(), same).done(), 0);
    EXPECT_FALSE(fs::exists(directory_.path() / "block.0.safetensors"));
    std::ofstream(directory_.path() / "journal.json") << "{}";
    EXPECT_THAT(failure_message([&] { block_journal const j(directory_.path(), same); }),
                testing::HasSubstr("is no journal"));
}

} // namespace
} // namespace detent
