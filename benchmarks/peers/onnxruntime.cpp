// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// ONNX Runtime's MatMulNBits. All copies are nodes of one session, whose threads thus stay awake from one to the next
// as those of a model do.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

#include "contestant.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "onnx_model.hpp"
#include "peers.hpp"

namespace peers {
namespace {

Ort::Env& environment() {
    static Ort::Env shared(ORT_LOGGING_LEVEL_ERROR, "detent_peers");
    return shared;
}

/// A tensor that borrows the numbers of `m`.
Ort::Value borrowed(matrix const& m) {
    auto const memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
    int64_t const shape[] = {m.rows(), m.cols()};
    return Ort::Value::CreateTensor<float>(memory, const_cast<float*>(m.data()), static_cast<std::size_t>(m.size()),
                                           shape, 2);
}

class onnxruntime_contestant final : public contestant {
public:
    onnxruntime_contestant(detent::packed_matrix w, int accuracy_level)
        : w_(std::move(w)), accuracy_level_(accuracy_level), copies_(copies_of(bytes())) {
        for (index_t i = 0; i < copies_; ++i) {
            names_.emplace_back("y").append(std::to_string(i));
        }
        for (auto const& name : names_) {
            outputs_.push_back(name.c_str());
        }
    }

    double bytes() const override {
        return static_cast<double>(w_.row_bytes() * w_.shape().rows) +
               static_cast<double>(w_.scales.scales.size() * sizeof(float));
    }
    matrix weights() const override { return dequantize(w_); }

    void prepare(matrix const& x, int threads) override {
        if (threads != threads_) {
            threads_ = threads;
            session_.reset();
            Ort::SessionOptions options;
            options.SetIntraOpNumThreads(threads);
            options.AddConfigEntry("session.intra_op.allow_spinning", "1"); // some builds sleep between products
            options.AddConfigEntry("session.force_spinning_stop", "1");     // after a run
            auto const model = onnx::model_of_products(w_, copies_, accuracy_level_);
            session_.emplace(environment(), model.data(), model.size(), options);
        }
        y_.resize(x.rows(), w_.shape().rows);
        inputs_of_run_.clear();
        inputs_of_run_.push_back(borrowed(x));
        rest_.resize(y_.rows(), y_.cols());
        outputs_of_run_.clear();
        for (index_t i = 0; i < copies_; ++i) {
            outputs_of_run_.push_back(borrowed(i == 0 ? y_ : rest_));
        }
    }

    void run() override {
        char const* const input = "x";
        session_->Run(Ort::RunOptions{nullptr}, &input, inputs_of_run_.data(), 1, outputs_.data(),
                      outputs_of_run_.data(), outputs_.size());
    }
    index_t products_of_a_run() const override { return copies_; }
    matrix const& result() const override { return y_; }

private:
    detent::packed_matrix w_;
    int accuracy_level_;
    index_t copies_;
    std::vector<std::string> names_;
    std::vector<char const*> outputs_;
    int threads_ = 0;
    std::optional<Ort::Session> session_;
    std::vector<Ort::Value> inputs_of_run_;
    std::vector<Ort::Value> outputs_of_run_;
    matrix y_;    // (token, out) of the first copy
    matrix rest_; // the same of any other
};

/// Integers with a scale for each block of a row. Level 1 multiplies floats, and so do 0, 2 and 3 on x86-64;
/// level 4 rounds the inputs to 8 bits.
template <int Bits, index_t Block> entry blocks(int accuracy_level) {
    return {.name = "onnxruntime int" + std::to_string(Bits) + " b" + std::to_string(Block) + " level " +
                    std::to_string(accuracy_level),
            .make = [accuracy_level](matrix const& w) -> std::unique_ptr<contestant> {
                if (w.cols() % Block != 0) {
                    return nullptr;
                }
                using integers = detent::int_grid<Bits, detent::zero::none>; // code 0 is -2^(Bits - 1) there too
                auto packed = detent::quantizer<integers, detent::per_group<Block>>{}(w).packed();
                return std::make_unique<onnxruntime_contestant>(std::move(packed), accuracy_level);
            }};
}

} // namespace

peer onnxruntime_peer() {
    return {.version = OrtGetApiBase()->GetVersionString(),
            .entries = {blocks<4, 128>(1), blocks<4, 128>(4), blocks<4, 32>(1), blocks<4, 32>(4), blocks<8, 128>(4),
                        blocks<2, 128>(4)}};
}

} // namespace peers
