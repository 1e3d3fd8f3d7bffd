// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Every write, sync, rename, open, close and allocation of saving a model fails once, and is once the last thing that
// the process does. How files get into place is none of the test's business: afterwards the directory holds the old
// model or the new one, whole.

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "detent/grid/int_grid.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/io/text_file.hpp"
#include "detent/model/load.hpp"
#include "detent/model/save.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/rtn.hpp"
#include "faults.hpp"
#include "io/temporary_directory.hpp"

namespace detent::test {
namespace {

namespace fs = std::filesystem;

/// A directory with a float model of two blocks of 8 features, other numbers for each seed.
void write_source(fs::path const& directory, unsigned seed) {
    fs::create_directories(directory);
    nlohmann::json const configuration = {{"model_type", "llama"},
                                          {"vocab_size", 8},
                                          {"hidden_size", 8},
                                          {"num_hidden_layers", 2},
                                          {"num_attention_heads", 2},
                                          {"num_key_value_heads", 1},
                                          {"head_dim", 4},
                                          {"intermediate_size", 16},
                                          {"max_position_embeddings", 16},
                                          {"rms_norm_eps", 1e-5},
                                          {"rope_theta", 1000.0 * seed},
                                          {"tie_word_embeddings", true}};
    io::write_text(directory / "config.json", configuration.dump());
    io::write_text(directory / "generation_config.json", "{\"seed\": " + std::to_string(seed) + "}");
    std::mt19937 random(seed);
    io::safetensors_writer file;
    auto const add = [&](std::string const& name, std::vector<index_t> const& shape) {
        index_t size = 1;
        for (index_t const extent : shape) {
            size *= extent;
        }
        std::vector<float> numbers(static_cast<std::size_t>(size));
        for (float& x : numbers) {
            x = static_cast<float>(random() >> 8) * 0x1p-24F + 0.1F;
        }
        auto const* const bytes = reinterpret_cast<std::uint8_t const*>(numbers.data());
        file.add(name, io::dtype::f32, shape, std::vector<std::uint8_t>(bytes, bytes + numbers.size() * sizeof(float)));
    };
    add("model.embed_tokens.weight", {8, 8});
    add("model.norm.weight", {8});
    for (int i = 0; i < 2; ++i) {
        std::string const block = "model.layers." + std::to_string(i) + ".";
        add(block + "input_layernorm.weight", {8});
        add(block + "post_attention_layernorm.weight", {8});
        for (auto const* const name : {"self_attn.q_proj", "self_attn.o_proj"}) {
            add(block + name + ".weight", {8, 8});
        }
        for (auto const* const name : {"self_attn.k_proj", "self_attn.v_proj"}) {
            add(block + name + ".weight", {4, 8});
        }
        add(block + "mlp.gate_proj.weight", {16, 8});
        add(block + "mlp.up_proj.weight", {16, 8});
        add(block + "mlp.down_proj.weight", {8, 16});
    }
    file.save(directory / "model.safetensors");
}

decoder quantized(fs::path const& source) {
    decoder model = load_decoder(source);
    problem_of const p{int_grid<4>{}, per_channel{}, minmax_range{}};
    for (block& b : model.blocks) {
        for (auto const& places : b.groups()) {
            for (layer_place const place : places) {
                b.linear(place).weight = pack(rtn{}.solve(std::get<matrix>(b.linear(place).weight), {}, p));
            }
        }
    }
    return model;
}

/// The files of a directory with what they hold, but for hidden ones; nothing where there is none, or it is empty.
using contents = std::map<std::string, std::string>;
contents contents_of(fs::path const& directory, bool with_hidden = false) {
    contents all;
    std::error_code ignored;
    for (auto const& entry : fs::recursive_directory_iterator(directory, ignored)) {
        auto const name = entry.path().lexically_relative(directory).string();
        if (entry.is_regular_file() && (with_hidden || !name.starts_with("."))) {
            all[name] = io::read_text(entry.path());
        }
    }
    return all;
}

/// Two models, what their directories look like, and how the directory of a run is judged.
class saving : public testing::Test {
protected:
    saving() {
        write_source(room_ / "a", 1);
        write_source(room_ / "b", 2);
        old_ = quantized(room_ / "a");
        new_ = quantized(room_ / "b");
        save_decoder(old_, room_ / "a", room_ / "old", "old");
        save_decoder(new_, room_ / "b", room_ / "new", "new");
        old_contents_ = contents_of(room_ / "old");
        new_contents_ = contents_of(room_ / "new");
    }

    /// The old model in its place, or nothing.
    fs::path const& begin(bool over_existing) {
        fs::remove_all(room_ / "out");
        fs::create_directories(room_ / "out");
        if (over_existing) {
            fs::copy(room_ / "old", room_ / "out" / "model", fs::copy_options::recursive);
        }
        return out_;
    }

    void save() const { save_decoder(new_, room_ / "b", out_, "new"); }

    /// Whether each file is one of the old model or the new one; and, if `whole`, all of the same.
    void expect_whole(bool over_existing, bool whole) const {
        auto const found = contents_of(out_);
        if (whole) {
            EXPECT_TRUE(found == new_contents_ || found == (over_existing ? old_contents_ : contents()));
        }
        for (auto const& [name, bytes] : found) {
            auto const is_of = [&](contents const& all) { return all.contains(name) && all.at(name) == bytes; };
            EXPECT_TRUE(is_of(old_contents_) || is_of(new_contents_)) << name;
        }
    }

