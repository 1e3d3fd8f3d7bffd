// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Texts: ids of 8, 16 and 32 bits, lines of JSON, plain text, as the first byte says.

#include <filesystem>

#include "detent/io/tokens.hpp"
#include "detent/text/read_text.hpp"
#include "fuzz.hpp"

DETENT_FUZZ_TARGET(text) {
    using namespace detent;
    if (size == 0) {
        return 0;
    }
    constexpr char const* names[] = {"a.u16", "a.u32", "a.jsonl", "a.txt"};
    int const kind = data[0] % 4;
    auto const path = fuzz::room() / names[kind];
    fuzz::put(path, fuzz::text_of(data + 1, size - 1));
    fuzz::attempt([&] {
        if (kind >= 2) {
            for (auto const& document : text::read_text_files(std::span(&path, 1))) {
                fuzz::expect(document.text.size() < 6 * size, "a text is as long as its file");
            }
        } else {
            for (auto const id : io::read_tokens(path)) {
                fuzz::expect(id >= 0, "an id is not negative");
            }
        }
    });
    return 0;
}
