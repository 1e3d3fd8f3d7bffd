// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Products of ggml's CPU backend, with the weights in the layout that it prefers.

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include "contestant.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/thread_team.hpp"
#include "peers.hpp"

namespace peers {
namespace {

struct release {
    void operator()(ggml_context* context) const { ggml_free(context); }
    void operator()(ggml_backend_buffer* memory) const { ggml_backend_buffer_free(memory); }
    void operator()(ggml_backend* backend) const { ggml_backend_free(backend); }
};
template <class T> using handle = std::unique_ptr<T, release>;

/// The answer of a function of ggml that is null when it fails.
template <class T> T* made(T* pointer, char const* what) {
    return pointer != nullptr ? pointer : throw std::runtime_error(std::string("ggml: no ") + what);
}

/// A context for the descriptions of so many tensors and graphs of one product, without their data.
handle<ggml_context> context_of(std::size_t tensors, std::size_t graphs = 0) {
    std::size_t const bytes = tensors * ggml_tensor_overhead() + graphs * ggml_graph_overhead_custom(8, false);
    return handle<ggml_context>(
        made(ggml_init({.mem_size = bytes, .mem_buffer = nullptr, .no_alloc = true}), "context"));
}

/// The backend that all contestants share.
ggml_backend_t backend() {
    static handle<ggml_backend> const cpu = [] {
        ggml_log_set([](ggml_log_level, char const*, void*) {}, nullptr); // it tells of every copy
        ggml_backend_load_all();
        return handle<ggml_backend>(made(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr), "backend"));
    }();
    return cpu.get();
}
ggml_backend_dev_t device() { return ggml_backend_get_device(backend()); }

/// A function that only the CPU backend has.
template <class F> F function_of_cpu(char const* name) {
    return reinterpret_cast<F>(
        made(ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device()), name), name));
}

/// The kinds of memory for weights, those first in which they are laid out for its fastest products.
std::vector<ggml_backend_buffer_type_t> kinds_of_memory() {
    std::vector<ggml_backend_buffer_type_t> kinds;
    auto const extra = function_of_cpu<ggml_backend_dev_get_extra_bufts_t>("ggml_backend_dev_get_extra_bufts");
    for (auto* kind = extra(device()); kind != nullptr && *kind != nullptr; ++kind) {
        kinds.push_back(*kind);
    }
    kinds.push_back(ggml_backend_dev_buffer_type(device()));
    return kinds;
}

class ggml_contestant final : public contestant {
public:
    ggml_contestant(ggml_type type, matrix const& w)
        : type_(type), rows_(w.rows()), cols_(w.cols()),
          codes_(ggml_row_size(type, cols_) * static_cast<std::size_t>(rows_)) {
        quantize(w);
        auto const count = static_cast<std::size_t>(copies_of(bytes()));
        for (auto* kind : kinds_of_memory()) {
            copies_.clear();
            descriptions_ = context_of(count + 2); // one product, to ask whether there is one
            for (std::size_t i = 0; i < count; ++i) {
                copies_.push_back(ggml_new_tensor_2d(descriptions_.get(), type_, cols_, rows_));
            }
            weights_.reset(made(ggml_backend_alloc_ctx_tensors_from_buft(descriptions_.get(), kind), "memory"));
            auto* const x = ggml_new_tensor_2d(descriptions_.get(), GGML_TYPE_F32, cols_, 1);
            if (ggml_backend_dev_supports_op(device(), ggml_mul_mat(descriptions_.get(), copies_.front(), x))) {
                break;
            }
        }
        ggml_backend_buffer_set_usage(weights_.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        for (auto* copy : copies_) {
            ggml_backend_tensor_set(copy, codes_.data(), 0, codes_.size());
        }
    }

    double bytes() const override { return static_cast<double>(codes_.size()); }

    matrix weights() const override {
        matrix w(rows_, cols_);
        ggml_get_type_traits(type_)->to_float(codes_.data(), w.data(), w.size());
        return w;
    }

    void prepare(matrix const& x, int threads) override {
        function_of_cpu<ggml_backend_set_n_threads_t>("ggml_backend_set_n_threads")(backend(), threads);
        products_ = context_of(copies_.size() + 1, copies_.size());
        auto* const kind = ggml_backend_dev_buffer_type(device());
        auto const alignment = static_cast<index_t>(ggml_backend_buft_get_alignment(kind));
        index_t const x_bytes = detent::ceil_div(x.size() * index_t{sizeof(float)}, alignment) * alignment;
        y_.resize(x.rows(), rows_);
        index_t const y_bytes = y_.size() * index_t{sizeof(float)};
        memory_.reset(
            made(ggml_backend_buft_alloc_buffer(kind, static_cast<std::size_t>(x_bytes + y_bytes)), "memory"));
        auto* const memory = static_cast<std::byte*>(ggml_backend_buffer_get_base(memory_.get()));

        auto* const input = ggml_new_tensor_2d(products_.get(), GGML_TYPE_F32, cols_, x.rows());
        ggml_backend_tensor_alloc(memory_.get(), input, memory);
        ggml_backend_tensor_set(input, x.data(), 0, ggml_nbytes(input));
        graphs_.clear();
        for (auto* copy : copies_) {
            output_ = ggml_mul_mat(products_.get(), copy, input);
            ggml_backend_tensor_alloc(memory_.get(), output_, memory + x_bytes); // the same for all
            graphs_.push_back(ggml_new_graph_custom(products_.get(), 8, false));
            ggml_build_forward_expand(graphs_.back(), output_);
        }
    }

    void run() override {
        if (ggml_backend_graph_compute(backend(), graphs_[turn_++ % graphs_.size()]) != GGML_STATUS_SUCCESS) {
            throw std::runtime_error("ggml: a product failed");
        }
    }

    matrix const& result() const override {
        ggml_backend_tensor_get(output_, y_.data(), 0, ggml_nbytes(output_));
        return y_;
    }

private:
    void quantize(matrix const& w) {
        class detent::thread_team all;
        detent::executor_ref(all).for_pieces(rows_, 64, [&](index_t begin, index_t end) {
            ggml_quantize_chunk(type_, w.data(), codes_.data(), begin * cols_, end - begin, cols_, nullptr);
        });
    }

    ggml_type type_;
    index_t rows_;
    index_t cols_;
    std::vector<std::byte> codes_; // before they are laid out for products
    handle<ggml_context> descriptions_;
    handle<ggml_backend_buffer> weights_;
    std::vector<ggml_tensor*> copies_;
    handle<ggml_context> products_;
    handle<ggml_backend_buffer> memory_; // of x and y
    std::vector<ggml_cgraph*> graphs_;   // of one product each
    ggml_tensor* output_ = nullptr;
    mutable matrix y_; // (token, out)
    std::size_t turn_ = 0;
};

entry of_type(ggml_type type) {
    return {.name = std::string("ggml ") + ggml_type_name(type), .make = [type](matrix const& w) {
                bool const whole = w.cols() % ggml_blck_size(type) == 0;
                return whole ? std::make_unique<ggml_contestant>(type, w) : std::unique_ptr<contestant>();
            }};
}

} // namespace

peer ggml_peer() {
    return {.version = ggml_version(),
            .entries = {of_type(GGML_TYPE_Q4_0), of_type(GGML_TYPE_Q4_K), of_type(GGML_TYPE_IQ4_NL),
                        of_type(GGML_TYPE_Q8_0), of_type(GGML_TYPE_Q2_K), of_type(GGML_TYPE_Q3_K),
                        of_type(GGML_TYPE_F16), of_type(GGML_TYPE_BF16)}};
}

} // namespace peers
