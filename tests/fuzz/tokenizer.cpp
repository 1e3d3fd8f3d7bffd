// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Tokenizers: tokenizer.json, tokenizer.model, or vocab.json with merges.txt and tokenizer_config.json (apart by 0xFF),
// as the first byte says. What is read makes ids of texts, and texts of ids.

#include "detent/text/load_tokenizer.hpp"
#include "detent/text/tokenizer.hpp"
#include "fuzz.hpp"

namespace {

void write(int kind, std::string_view input) {
    using namespace detent;
    auto const& room = fuzz::room();
    for (auto const* const name :
         {"tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json"}) {
        std::error_code ignored;
        std::filesystem::remove(room / name, ignored);
    }
    auto const first = fuzz::take(input, '\xff');
    switch (kind) {
    case 0:
        fuzz::put(room / "tokenizer.json", first);
        break;
    case 1: { // whose bytes may be any
        std::string model(first);
        if (!input.empty()) {
            model.append("\xff").append(input);
        }
        fuzz::put(room / "tokenizer.model", model);
        return;
    }
    case 2:
        fuzz::put(room / "vocab.json", first);
        fuzz::put(room / "merges.txt", fuzz::take(input, '\xff'));
        break;
    default:
        fuzz::put(room / "vocab.txt", first);
    }
    if (!input.empty()) {
        fuzz::put(room / "tokenizer_config.json", input);
    }
}

} // namespace

DETENT_FUZZ_TARGET(tokenizer) {
    using namespace detent;
    if (size == 0) {
        return 0;
    }
    auto const input = fuzz::text_of(data + 1, size - 1);
    write(data[0] % 4, input);
    fuzz::attempt([&] {
        auto const tokenizer = text::load_tokenizer(fuzz::room());
        for (std::string_view const text : {std::string_view("It's 3.14 a b\n\n  ab"),
                                            std::string_view("\xC3\xA9\xE4\xBD\xA0\xFF\0x", 8), input.substr(0, 200)}) {
            fuzz::attempt([&] {
                auto const ids = tokenizer.encode(text, true);
                for (auto const id : ids) {
                    fuzz::expect(id >= 0 && id <= tokenizer.largest_id(), "an id is not beyond the largest");
                }
                (void)tokenizer.decode(ids, true);
            });
        }
        std::int32_t const odd[] = {-1, 0, 1, tokenizer.largest_id(), 2'147'483'647};
        (void)tokenizer.decode(odd);
        (void)tokenizer.token(tokenizer.largest_id());
    });
    return 0;
}
