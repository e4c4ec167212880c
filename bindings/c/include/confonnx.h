/* The C library confonnx: attested inference.
 *
 * Handles are opaque; each is freed by the function named after it, and a null pointer may be freed. Nothing is global:
 * clients are independent of each other. A client may be used by many threads at once; other handles by one at a time,
 * but for `confonnx_cancel_now`. Text is UTF-8 that ends in a null byte. What a function puts where a pointer of the
 * caller's points is the caller's to free; what it returns as `const` belongs to the handle it came from.
 *
 * A function that can fail returns a code, 0 when it worked. If `error` is not null it is set to what went wrong, for the
 * caller to free, or to null.
 *
 * Written by scripts/c-header from bindings/c/src: do not edit. */

#ifndef CONFONNX_H
#define CONFONNX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What an error is about, and so what a caller can do. Numbers stay. */
typedef enum ConfonnxCode {
    /* The call worked. */
    CONFONNX_OK = 0,
    /* What was given cannot be used. */
    CONFONNX_ARGUMENT = 1,
    /* What is expected of the server is missing or malformed. Nothing was sent. */
    CONFONNX_POLICY = 2,
    /* The server did not prove what the policy asks for. No request was sent. */
    CONFONNX_ATTESTATION = 3,
    /* The server refused the request. */
    CONFONNX_REFUSED = 4,
    /* There was no answer. */
    CONFONNX_TRANSPORT = 5,
    /* There was no answer in time. */
    CONFONNX_TIMEOUT = 6,
    /* The answer is malformed, or does not belong to this request. */
    CONFONNX_REPLY = 7,
    /* The operating system refused something, such as reading a file. */
    CONFONNX_SYSTEM = 8,
    /* The call was cancelled. */
    CONFONNX_CANCELLED = 9,
    /* A defect of this library. */
    CONFONNX_DEFECT = 10,
} ConfonnxCode;

/* What went wrong. */
typedef struct ConfonnxError ConfonnxError;

/* What is expected of a server, and how to talk to it. */
typedef struct ConfonnxOptions ConfonnxOptions;

/* Ends calls that were given it, from any thread. */
typedef struct ConfonnxCancel ConfonnxCancel;

/* A client of one server, which it verifies before it sends anything. For many threads at once, but not for a process
 * forked since it was made: its connections have a thread. */
typedef struct ConfonnxClient ConfonnxClient;

/* Text that the caller frees. */
typedef struct ConfonnxText ConfonnxText;

/* Inputs of a call. */
typedef struct ConfonnxInputs ConfonnxInputs;

/* Outputs of a call, in order. */
typedef struct ConfonnxOutputs ConfonnxOutputs;

/* An opened answer. Erased when it is freed. */
typedef struct ConfonnxResponse ConfonnxResponse;

/* The library's version. */
const char *confonnx_version(void);

/* Frees an error. */
void confonnx_error_free(ConfonnxError *error);

/* The error's code. */
ConfonnxCode confonnx_error_code(const ConfonnxError *error);

/* The error's text: what was expected, what was found, what to do. Never null. */
const char *confonnx_error_message(const ConfonnxError *error);

/* HTTP status of a refusal, the inner one if the answer was sealed; 0 if there is none. */
uint16_t confonnx_error_status(const ConfonnxError *error);

/* The server's code for a refusal, such as `queue-full`; null if there is none. */
const char *confonnx_error_server_code(const ConfonnxError *error);

/* Every check of the attestation as a JSON array, when that is what failed; else null. */
const char *confonnx_error_checks(const ConfonnxError *error);

/* The defaults, which expect nothing: a client is made only once an enclave hash, a signing key or a policy is set. */
ConfonnxOptions *confonnx_options_new(void);

/* Frees options. */
void confonnx_options_free(ConfonnxOptions *options);

/* Sets the option `name`: `policy` (a preset or a file), `enclave_hash` (hex or an enclave_info.json; more than once, one
 * of them has to match), `enclave_signing_key` (PEM; likewise), `model_hash` (hex or NAME=HEX; likewise), `allow_debug`,
 * `auth_key`, `basic_user`, `basic_password`, `kem`, `aead`, `chunked`, `resumption`, `relay`, `timeout_ms`,
 * `connect_timeout_ms`, `max_reply`, `retries`, `ca_file`, `proxy` (a URL or `none`; what the environment says when not
 * set). Whether something is on is `true` or `false`. */
ConfonnxCode confonnx_options_set(ConfonnxOptions *options, const char *name, const char *value, ConfonnxError **error);

/* A handle by which calls can be ended. */
ConfonnxCancel *confonnx_cancel_new(void);

/* Ends all calls that were given `cancel`, and those that will be. May be called from any thread, at any time before it is
 * freed. */
