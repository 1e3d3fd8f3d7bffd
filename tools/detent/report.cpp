// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <cstddef>
#include <iostream>
#include <sstream>
#include <utility>

#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "detent/io/text_file.hpp"
#include "report.hpp"
#include "terminal.hpp"

namespace {

std::string megabytes(double bytes) { return fixed(bytes / 1e6, 2); }

std::string perplexity_text(std::optional<double> p) { return p ? fixed(*p, 5) : "-"; }

nlohmann::ordered_json number_or_null(std::optional<double> p) {
    return p ? nlohmann::ordered_json(*p) : nlohmann::ordered_json(nullptr);
}

std::string escaped(std::string const& text) {
    std::string result;
    for (char const c : text) {
        switch (c) {
        case '&':
            result += "&amp;";
            break;
        case '<':
            result += "&lt;";
            break;
        case '>':
            result += "&gt;";
            break;
        default:
            result += c;
        }
    }
    return result;
}

/// What the time of each run went to, in seconds, and their sum, also in percent.
void print_times(run_report const& report) {
    std::vector<std::string> head{"time, s"};
    head.insert(head.end(), detent::work_names.begin(), detent::work_names.end());
    table t(std::move(head));
    auto const add = [&](std::string const& name, detent::work_times const& times, double unit, int digits) {
        std::vector<std::string> row{name};
        for (double const seconds : times.seconds) {
            row.push_back(fixed(seconds / unit, digits));
        }
        t.add(std::move(row));
    };
    add("float", report.float_times, 1, 2);
    for (auto const& r : report.results) {
        add(r.spec, r.times, 1, 2);
    }
    auto const all = report.times();
    add("all", all, 1, 2);
    add("all, %", all, all.total() / 100, 1);
    t.print();
}

/// Which expert saw how few tokens, where there are experts.
void print_experts(model_report const& r) {
    detent::layer_report const* fewest = nullptr;
    std::ptrdiff_t too_few = 0;
    bool const experts = std::ranges::any_of(r.layers, [](auto const& l) { return l.place.expert > 0; });
    for (auto const& layer : r.layers) {
        bool const in_network = layer.place.role >= detent::linear_role::gate;
        if (experts && in_network && (fewest == nullptr || layer.tokens < fewest->tokens)) {
            fewest = &layer;
        }
        too_few += layer.few_tokens ? 1 : 0;
    }
    if (fewest != nullptr) {
        std::cout << r.spec << ", " << fewest->name << ": saw " << fewest->tokens
                  << " tokens, the fewest of all experts";
        if (too_few > 0) {
            std::cout << "; " << too_few << " layers of experts saw fewer tokens than they have inputs (--all-experts "
                      << "shows them every token)";
        }
        std::cout << '\n';
    }
}

nlohmann::ordered_json to_json(detent::work_times const& times) {
    nlohmann::ordered_json json;
    for (std::size_t i = 0; i < times.seconds.size(); ++i) {
        json[std::string(detent::work_names[i])] = times.seconds[i];
    }
    return json;
}

} // namespace

detent::work_times run_report::times() const {
    detent::work_times all = float_times;
    for (auto const& r : results) {
        all += r.times;
    }
    return all;
}

double peak_memory() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return 1024.0 * static_cast<double>(usage.ru_maxrss);
}

void print(run_report const& report) {
    bool const weak = std::ranges::any_of(report.results, [](auto const& r) { return r.weak_columns > 0; });
    std::vector<std::string> head{"weights", "perplexity", "bits/weight", "MB", "quantize s", "evaluate s"};
    std::vector<std::string> first{"float", perplexity_text(report.float_perplexity),
                                   "",      megabytes(report.float_bytes),
                                   "",      fixed(report.float_seconds, 1)};
    if (weak) {
        head.insert(head.end(), {"weak columns", "effective bits"});
        first.insert(first.end(), {"", ""});
    }
    table t(std::move(head));
    t.add(std::move(first));
    for (auto const& r : report.results) {
        std::vector<std::string> row{r.spec,
                                     perplexity_text(r.perplexity),
                                     fixed(r.bits_per_weight, 3),
                                     megabytes(r.bytes),
                                     fixed(r.quantize_seconds, 1),
                                     fixed(r.evaluate_seconds, 1)};
        if (weak) {
            row.insert(row.end(), {std::to_string(r.weak_columns), fixed(r.effective_bits, 3)});
        }
        t.add(std::move(row));
    }
    t.print();
    for (auto const& r : report.results) {
        print_experts(r);
        for (auto const& layer : r.layers) {
            if (!layer.solve.fallback.empty()) {
                std::cout << r.spec << ", " << layer.name << ": rounded to nearest, " << layer.solve.fallback << '\n';
            }
            if (layer.solve.damping_raised > 0) {
                std::cout << r.spec << ", " << layer.name << ": damping raised to " << layer.solve.damping << '\n';
            }
            if (layer.solve.dead_columns > 0) {
                std::cout << r.spec << ", " << layer.name << ": " << layer.solve.dead_columns
                          << " inputs were always zero; their weights are rounded to nearest\n";
            }
            if (layer.solve.weak_missing > 0) {
                std::cout << r.spec << ", " << layer.name << ": " << layer.solve.weak_missing
                          << " weak columns fewer, as too few inputs were ever seen\n";
            }
            if (layer.solve.clamped_scales > 0) {
                std::cout << r.spec << ", " << layer.name << ": " << layer.solve.clamped_scales
                          << " scales do not fit their format\n";
            }
        }
    }
    print_times(report);
}

