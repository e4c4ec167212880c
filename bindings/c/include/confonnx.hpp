// The C++ face of the C library confonnx (C++17): handles that free themselves, errors that are thrown.

#ifndef CONFONNX_HPP
#define CONFONNX_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "confonnx.h"

namespace confonnx {

/// What went wrong: `code()` says what to do about it, `what()` explains it.
class Error : public std::runtime_error {
public:
    explicit Error(ConfonnxError *error)
        : std::runtime_error(confonnx_error_message(error)),
          code_(confonnx_error_code(error)),
          status_(confonnx_error_status(error)),
          server_code_(text(confonnx_error_server_code(error))),
          checks_(text(confonnx_error_checks(error))) {
        confonnx_error_free(error);
    }

    ConfonnxCode code() const noexcept { return code_; }
    /// HTTP status of a refusal, or 0.
    std::uint16_t status() const noexcept { return status_; }
    /// The server's code for a refusal, or nothing.
    const std::string &server_code() const noexcept { return server_code_; }
    /// Every check of the attestation, as JSON, when that is what failed.
    const std::string &checks() const noexcept { return checks_; }

private:
    static std::string text(const char *text) { return text == nullptr ? std::string() : std::string(text); }

    ConfonnxCode code_;
    std::uint16_t status_;
    std::string server_code_;
    std::string checks_;
};

namespace detail {

template <typename T, void (*Free)(T *)>
struct Freed {
    void operator()(T *handle) const noexcept { Free(handle); }
};

template <typename T, void (*Free)(T *)>
using Handle = std::unique_ptr<T, Freed<T, Free>>;

// By reference: it is read once the call that sets it has returned, whatever is evaluated first.
inline void check(ConfonnxCode code, ConfonnxError *const &error) {
    if (code != CONFONNX_OK) throw Error(error);
}

inline const char *optional(const std::string &text) { return text.empty() ? nullptr : text.c_str(); }

} // namespace detail

/// Ends calls that were given it, from any thread.
class Cancel {
public:
    Cancel() : handle_(confonnx_cancel_new()) {}
    void now() const noexcept { confonnx_cancel_now(handle_.get()); }
    const ConfonnxCancel *get() const noexcept { return handle_.get(); }

private:
    detail::Handle<ConfonnxCancel, confonnx_cancel_free> handle_;
};

/// What is expected of a server, and how to talk to it: the names of `confonnx_options_set`.
class Options {
public:
    Options() : handle_(confonnx_options_new()) {}

    Options &set(const std::string &name, const std::string &value) {
        ConfonnxError *error = nullptr;
        detail::check(confonnx_options_set(handle_.get(), name.c_str(), value.c_str(), &error), error);
        return *this;
    }

    const ConfonnxOptions *get() const noexcept { return handle_.get(); }

private:
    detail::Handle<ConfonnxOptions, confonnx_options_free> handle_;
};

/// Named tensors to send.
class Inputs {
public:
    Inputs() : handle_(confonnx_inputs_new()) {}

    /// `dtype` is NumPy's name of `T`.
    template <typename T>
    Inputs &add(const std::string &name, const std::string &dtype, const std::vector<std::uint64_t> &shape,
                const std::vector<T> &data) {
        static_assert(std::is_arithmetic<T>::value, "numbers; strings have add_strings");
        ConfonnxError *error = nullptr;
        const auto *bytes = reinterpret_cast<const std::uint8_t *>(data.data());
        detail::check(confonnx_inputs_add(handle_.get(), name.c_str(), dtype.c_str(), shape.data(), shape.size(), bytes,
                                          data.size() * sizeof(T), &error),
                      error);
        return *this;
    }

    Inputs &add_strings(const std::string &name, const std::vector<std::uint64_t> &shape,
                        const std::vector<std::string> &items) {
        std::vector<const char *> texts;
        texts.reserve(items.size());
        for (const auto &item : items) texts.push_back(item.c_str());
        ConfonnxError *error = nullptr;
        detail::check(confonnx_inputs_add_strings(handle_.get(), name.c_str(), shape.data(), shape.size(), texts.data(),
                                                  texts.size(), &error),
                      error);
        return *this;
    }

    const ConfonnxInputs *get() const noexcept { return handle_.get(); }

private:
    detail::Handle<ConfonnxInputs, confonnx_inputs_free> handle_;
};

/// Named tensors that came back.
class Outputs {
public:
    explicit Outputs(ConfonnxOutputs *outputs) : handle_(outputs) {}

