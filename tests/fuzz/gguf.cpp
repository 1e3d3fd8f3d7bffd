// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A GGUF file: its metadata, tensors, tokenizer and model.

#include <nlohmann/json.hpp>

#include "detent/io/gguf_file.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/model/load_gguf.hpp"
#include "detent/model/read_gguf_tokenizer.hpp"
#include "fuzz.hpp"

DETENT_FUZZ_TARGET(gguf) {
    using namespace detent;
    auto const path = fuzz::room() / "model.gguf";
    fuzz::put(path, fuzz::text_of(data, size));
    fuzz::attempt([&] {
        io::gguf_file const file(path);
        std::size_t total = 0;
        for (auto const& tensor : file.tensors()) {
            total += tensor.bytes.size();
            fuzz::attempt([&] { (void)file.floats(tensor.name); });
        }
        fuzz::expect(total <= size, "tensors lie in the file");
        fuzz::attempt([&] {
            if (has_gguf_tokenizer(file.metadata())) {
                auto const tokenizer = read_gguf_tokenizer(file.metadata());
                auto const ids = tokenizer.encode("It was a bright cold day", true);
                (void)tokenizer.decode(ids);
            }
        });
        fuzz::attempt([&] {
            decoder const model = load_gguf(path);
            nn::token_id const first[] = {0};
            (void)model.forward(first);
        });
    });
    return 0;
}
