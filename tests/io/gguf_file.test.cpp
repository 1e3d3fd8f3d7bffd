// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/gguf_file.hpp"
#include "detent/io/gguf_writer.hpp"
#include "detent/io/text_file.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"

namespace {

using namespace detent;
using io::ggml_type_named;
using io::gguf_file;

/// Bytes of a file, put together by hand from the description of the format.
class file_bytes {
public:
    template <class T> file_bytes& number(T value) {
        bytes_.append(reinterpret_cast<char const*>(&value), sizeof value);
        return *this;
    }
    file_bytes& text(std::string const& value) {
        number(std::uint64_t{value.size()});
        bytes_ += value;
        return *this;
    }
    file_bytes& raw(std::string const& value) {
        bytes_ += value;
        return *this;
    }
    /// The first words of a file.
    file_bytes& start(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
        return raw("GGUF").number(version).number(tensors).number(keys);
    }
    /// A tensor in the list of tensors, extents as GGUF has them.
    file_bytes& tensor(std::string const& name, std::vector<std::uint64_t> const& extents, std::uint32_t type,
                       std::uint64_t offset) {
        text(name).number(static_cast<std::uint32_t>(extents.size()));
        for (auto const extent : extents) {
            number(extent);
        }
        return number(type).number(offset);
    }
    file_bytes& fill_up(std::size_t step = 32) {
        bytes_.resize((bytes_.size() + step - 1) / step * step);
        return *this;
    }
    std::string const& str() const { return bytes_; }

private:
    std::string bytes_;
};

/// What is wrong with a file of these bytes; empty where nothing is.
std::string problem_of(std::string const& bytes) {
    temporary_directory const directory;
    io::write_text(directory / "x.gguf", bytes);
    auto const message = failure_message([&] { gguf_file const file(directory / "x.gguf"); });
    if (!message.empty()) {
        EXPECT_TRUE(contains(message, "x.gguf")) << message; // every error names the file
    }
    return message;
}

TEST(gguf_file, bytes_by_hand) {
    for (std::uint32_t const version : {2U, 3U}) {
        file_bytes bytes;
        bytes.start(2, 3, version);
        bytes.text("general.architecture").number(std::uint32_t{8}).text("llama");
        bytes.text("sizes").number(std::uint32_t{9}).number(std::uint32_t{3}).number(std::uint64_t{2});
        bytes.number(std::int16_t{-5}).number(std::int16_t{6});
        bytes.text("yes").number(std::uint32_t{7}).number(std::uint8_t{1});
        bytes.tensor("b", {3, 2}, 0, 32).tensor("a", {32}, 8, 64).fill_up();
        bytes.raw(std::string(32, 'x')); // belongs to none
        for (float const x : {1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F}) {
            bytes.number(x);
        }
        bytes.fill_up().number(half(0.5F)).raw("\x01\xFF" + std::string(30, '\x02'));
        temporary_directory const directory;
        io::write_text(directory / "hand.gguf", bytes.str());

        gguf_file const file(directory / "hand.gguf");
        EXPECT_EQ(file.version(), version);
        EXPECT_EQ(file.metadata().get<std::string>("general.architecture"), "llama");
        EXPECT_EQ(file.metadata().get<std::vector<std::int16_t>>("sizes"), (std::vector<std::int16_t>{-5, 6}));
        EXPECT_TRUE(file.metadata().get<bool>("yes"));
        ASSERT_EQ(file.tensors().size(), 2U);
        EXPECT_EQ(file.tensors()[0].name, "b");
        EXPECT_EQ(file.at("b").shape, (std::vector<index_t>{2, 3})); // rows last
        EXPECT_EQ(file.floats("b"), (std::vector<float>{1, 2, 3, 4, 5, 6}));
        EXPECT_EQ(file.plain("b").type, io::dtype::f32);
        auto const w = file.packed("a");
        EXPECT_EQ(w.stored_at(0, 0), 0.5F);
        EXPECT_EQ(w.stored_at(0, 1), -0.5F);
        EXPECT_EQ(file.floats("a")[31], 1.0F);
    }
}

/// A packed matrix of Q4_0's kind, random but for its scales, which differ.
packed_matrix symmetric_matrix(extents shape) {
    packed_matrix w;
    w.bits = 4;
    w.extent = shape;
    w.tile = {1, 32};
    for (int c = 0; c < 16; ++c) {
        w.table.push_back(static_cast<float>(c - 8));
    }
    w.scales = scale_store(shape, w.tile, float_format::f16, false);
    for (std::size_t i = 0; i < w.scales.scales.size(); ++i) {
        w.scales.scales[i] = 0.25F + static_cast<float>(i) / 64;
    }
    w.codes = buffer(shape.rows * w.row_bytes());
    for (index_t i = 0; i < w.codes.size(); ++i) {
        w.codes.data()[i] = static_cast<std::uint8_t>(37 * i + 11);
    }
    return w;
}

/// Values of all types there are.
io::gguf_metadata all_values() {
    io::gguf_metadata all;
    all.add("general.architecture", std::string("llama"));
    all.add("u8", std::uint8_t{200});
    all.add("i8", std::int8_t{-100});
    all.add("u16", std::uint16_t{60000});
    all.add("i16", std::int16_t{-30000});
    all.add("u32", std::uint32_t{4000000000});
    all.add("i32", std::int32_t{-2000000000});
    all.add("f32", 0.1F);
    all.add("bool", false);
    all.add("u64", std::uint64_t{1} << 63);
    all.add("i64", std::int64_t{-1} << 62);
    all.add("f64", 0.1);
    all.add("empty text", std::string());
    all.add("texts", std::vector<std::string>{"a", "", std::string("n\0l", 3), "\xFF"});
    all.add("u8s", std::vector<std::uint8_t>{1, 2, 255});
    all.add("i8s", std::vector<std::int8_t>{-1, 2});
    all.add("u16s", std::vector<std::uint16_t>{65535});
    all.add("i16s", std::vector<std::int16_t>{-32768});
    all.add("u32s", std::vector<std::uint32_t>{1, 2, 3});
    all.add("i32s", std::vector<std::int32_t>{});
    all.add("f32s", std::vector<float>{0.5F, -INFINITY});
    all.add("bools", std::vector<bool>{true, false, true});
    all.add("u64s", std::vector<std::uint64_t>{UINT64_MAX});
    all.add("i64s", std::vector<std::int64_t>{INT64_MIN});
    all.add("f64s", std::vector<double>{1e300});
    return all;
}

/// A small file with metadata of all types, plain tensors of each kind, and blocks.
io::gguf_writer small_file(packed_matrix const& w) {
    io::gguf_writer writer;
    writer.metadata() = all_values();
    std::vector<float> const norm{1, 2, 3};
    std::vector<std::uint8_t> bytes(12);
    std::memcpy(bytes.data(), norm.data(), 12);
    writer.add("norm", ggml_type_named("F32"), {3}, std::vector(bytes));
    writer.add("w", ggml_type_named("Q4_0"), w);
    writer.add("pieces", ggml_type_named("BF16"), {2, 1, 3}, [bytes](io::gguf_writer::sink const& to) {
        to(std::span(bytes).first(5));
        to(std::span(bytes).subspan(5));
    });
    writer.add("single", ggml_type_named("I8"), {}, std::vector<std::uint8_t>{7});
    writer.add("none", ggml_type_named("F16"), {0, 5}, std::vector<std::uint8_t>{});
    return writer;
}

TEST(gguf_file, what_is_written_is_read) {
    temporary_directory const directory;
    auto const w = symmetric_matrix({5, 96});
    auto const writer = small_file(w);
    writer.save(directory / "a.gguf");
    gguf_file const file(directory / "a.gguf");
    EXPECT_EQ(file.version(), 3U);
    EXPECT_EQ(file.metadata().entries(), all_values().entries());
    std::vector<std::string> names;
    for (auto const& tensor : file.tensors()) {
        names.push_back(tensor.name);
        if (!tensor.bytes.empty()) {
            auto const address = reinterpret_cast<std::uintptr_t>(tensor.bytes.data());
            EXPECT_EQ(address % 32, 0U) << tensor.name; // as the file is mapped at a page
        }
    }
    EXPECT_EQ(names, (std::vector<std::string>{"norm", "w", "pieces", "single", "none"}));
    EXPECT_TRUE(file.packed("w") == w);
    EXPECT_EQ(file.floats("norm"), (std::vector<float>{1, 2, 3}));
    EXPECT_EQ(file.at("pieces").shape, (std::vector<index_t>{2, 1, 3}));
    EXPECT_EQ(file.at("pieces").bytes.size(), 12U);
    EXPECT_EQ(file.at("single").bytes[0], 7);
    EXPECT_TRUE(file.at("none").bytes.empty());
    EXPECT_EQ(directory.entries(), 1);
    writer.save(directory / "b.gguf"); // again
    EXPECT_EQ(io::read_text(directory / "a.gguf"), io::read_text(directory / "b.gguf"));
}

TEST(gguf_file, rows_of_several_matrices) {
    auto const w = symmetric_matrix({6, 64}); // three experts of two rows
    io::gguf_writer writer;
    std::vector<std::uint8_t> blocks(static_cast<std::size_t>(6 * 2 * 18));
    ggml_type_named("Q4_0").write(w, 0, 6, blocks.data());
    writer.add("experts", ggml_type_named("Q4_0"), {3, 2, 64}, std::span<std::uint8_t const>(blocks));
    temporary_directory const directory;
    writer.save(directory / "x.gguf");
    gguf_file const file(directory / "x.gguf");
    EXPECT_EQ(file.at("experts").matrix_shape(), (extents{6, 64}));
    EXPECT_TRUE(file.packed("experts") == w);
    auto const second = file.packed_rows("experts", 2, 4);
    for (index_t col = 0; col < 64; ++col) {
        EXPECT_EQ(second.stored_at(1, col), w.stored_at(3, col));
    }
    EXPECT_EQ(file.packed_rows("experts", 6, 6).shape(), (extents{0, 64}));
    EXPECT_TRUE(contains(failure_message([&] { file.packed_rows("experts", 4, 7); }), "tensor 'experts': has 6 rows"));
    EXPECT_FALSE(failure_message([&] { file.packed_rows("experts", -1, 2); }).empty());
    EXPECT_FALSE(failure_message([&] { file.packed_rows("experts", 3, 2); }).empty());
}

TEST(gguf_file, alignment_of_its_own) {
    temporary_directory const directory;
    io::gguf_writer writer;
    writer.metadata().add("general.alignment", std::uint32_t{256});
    writer.add("a", ggml_type_named("I8"), {1}, std::vector<std::uint8_t>{1});
    writer.add("b", ggml_type_named("I8"), {1}, std::vector<std::uint8_t>{2});
    writer.save(directory / "x.gguf");
    gguf_file const file(directory / "x.gguf");
    EXPECT_EQ(file.at("b").bytes.data() - file.at("a").bytes.data(), 256);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.at("a").bytes.data()) % 256, 0U);
    EXPECT_EQ(file.at("b").bytes[0], 2);
    EXPECT_EQ(std::filesystem::file_size(directory / "x.gguf") % 256, 0U);
}

