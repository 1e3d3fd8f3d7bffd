// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/text_file.hpp"

/// A message of Protocol Buffers, read slowly and by itself: what fields it has, integers and bytes.
class protobuf_fields {
public:
    explicit protobuf_fields(std::string bytes) : bytes_(std::move(bytes)) {
        for (std::size_t at = 0; at < bytes_.size();) {
            std::uint64_t const tag = varint(at);
            int const field = static_cast<int>(tag >> 3);
            switch (tag & 7) {
            case 0:
                integers_[field].push_back(static_cast<std::int64_t>(varint(at)));
                break;
            case 2: {
                std::uint64_t const length = varint(at);
                EXPECT_LE(at + length, bytes_.size()) << "field " << field;
                texts_[field].push_back(bytes_.substr(at, length));
                at += length;
                break;
            }
            case 5: {
                float number = 0;
                std::memcpy(&number, bytes_.data() + at, 4);
                floats_[field].push_back(number);
                at += 4;
                break;
            }
            default:
                ADD_FAILURE() << "field " << field << " is of another kind";
                return;
            }
        }
    }

    std::int64_t integer(int field) const { return integers_.contains(field) ? integers_.at(field).front() : 0; }
    std::vector<std::int64_t> integers(int field) const {
        return integers_.contains(field) ? integers_.at(field) : std::vector<std::int64_t>{};
    }
    std::string text(int field) const { return texts_.contains(field) ? texts_.at(field).front() : ""; }
    std::vector<std::string> texts(int field) const {
        return texts_.contains(field) ? texts_.at(field) : std::vector<std::string>{};
    }
    float number(int field) const { return floats_.at(field).front(); }

private:
    std::uint64_t varint(std::size_t& at) const {
        std::uint64_t value = 0;
        for (int shift = 0; at < bytes_.size(); shift += 7) {
            auto const byte = static_cast<unsigned char>(bytes_[at++]);
            value |= std::uint64_t{byte & 0x7FU} << shift;
            if (byte < 0x80) {
                break;
            }
        }
        return value;
    }

    std::string bytes_;
    std::map<int, std::vector<std::int64_t>> integers_;
    std::map<int, std::vector<std::string>> texts_;
    std::map<int, std::vector<float>> floats_;
};

/// A tensor of an ONNX file.
struct onnx_stored_tensor {
    std::int64_t type = 0;
    std::vector<std::int64_t> shape = {};
    std::string bytes = {};
    std::map<std::string, std::string> place = {}; ///< in another file

    template <class T> std::vector<T> numbers() const {
        std::vector<T> all(bytes.size() / sizeof(T));
        std::memcpy(all.data(), bytes.data(), bytes.size());
        return all;
    }
};

/// A node of an ONNX file.
struct onnx_stored_node {
    std::string type, domain;
    std::vector<std::string> inputs, outputs;
    std::map<std::string, std::int64_t> integers;
};

/// An ONNX file; field numbers are those of onnx.proto.
struct onnx_stored_model {
    explicit onnx_stored_model(std::filesystem::path const& path) : model(detent::io::read_text(path)), graph(model.text(7)) {
        for (auto const& bytes : graph.texts(1)) {
            protobuf_fields const n(bytes);
            onnx_stored_node node{n.text(4), n.text(7), n.texts(1), n.texts(2), {}};
            for (auto const& attribute : n.texts(5)) {
                protobuf_fields const a(attribute);
                node.integers[a.text(1)] = a.integer(3);
            }
            nodes.push_back(node);
        }
        for (auto const& bytes : graph.texts(5)) {
            protobuf_fields const t(bytes);
            auto& tensor = tensors[t.text(8)] = {t.integer(2), t.integers(1), t.text(9), {}};
            for (auto const& entry : t.texts(13)) {
                protobuf_fields const e(entry);
                tensor.place[e.text(1)] = e.text(2);
            }
        }
    }

    std::vector<onnx_stored_node> of_type(std::string const& type) const {
        std::vector<onnx_stored_node> all;
        for (auto const& node : nodes) {
            if (node.type == type) {
                all.push_back(node);
            }
        }
        return all;
    }

    protobuf_fields model, graph;
    std::vector<onnx_stored_node> nodes;
    std::map<std::string, onnx_stored_tensor> tensors;
};