    /// Nothing but what is wanted, in the directory and beside it.
    void expect_nothing_left_over() const {
        EXPECT_EQ(contents_of(room_ / "out", true).size(), contents_of(out_).size());
    }

    /// Every call of a kind fails; `whole` as above.
    void walk(fault_call at, fault_kind kind, bool over_existing, bool whole) {
        for (long n = 1; !HasFailure(); ++n) {
            SCOPED_TRACE(std::string(fault_calls[static_cast<std::size_t>(at)]) + " " + std::to_string(n));
            begin(over_existing);
            std::string message;
            arm(at, n, kind);
            try {
                save();
            } catch (error const& e) {
                message = e.what();
            }
            long const calls = disarm();
            if (calls < n) { // all have failed
                EXPECT_EQ(message, "");
                EXPECT_EQ(contents_of(out_), new_contents_);
                EXPECT_GT(n, 1) << "there is no such call";
                RecordProperty("calls_" + std::string(fault_calls[static_cast<std::size_t>(at)]),
                               static_cast<int>(n - 1));
                return;
            }
            expect_whole(over_existing, whole);
            if (message.empty()) { // it found another way
                EXPECT_EQ(contents_of(out_), new_contents_);
            } else {
                EXPECT_NE(message.find((room_ / "out").string()), std::string::npos) << message;
            }
            expect_nothing_left_over();
        }
    }

    /// What a child process answers that saves with a fault: 0 where there was none, `saved` in spite of it, `refused`,
    /// or `ended_status`.
    int status_of_child(fault_call at, long n, fault_kind kind) const {
        pid_t const child = ::fork();
        if (child == 0) {
            std::set_terminate([] { std::_Exit(refused); }); // a destructor without memory
            arm(at, n, kind);
            try {
                save();
            } catch (std::exception const&) {
                std::_Exit(refused);
            }
            std::_Exit(disarm() < n ? 0 : saved);
        }
        int status = 0;
        EXPECT_EQ(::waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFEXITED(status));
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

    /// Every allocation fails, in a process of its own: the library of JSON allocates in destructors, whose failure
    /// ends the process.
    void fail_each_allocation(bool whole) {
        for (long n = 1; !HasFailure(); ++n) {
            SCOPED_TRACE("allocation " + std::to_string(n));
            begin(true);
            int const status = status_of_child(fault_call::allocate, n, fault_kind::fails);
            expect_whole(true, whole);
            EXPECT_TRUE(status == refused || contents_of(out_) == new_contents_) << status;
            if (status == 0) {
                RecordProperty("allocations", static_cast<int>(n - 1));
                return;
            }
        }
    }

    /// Every call of a kind is the last; then the run is started again.
    void end_at_each(fault_call at, bool over_existing, bool whole) {
        for (long n = 1; !HasFailure(); ++n) {
            SCOPED_TRACE(std::string(fault_calls[static_cast<std::size_t>(at)]) + " " + std::to_string(n));
            begin(over_existing);
            int const status = status_of_child(at, n, fault_kind::ends);
            expect_whole(over_existing, whole);
            save();
            EXPECT_EQ(contents_of(out_), new_contents_);
            if (whole) {
                expect_nothing_left_over();
            }
            if (status != ended_status) {
                EXPECT_EQ(status, 0);
                return;
            }
        }
    }

    static constexpr int saved = 3;
    static constexpr int refused = 1;

    temporary_directory room_;
    fs::path out_ = room_ / "out" / "model";
    decoder old_;
    decoder new_;
    contents old_contents_;
    contents new_contents_;
};

constexpr fault_call system_calls[] = {fault_call::open, fault_call::write, fault_call::sync, fault_call::name,
                                       fault_call::close};

/// Whether a call may have done its work, or some of it, and fail: names change as a whole or not at all.
bool can_fail_after_all(fault_call at) { return at != fault_call::open && at != fault_call::name; }

TEST_F(saving, every_failing_call_leaves_whole_files_and_a_message) {
    for (fault_call const at : system_calls) {
        for (bool const over_existing : {true, false}) {
            walk(at, fault_kind::fails, over_existing, false);
        }
        if (can_fail_after_all(at)) {
            walk(at, fault_kind::cut, true, false);
        }
    }
    walk(fault_call::directory, fault_kind::fails, false, true);
}

TEST_F(saving, every_failing_allocation_leaves_whole_files) { fail_each_allocation(false); }

TEST_F(saving, whatever_call_is_the_last_files_are_whole_and_the_next_run_succeeds) {
    for (fault_call const at : system_calls) {
        for (bool const over_existing : {true, false}) {
            end_at_each(at, over_existing, false);
        }
    }
}

// One commit point for all files of a directory: the old model or the new one.
TEST_F(saving, every_call_leaves_the_old_model_or_the_new_one) {
    for (fault_call const at : system_calls) {
        for (bool const over_existing : {true, false}) {
            walk(at, fault_kind::fails, over_existing, true);
            if (can_fail_after_all(at)) {
                walk(at, fault_kind::cut, over_existing, true);
            }
            end_at_each(at, over_existing, true);
        }
    }
    fail_each_allocation(true);
}

} // namespace
} // namespace detent::test