    std::size_t size() const noexcept { return confonnx_outputs_count(handle_.get()); }
    std::string name(std::size_t index) const { return confonnx_outputs_name(handle_.get(), in_range(index)); }
    std::string dtype(std::size_t index) const { return confonnx_outputs_dtype(handle_.get(), in_range(index)); }

    std::vector<std::uint64_t> shape(std::size_t index) const {
        std::size_t rank = 0;
        const std::uint64_t *dims = confonnx_outputs_shape(handle_.get(), in_range(index), &rank);
        return std::vector<std::uint64_t>(dims, dims + rank);
    }

    /// The values, copied; `T` has to be as large as the type.
    template <typename T>
    std::vector<T> values(std::size_t index) const {
        std::size_t len = 0;
        const std::uint8_t *data = confonnx_outputs_data(handle_.get(), in_range(index), &len);
        if (len % sizeof(T) != 0) throw std::length_error("the output's values are not of that size");
        std::vector<T> values(len / sizeof(T));
        std::copy(data, data + len, reinterpret_cast<std::uint8_t *>(values.data()));
        return values;
    }

    std::string string(std::size_t index, std::size_t element) const {
        std::size_t len = 0;
        const std::uint8_t *text = confonnx_outputs_string(handle_.get(), in_range(index), element, &len);
        if (text == nullptr) throw std::out_of_range("the output has no such string");
        return std::string(reinterpret_cast<const char *>(text), len);
    }

private:
    std::size_t in_range(std::size_t index) const {
        if (index >= size()) throw std::out_of_range("there are not so many outputs");
        return index;
    }

    detail::Handle<ConfonnxOutputs, confonnx_outputs_free> handle_;
};

/// An opened answer to a request of the caller's.
class Response {
public:
    explicit Response(ConfonnxResponse *response) : handle_(response) {}

    std::uint16_t status() const noexcept { return confonnx_response_status(handle_.get()); }

    std::string body() const {
        std::size_t len = 0;
        const std::uint8_t *body = confonnx_response_body(handle_.get(), &len);
        return std::string(reinterpret_cast<const char *>(body), len);
    }

private:
    detail::Handle<ConfonnxResponse, confonnx_response_free> handle_;
};

/// A client of one server, which it verifies before it sends anything. For many threads at once.
class Client {
public:
    Client(const std::string &url, const Options &options) {
        ConfonnxClient *client = nullptr;
        ConfonnxError *error = nullptr;
        detail::check(confonnx_client_new(url.c_str(), options.get(), &client, &error), error);
        handle_.reset(client);
    }

    /// What the server proved, as JSON.
    std::string attest(const Cancel *cancel = nullptr) const {
        ConfonnxText *proof = nullptr;
        ConfonnxError *error = nullptr;
        detail::check(confonnx_client_attest(handle_.get(), given(cancel), &proof, &error), error);
        detail::Handle<ConfonnxText, confonnx_text_free> owned(proof);
        return confonnx_text(proof);
    }

    /// Runs a model; without a name the only one, without names of outputs all of them.
    Outputs infer(const Inputs &inputs, const std::string &model = {}, const std::string &version = {},
                  const std::vector<std::string> &outputs = {}, const Cancel *cancel = nullptr) const {
        std::vector<const char *> names;
        names.reserve(outputs.size());
        for (const auto &name : outputs) names.push_back(name.c_str());
        ConfonnxOutputs *found = nullptr;
        ConfonnxError *error = nullptr;
        detail::check(confonnx_client_infer(handle_.get(), detail::optional(model), detail::optional(version), inputs.get(),
                                            names.data(), names.size(), given(cancel), &found, &error),
                      error);
        return Outputs(found);
    }

    /// Any request to the inner API; its answer, whatever the status.
    Response request(const std::string &method, const std::string &path, std::string_view body = {},
                     const std::string &content_type = {}, const Cancel *cancel = nullptr) const {
        ConfonnxResponse *response = nullptr;
        ConfonnxError *error = nullptr;
        detail::check(confonnx_client_request(handle_.get(), method.c_str(), path.c_str(), detail::optional(content_type),
                                              reinterpret_cast<const std::uint8_t *>(body.data()), body.size(),
                                              given(cancel), &response, &error),
                      error);
        return Response(response);
    }

private:
    static const ConfonnxCancel *given(const Cancel *cancel) { return cancel == nullptr ? nullptr : cancel->get(); }

    detail::Handle<ConfonnxClient, confonnx_client_free> handle_;
};

} // namespace confonnx

#endif