TEST(gguf_file, what_is_asked_for_and_is_not_there) {
    temporary_directory const directory;
    auto const w = symmetric_matrix({2, 32});
    auto writer = small_file(w);
    writer.add("iq", ggml_type_named("IQ2_XXS"), {256}, std::vector<std::uint8_t>(66));
    std::vector<std::uint8_t> infinite(18);
    infinite[1] = 0x7C;
    writer.add("infinite", ggml_type_named("Q4_0"), {32}, std::move(infinite));
    writer.save(directory / "x.gguf");
    gguf_file const file(directory / "x.gguf");
    auto const message = [&](auto const& f) {
        auto const text = failure_message(f);
        EXPECT_TRUE(text.starts_with((directory / "x.gguf").string())) << text;
        return text;
    };
    EXPECT_TRUE(contains(message([&] { file.at("other"); }), "tensor 'other': is missing"));
    EXPECT_TRUE(contains(message([&] { file.plain("w"); }), "tensor 'w': has type Q4_0, blocks of codes"));
    EXPECT_TRUE(contains(message([&] { file.packed("norm"); }), "has type F32, which is not read as a packed matrix"));
    EXPECT_TRUE(contains(message([&] { file.floats("iq"); }), "has type IQ2_XXS, which is not read"));
    EXPECT_TRUE(contains(message([&] { file.packed("infinite"); }),
                         "tensor 'infinite': block 0: has a scale that is no finite number"));
    auto const& said = file.metadata();
    EXPECT_TRUE(contains(message([&] { said.integer("other"); }), "key 'other': is missing"));
    EXPECT_TRUE(contains(message([&] { said.integer("f32"); }), "key 'f32': is no integer"));
    EXPECT_TRUE(contains(message([&] { said.integer("bool"); }), "is no integer"));
    EXPECT_TRUE(contains(message([&] { said.integer("u32s"); }), "is no integer"));
    EXPECT_TRUE(contains(message([&] { said.integer("u64"); }), "is beyond 2^63 - 1"));
    EXPECT_TRUE(contains(message([&] { said.integers("texts"); }), "is no integer"));
    EXPECT_TRUE(contains(message([&] { said.number("texts"); }), "is no number"));
    EXPECT_TRUE(contains(message([&] { said.get<std::string>("u8"); }), "is of another type"));
    EXPECT_EQ(said.integer("i64"), std::int64_t{-1} << 62);
    EXPECT_EQ(said.integer("u8"), 200);
    EXPECT_EQ(said.integers("u8"), std::vector<std::int64_t>{200});
    EXPECT_EQ(said.integers("u32s"), (std::vector<std::int64_t>{1, 2, 3}));
    EXPECT_EQ(said.number("i8"), -100);
    EXPECT_EQ(said.number("f64"), 0.1);
    EXPECT_EQ(said.find("other"), nullptr);
}