void confonnx_cancel_now(const ConfonnxCancel *cancel);

/* Frees the handle, after the calls that were given it have returned. */
void confonnx_cancel_free(ConfonnxCancel *cancel);

/* A client of the server at `url`, which has to be what `options` expect. No network until the first call. The options
 * are copied. */
ConfonnxCode confonnx_client_new(
    const char *url,
    const ConfonnxOptions *options,
    ConfonnxClient **client,
    ConfonnxError **error);

/* Frees a client, after the calls of other threads have returned. */
void confonnx_client_free(ConfonnxClient *client);

/* What the server proved, as JSON: `tee`, `enclave_hash`, `claims`, `checks`. Attests first if there is no proof. */
ConfonnxCode confonnx_client_attest(
    const ConfonnxClient *client,
    const ConfonnxCancel *cancel,
    ConfonnxText **proof,
    ConfonnxError **error);

/* Runs `model` (null: the only one) in `version` (null: the server's choice) on `inputs`; the `output_count` outputs that
 * are named, or all if none is. */
ConfonnxCode confonnx_client_infer(
    const ConfonnxClient *client,
    const char *model,
    const char *version,
    const ConfonnxInputs *inputs,
    const char *const *output_names,
    size_t output_count,
    const ConfonnxCancel *cancel,
    ConfonnxOutputs **outputs,
    ConfonnxError **error);

/* Sends a request to the inner API, such as `GET` `/v2`; the answer, whatever its status. `content_type` may be null. */
ConfonnxCode confonnx_client_request(
    const ConfonnxClient *client,
    const char *method,
    const char *path,
    const char *content_type,
    const uint8_t *body,
    size_t body_len,
    const ConfonnxCancel *cancel,
    ConfonnxResponse **response,
    ConfonnxError **error);

/* The text. It lives until it is freed. */
const char *confonnx_text(const ConfonnxText *text);

/* Frees a text. */
void confonnx_text_free(ConfonnxText *text);

/* A call's inputs, none so far. */
ConfonnxInputs *confonnx_inputs_new(void);

/* Frees inputs. */
void confonnx_inputs_free(ConfonnxInputs *inputs);

/* Adds an input: `dtype` is NumPy's name of the type (`float32`, `int64`, `bool`, …), `shape` has `rank` lengths, outermost
 * first, and `data` `len` bytes in this machine's order, which are copied. */
ConfonnxCode confonnx_inputs_add(
    ConfonnxInputs *inputs,
    const char *name,
    const char *dtype,
    const uint64_t *shape,
    size_t rank,
    const uint8_t *data,
    size_t len,
    ConfonnxError **error);

/* Adds an input of strings: `count` texts, copied, arranged by `shape`. */
ConfonnxCode confonnx_inputs_add_strings(
    ConfonnxInputs *inputs,
    const char *name,
    const uint64_t *shape,
    size_t rank,
    const char *const *items,
    size_t count,
    ConfonnxError **error);

/* Frees outputs. */
void confonnx_outputs_free(ConfonnxOutputs *outputs);

/* How many outputs there are. */
size_t confonnx_outputs_count(const ConfonnxOutputs *outputs);

/* The name of output `index`; null if there are not so many. */
const char *confonnx_outputs_name(const ConfonnxOutputs *outputs, size_t index);

/* NumPy's name of an output's type, `string` for strings; null if there are not so many outputs. */
const char *confonnx_outputs_dtype(const ConfonnxOutputs *outputs, size_t index);

/* The lengths of an output's dimensions, outermost first, `rank` of them; null if there are not so many outputs. */
const uint64_t *confonnx_outputs_shape(const ConfonnxOutputs *outputs, size_t index, size_t *rank);

/* The values of an output, `len` bytes in this machine's order; null if there are not so many outputs. Of strings see
 * `confonnx_outputs_string`. */
const uint8_t *confonnx_outputs_data(const ConfonnxOutputs *outputs, size_t index, size_t *len);

/* String `element` of output `index` in row-major order, `len` bytes without a null byte after them; null if there are
 * not so many outputs or strings. */
const uint8_t *confonnx_outputs_string(const ConfonnxOutputs *outputs, size_t index, size_t element, size_t *len);

/* Frees a response. */
void confonnx_response_free(ConfonnxResponse *response);

/* The status of a response, which came sealed; 0 of a null pointer. */
uint16_t confonnx_response_status(const ConfonnxResponse *response);

/* The value of the header field of that lower-case name; null if there is none. */
const char *confonnx_response_field(const ConfonnxResponse *response, const char *name);

/* The body of a response, of `len` bytes; null of a null pointer. */
const uint8_t *confonnx_response_body(const ConfonnxResponse *response, size_t *len);

#ifdef __cplusplus
}
#endif

#endif
