// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// model.safetensors.index.json beside two files of tensors, a directory and a pipe.

#include <array>

#include <sys/stat.h>

#include "detent/io/safetensors.hpp"
#include "fuzz.hpp"

namespace {

std::filesystem::path const& shards() {
    static auto const& made = []() -> std::filesystem::path const& {
        auto const& room = detent::fuzz::room();
        std::string const numbers(16, '\1');
        auto const file = [&](char const* name, char const* header) {
            detent::fuzz::put(room / name, detent::fuzz::framed(header, numbers));
        };
        file("model-00001-of-00002.safetensors", R"({"a.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})");
        file("model-00002-of-00002.safetensors", R"({"b.weight":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})");
        file("s", R"({"c":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}})");
        std::filesystem::create_directories(room / "dir");
        ::mkfifo((room / "pipe").c_str(), 0600);
        return room;
    }();
    return made;
}

} // namespace

DETENT_FUZZ_TARGET(index) {
    using namespace detent;
    fuzz::put(shards() / "model.safetensors.index.json", fuzz::text_of(data, size));
    fuzz::attempt([&] {
        io::checkpoint const file(shards());
        for (auto const& name : file.names()) {
            fuzz::attempt([&] { (void)io::to_floats(file.at(name), name); });
        }
    });
    return 0;
}