TEST(gguf_file, files_that_are_none) {
    auto const is = [](std::string const& bytes, std::string const& part) {
        auto const message = problem_of(bytes);
        EXPECT_TRUE(contains(message, part)) << message;
    };
    is("", "does not begin with 'GGUF'");
    is("GGU", "does not begin with 'GGUF'");
    is("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "pointer of Git LFS");
    is("GGUF", "the version would lie beyond its 4 bytes");
    is(file_bytes().start(0, 0, 1).str(), "version 1; 2 and 3 are read");
    is(file_bytes().start(0, 0, 4).str(), "version 4");
    is(file_bytes().raw("GGUF").raw(std::string("\0\0\0\3", 4)).str(), "big-endian");
    EXPECT_EQ(problem_of(file_bytes().start(0, 0).str()), ""); // nothing in it
}

TEST(gguf_file, hostile_metadata) {
    auto const is = [](file_bytes const& bytes, std::string const& part) {
        auto const message = problem_of(bytes.str());
        EXPECT_TRUE(contains(message, part)) << message;
    };
    auto const array = [](std::uint32_t type, std::uint64_t count) {
        return file_bytes().start(0, 1).text("k").number(std::uint32_t{9}).number(type).number(count);
    };
    is(file_bytes().start(0, UINT64_MAX), "the metadata would lie beyond");
    is(file_bytes().start(0, 1).number(UINT64_MAX).raw("12345"), "key 0 would lie beyond");
    is(file_bytes().start(0, 1).text("k").number(std::uint32_t{8}).number(UINT64_MAX), "key 'k' would lie beyond");
    is(file_bytes().start(0, 1).text("k").number(std::uint32_t{13}).number(0), "unknown type 13");
    is(file_bytes().start(0, 1).text("k").number(std::uint32_t{7}).raw("\2"), "key 'k': is neither true nor false");
    is(file_bytes().start(0, 1).text("").number(std::uint32_t{7}).raw(std::string(9, '\0')), "is empty");
    is(array(0, UINT64_MAX), "key 'k' would lie beyond");
    is(array(12, UINT64_MAX / 8 + 2), "key 'k' would lie beyond"); // whose bytes are 8 modulo 2^64
    is(array(8, 1U << 30), "key 'k' would lie beyond");
    is(array(9, 1).number(std::uint32_t{0}).number(std::uint64_t{0}), "key 'k': is an array of arrays");
    file_bytes twice;
    twice.start(0, 2);
    for (int i = 0; i < 2; ++i) {
        twice.text("k").number(std::uint32_t{4}).number(std::uint32_t{1});
    }
    is(twice, "key 'k': is there twice");
    for (std::uint32_t const step : {0U, 3U, 48U, 1U << 31}) {
        file_bytes bytes;
        bytes.start(0, 1).text("general.alignment").number(std::uint32_t{4}).number(step);
        is(bytes, "key 'general.alignment': is no power of two");
    }
}

TEST(gguf_file, hostile_tensors) {
    using extents_of_file = std::vector<std::uint64_t>;
    auto const one = [](extents_of_file const& extents, std::uint32_t type, std::uint64_t offset,
                        std::string const& part) {
        auto bytes = file_bytes().start(1, 0).tensor("t", extents, type, offset).fill_up().raw(std::string(64, '\0'));
        auto const message = problem_of(bytes.str());
        EXPECT_TRUE(contains(message, part)) << message;
    };
    one({16}, 0, 32, "tensor 't': has 64 bytes from 32 on, beyond the 64 of data");
    one({16}, 0, 1ULL << 63, "beyond the 64 of data");
    one({16}, 0, UINT64_MAX - 31, "beyond the 64 of data");
    one({4}, 0, 8, "tensor 't': begins at 8, not at a multiple of 32");
    one({4}, 4, 0, "tensor 't': has the unknown type 4");
    one({4}, 1000, 0, "unknown type 1000");
    one({31}, 2, 0, "not of whole blocks of Q4_0");
    one({}, 2, 0, "not of whole blocks of Q4_0");
    one({1ULL << 63}, 0, 0, "tensor 't': has an extent beyond 2^63 - 1");
    one({1ULL << 32, 1ULL << 32}, 0, 0, "does not fit 63 bits");
    one({0, 1ULL << 40, 1ULL << 40}, 0, 0, "does not fit 63 bits");
    one({1, 1, 1, 1, 1}, 0, 0, "tensor 't': has 5 extents");
    auto const two = [](std::string const& second, std::uint64_t offset, std::string const& part) {
        auto bytes = file_bytes().start(2, 0).tensor("t", {16}, 0, 0).tensor(second, {4}, 0, offset).fill_up();
        auto const message = problem_of(bytes.raw(std::string(128, '\0')).str());
        EXPECT_TRUE(part.empty() ? message.empty() : contains(message, part)) << message;
    };
    two("t", 64, "tensor 't': is there twice");
    two("u", 0, "shares bytes with tensor");
    two("u", 32, "tensor 'u': shares bytes with tensor 't'");
    two("u", 64, "");
    EXPECT_TRUE(contains(problem_of(file_bytes().start(UINT64_MAX, 0).str()), "the list of tensors would lie beyond"));
}

/// Opens a file and reads all that it lists; answers whether nothing was wrong. It must not crash.
bool survives(std::filesystem::path const& path) {
    auto const message = failure_message([&] {
        gguf_file const file(path);
        for (auto const& tensor : file.tensors()) {
            failure_message([&] { file.floats(tensor.name); });
        }
    });
    EXPECT_TRUE(message.empty() || message.starts_with(path.string())) << message;
    return message.empty();
}

TEST(gguf_file, truncated_and_corrupted_files) {
    temporary_directory const directory;
    auto const path = directory / "x.gguf";
    small_file(symmetric_matrix({2, 32})).save(path);
    auto const good = io::read_text(path);
    ASSERT_TRUE(survives(path));
    std::size_t accepted = 0;
    for (std::size_t i = 0; i < good.size(); ++i) {
        for (int const flip : {0x01, 0x80, 0xFF, 0x00}) { // the last is the byte as it was
            std::fstream(path, std::ios::in | std::ios::out | std::ios::binary)
                .seekp(static_cast<std::streamoff>(i))
                .put(static_cast<char>(good[i] ^ flip));
            accepted += survives(path) ? 1 : 0;
        }
    }
    EXPECT_GT(accepted, 2 * good.size()); // numbers and letters may be any
    EXPECT_LT(accepted, 4 * good.size());
    ASSERT_EQ(io::read_text(path), good);
    std::size_t const data = good.rfind("none") + 4 + 4 + 2 * 8 + 4 + 8; // behind the last of the list of tensors
    for (std::size_t size = good.size(); size-- > 0;) {
        std::filesystem::resize_file(path, size);
        EXPECT_TRUE(!survives(path) || size > data) << size;
    }
}

TEST(gguf_writer, refuses) {
    io::gguf_writer writer;
    auto const& f32 = ggml_type_named("F32");
    auto const message = [&](auto const&... arguments) { return failure_message([&] { writer.add(arguments...); }); };
    std::vector<std::uint8_t> const bytes(8);
    std::span<std::uint8_t const> const view(bytes);
    using shape = std::vector<index_t>;
    EXPECT_EQ(message("t", f32, shape{3}, view), "tensor 't': has 8 bytes, but type and shape need 12");
    EXPECT_TRUE(contains(message("", f32, shape{2}, view), "has a name of 0 bytes"));
    EXPECT_TRUE(contains(message(std::string(64, 'n'), f32, shape{2}, view), "has a name of 64 bytes"));
    EXPECT_TRUE(contains(message("t", f32, shape{1, 1, 1, 1, 2}, view), "has 5 extents"));
    EXPECT_TRUE(contains(message("t", ggml_type_named("Q4_0"), shape{2}, view), "not of whole blocks"));
    EXPECT_EQ(message("t", ggml_type_named("Q5_0"), symmetric_matrix({1, 32})),
              "tensor 't': cannot be of type Q5_0: it stores 5 bits, not 4");
    EXPECT_EQ(message(std::string(63, 'n'), f32, shape{2}, view), "");
    EXPECT_TRUE(contains(message(std::string(63, 'n'), f32, shape{2}, view), "was added twice"));
    EXPECT_TRUE(contains(failure_message([&] { writer.metadata().add("", std::uint8_t{0}); }), "is empty"));
    writer.metadata().add("general.alignment", std::uint32_t{24});
    EXPECT_TRUE(contains(failure_message([&] { writer.metadata().add("general.alignment", std::uint32_t{32}); }),
                         "key 'general.alignment': is there twice"));
    temporary_directory const directory;
    EXPECT_TRUE(contains(failure_message([&] { writer.save(directory / "x.gguf"); }), "general.alignment is 24"));
    EXPECT_EQ(directory.entries(), 0);
}

TEST(gguf_writer, a_failure_leaves_the_file_as_it_was) {
    temporary_directory const directory;
    io::write_text(directory / "x.gguf", "old");
    io::gguf_writer writer;
    writer.add("t", ggml_type_named("I8"), {4}, [](io::gguf_writer::sink const& to) {
        std::uint8_t const three[] = {1, 2, 3};
        to(three);
    });
    EXPECT_EQ(failure_message([&] { writer.save(directory / "x.gguf"); }),
              "tensor 't': has 3 bytes, but type and shape need 4");
    EXPECT_EQ(io::read_text(directory / "x.gguf"), "old");
    EXPECT_EQ(directory.entries(), 1);
}

} // namespace
