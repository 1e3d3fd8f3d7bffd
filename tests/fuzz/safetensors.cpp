// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A safetensors file, of which every tensor is read; what was read is written and read again. The first byte says
// whether the header has its length already.

#include <algorithm>

#include "detent/io/safetensors.hpp"
#include "fuzz.hpp"

DETENT_FUZZ_TARGET(safetensors) {
    using namespace detent;
    if (size == 0) {
        return 0;
    }
    auto const bytes = fuzz::file_of(data[0] % 2 != 0, fuzz::text_of(data + 1, size - 1));
    fuzz::put(fuzz::room() / "model.safetensors", bytes);
    fuzz::attempt([&] {
        io::checkpoint const file(fuzz::room());
        std::size_t total = 0;
        io::safetensors_writer writer;
        for (auto const& name : file.names()) {
            auto const& tensor = file.at(name);
            total += tensor.bytes.size();
            fuzz::expect(tensor.size() >= 0, "a tensor has a size");
            writer.add(name, tensor.type, tensor.shape, tensor.bytes);
            fuzz::attempt([&] { (void)io::to_floats(tensor, name); });
        }
        fuzz::expect(total <= bytes.size(), "tensors lie in the file");
        auto const path = fuzz::room() / "again.safetensors";
        writer.save(path, file.files().front().metadata());
        io::safetensors_file const again(path);
        fuzz::expect(again.names() == file.names(), "what was read can be written and read again");
        for (auto const& name : file.names()) {
            auto const& a = again.at(name);
            auto const& b = file.at(name);
            fuzz::expect(a.type == b.type && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes),
                         "a tensor is what it was");
        }
    });
    return 0;
}