std::string to_json(run_report const& report) {
    auto results = nlohmann::ordered_json::array();
    for (auto const& r : report.results) {
        auto layers = nlohmann::ordered_json::array();
        for (auto const& l : r.layers) {
            layers.push_back({{"name", l.name},
                              {"out", l.shape.rows},
                              {"in", l.shape.cols},
                              {"tokens", l.tokens},
                              {"few_tokens", l.few_tokens},
                              {"bits_per_weight", l.bits_per_weight},
                              {"effective_bits", l.effective_bits},
                              {"weak_columns", l.weak_columns},
                              {"weak_missing", l.solve.weak_missing},
                              {"relative_error", l.error},
                              {"relative_float_error", l.float_error},
                              {"loss", l.solve.loss},
                              {"damping", l.solve.damping},
                              {"damping_raised", l.solve.damping_raised},
                              {"dead_columns", l.solve.dead_columns},
                              {"clamped_scales", l.solve.clamped_scales},
                              {"fallback", l.solve.fallback},
                              {"seconds", l.seconds}});
        }
        results.push_back({{"spec", r.spec},
                           {"perplexity", number_or_null(r.perplexity)},
                           {"bits_per_weight", r.bits_per_weight},
                           {"effective_bits", r.effective_bits},
                           {"weak_columns", r.weak_columns},
                           {"bytes", r.bytes},
                           {"quantize_seconds", r.quantize_seconds},
                           {"evaluate_seconds", r.evaluate_seconds},
                           {"times", to_json(r.times)},
                           {"layers", layers}});
    }
    nlohmann::ordered_json const json{{"detent", version_text()},
                                      {"model", report.model},
                                      {"float_perplexity", number_or_null(report.float_perplexity)},
                                      {"float_bytes", report.float_bytes},
                                      {"float_seconds", report.float_seconds},
                                      {"float_times", to_json(report.float_times)},
                                      {"times", to_json(report.times())},
                                      {"peak_bytes", report.peak_bytes},
                                      {"results", results}};
    return json.dump(2) + "\n";
}

std::string to_svg(run_report const& report) {
    constexpr std::array colors{"#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb"};
    constexpr int bar = 12;
    constexpr int gap = 8;
    constexpr int names = 280; // width of the layers' names
    constexpr int plot = 560;  // width of the longest bar
    auto const series = static_cast<int>(report.results.size());
    auto const& first = report.results.front().layers;
    double largest = 0;
    for (auto const& r : report.results) {
        for (auto const& l : r.layers) {
            largest = std::max(largest, l.error);
        }
    }
    int const top = 40 + 18 * series;
    int const height = top + static_cast<int>(first.size()) * (series * bar + gap) + 20;
    std::ostringstream svg;
    svg << "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" << names + plot + 100 << "\" height=\"" << height
        << "\" font-family=\"sans-serif\" font-size=\"11\">\n"
        << "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        << "<text x=\"10\" y=\"20\" font-size=\"14\">" << escaped(report.model)
        << ": relative squared error of each layer's output, in percent</text>\n";
    for (int s = 0; s < series; ++s) {
        auto const& r = report.results[static_cast<std::size_t>(s)];
        auto const* const color = colors[static_cast<std::size_t>(s) % colors.size()];
        int const legend = 30 + 18 * s;
        svg << "<rect x=\"10\" y=\"" << legend << "\" width=\"12\" height=\"12\" fill=\"" << color
            << "\"/><text x=\"28\" y=\"" << legend + 10 << "\">" << escaped(r.spec) << "</text>\n";
        for (std::size_t i = 0; i < r.layers.size(); ++i) {
            int const y = top + static_cast<int>(i) * (series * bar + gap) + s * bar;
            double const width = largest > 0 ? plot * r.layers[i].error / largest : 0;
            if (s == 0) {
                svg << "<text x=\"" << names - 6 << "\" y=\"" << y + series * bar / 2 + 4 << "\" text-anchor=\"end\">"
                    << escaped(r.layers[i].name) << "</text>\n";
            }
            svg << "<rect x=\"" << names << "\" y=\"" << y << "\" width=\"" << fixed(width, 1) << "\" height=\""
                << bar - 1 << "\" fill=\"" << color << "\"/><text x=\"" << fixed(names + width + 4, 1) << "\" y=\""
                << y + 10 << "\" font-size=\"9\">" << fixed(100 * r.layers[i].error, 3) << "</text>\n";
        }
    }
    svg << "</svg>\n";
    return svg.str();
}

void write_report(run_report const& report, std::filesystem::path const& directory) {
    detent::io::write_text(directory / "report.json", to_json(report));
    detent::io::write_text(directory / "layer_errors.svg", to_svg(report));
}
