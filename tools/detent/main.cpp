// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The program detent: quantizes language models, evaluates and runs them, converts and looks into their files.

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <memory>
#include <new>
#include <string>
#include <system_error>

#include <CLI/CLI.hpp>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "commands.hpp"
#include "detent/core/progress.hpp"
#include "detent/core/version.hpp"
#include "terminal.hpp"

namespace {

/// Help that says what a value is, and not how it is checked, but for the words to choose from.
class plain_help : public CLI::Formatter {
public:
    std::string make_option_opts(CLI::Option const* option) const override {
        std::string type = option->get_type_name();
        if (auto const check = type.find(':'); check != std::string::npos) {
            bool const choice = type.compare(check, 2, ":{") == 0;
            type = choice ? type.substr(check + 1) : type.substr(0, check);
        }
        return (type.empty() ? "" : " " + type) + (option->get_required() ? " (required)" : "");
    }
};

/// The files and directories that a command works on, for a message: those of its arguments that are there.
std::string named_files(int argc, char** argv) {
    std::string files;
    for (int i = 2; i < argc; ++i) {
        std::error_code ignored;
        if (std::filesystem::exists(argv[i], ignored)) {
            files += (files.empty() ? "" : ", ") + std::string(argv[i]);
        }
    }
    return files.empty() ? "the command" : files;
}

char const* const no_memory = "needs more memory than the system gives";

} // namespace

int main(int argc, char** argv) {
    std::set_terminate([] { // where a destructor has no memory, as those of JSON may
        try {
            std::rethrow_exception(std::current_exception());
        } catch (std::bad_alloc const&) {
            static_cast<void>(std::fprintf(stderr, "error: detent: %s\n", no_memory));
            std::_Exit(1);
        } catch (...) {
            std::abort();
        }
    });
    // Activations come and go by the megabyte: keep their pages instead of returning them to the system each time.
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
#endif
    CLI::App program{"Quantizes language models after training, and evaluates, runs, converts and inspects them."};
    program.name("detent");
    program.set_version_flag("--version", "detent " + version_text());
    program.formatter(std::make_shared<plain_help>());
    program.require_subcommand(1);
    program.footer("`detent COMMAND --help` explains a command, `detent words` the words of specifications such as "
                   "int4:g128:gptq.");
    add_quantize(program);
    add_evaluate(program);
    add_generate(program);
    add_convert(program);
    add_plan(program);
    add_inspect(program);
    add_words(program);
    try {
        program.parse(argc, argv);
    } catch (CLI::ParseError const& e) {
        return program.exit(e);
    } catch (detent::cancelled const&) {
        std::cerr << "cancelled\n";
        return 128 + ending_signal();
    } catch (std::bad_alloc const&) {
        std::cerr << "error: " << named_files(argc, argv) << ": " << no_memory << '\n';
        return 1;
    } catch (std::exception const& e) {
        std::cerr << "error: " << e.what() << '\n';
        return 1;
    }
    return 0;
}
