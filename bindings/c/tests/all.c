/* Every function of the library: what it gives, and what it says when it is given nothing or nonsense. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <confonnx.h>

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

static ConfonnxClient *client_of(const char *url, const char *name, const char *value) {
    ConfonnxError *error = NULL;
    ConfonnxOptions *options = confonnx_options_new();
    CHECK(confonnx_options_set(options, name, value, &error) == CONFONNX_OK && error == NULL);
    ConfonnxClient *client = NULL;
    if (confonnx_client_new(url, options, &client, &error) != CONFONNX_OK) {
        fprintf(stderr, "%s\n", confonnx_error_message(error));
        exit(1);
    }
    confonnx_options_free(options);
    return client;
}

static void refuses_nonsense(const char *url) {
    ConfonnxError *error = NULL;
    ConfonnxClient *client = (ConfonnxClient *)1;
    ConfonnxOptions *options = confonnx_options_new();
    /* No client is made of options that expect nothing. */
    CHECK(confonnx_client_new(url, options, &client, &error) == CONFONNX_POLICY);
    CHECK(client == NULL && strstr(confonnx_error_message(error), "nothing is expected") != NULL);
    CHECK(confonnx_error_code(error) == CONFONNX_POLICY && confonnx_error_status(error) == 0);
    CHECK(confonnx_error_server_code(error) == NULL && confonnx_error_checks(error) == NULL);
    confonnx_error_free(error);
    const char *wrong[][2] = {{"kem", "rsa"}, {"timeout_ms", "0"}, {"retries", "-1"}, {"chunked", "yes"}, {"none", "1"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(confonnx_options_set(options, wrong[i][0], wrong[i][1], &error) == CONFONNX_ARGUMENT);
        CHECK(strstr(confonnx_error_message(error), wrong[i][0]) != NULL);
        confonnx_error_free(error);
    }
    CHECK(confonnx_options_set(options, "auth_key", "\xff", NULL) == CONFONNX_ARGUMENT);
    CHECK(confonnx_options_set(options, NULL, "1", NULL) == CONFONNX_ARGUMENT);
    CHECK(confonnx_options_set(NULL, "kem", "x25519", NULL) == CONFONNX_ARGUMENT);
    CHECK(confonnx_options_set(options, "allow_debug", "true", NULL) == CONFONNX_OK);
    CHECK(confonnx_client_new("ftp://host", options, &client, NULL) == CONFONNX_ARGUMENT);
    CHECK(confonnx_client_new(NULL, options, &client, NULL) == CONFONNX_ARGUMENT);
    CHECK(confonnx_client_new(url, options, NULL, NULL) == CONFONNX_ARGUMENT);
    CHECK(confonnx_client_infer(NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL) == CONFONNX_ARGUMENT);
    confonnx_options_free(options);

    /* Null in place of each handle. */
    confonnx_options_free(NULL), confonnx_client_free(NULL), confonnx_error_free(NULL), confonnx_text_free(NULL);
    confonnx_inputs_free(NULL), confonnx_outputs_free(NULL), confonnx_response_free(NULL), confonnx_cancel_free(NULL);
    confonnx_cancel_now(NULL);
    size_t len = 7;
    CHECK(confonnx_outputs_count(NULL) == 0 && confonnx_outputs_name(NULL, 0) == NULL);
    CHECK(confonnx_outputs_dtype(NULL, 0) == NULL && confonnx_outputs_shape(NULL, 0, &len) == NULL && len == 0);
    CHECK(confonnx_outputs_data(NULL, 0, NULL) == NULL && confonnx_outputs_string(NULL, 0, 0, &len) == NULL);
    CHECK(confonnx_response_body(NULL, &len) == NULL && confonnx_response_field(NULL, "a") == NULL);
    CHECK(confonnx_response_status(NULL) == 0 && *confonnx_text(NULL) == '\0' && strlen(confonnx_version()) > 0);
    CHECK(confonnx_error_code(NULL) == CONFONNX_OK && strcmp(confonnx_error_message(NULL), "no error") == 0);
}

static void proves_and_infers(const ConfonnxClient *client) {
    ConfonnxError *error = NULL;
    ConfonnxText *proof = NULL;
    CHECK(confonnx_client_attest(client, NULL, &proof, &error) == CONFONNX_OK);
    CHECK(strstr(confonnx_text(proof), "\"tee\":\"insecure\"") != NULL);
    confonnx_text_free(proof);

    ConfonnxInputs *inputs = confonnx_inputs_new();
    float *image = calloc(28 * 28, sizeof *image);
    for (int row = 4; row < 24; row++) image[row * 28 + 14] = image[row * 28 + 13] = 1.0f;
    const uint64_t shape[] = {1, 1, 28, 28};
    const uint8_t *bytes = (const uint8_t *)image;
    CHECK(confonnx_inputs_add(inputs, "image", "float33", shape, 4, bytes, 28 * 28 * 4, NULL) == CONFONNX_ARGUMENT);
    CHECK(confonnx_inputs_add(inputs, "image", "float32", shape, 3, bytes, 28 * 28 * 4, NULL) == CONFONNX_ARGUMENT);
    CHECK(confonnx_inputs_add(inputs, "image", "float32", shape, 4, NULL, 28 * 28 * 4, NULL) == CONFONNX_ARGUMENT);
    CHECK(confonnx_inputs_add(inputs, "image", "float32", shape, 4, bytes, 28 * 28 * 4, &error) == CONFONNX_OK);
    /* The library has a copy, so the caller's image may go. */
    memset(image, 0, 28 * 28 * sizeof *image);
    free(image);

    ConfonnxOutputs *outputs = NULL;
    CHECK(confonnx_client_infer(client, NULL, NULL, inputs, NULL, 0, NULL, &outputs, &error) == CONFONNX_OK);
    CHECK(confonnx_outputs_count(outputs) == 1);
    size_t rank = 0, len = 0;
    const uint64_t *dims = confonnx_outputs_shape(outputs, 0, &rank);
    CHECK(rank == 2 && dims[0] == 1 && dims[1] == 10);
    CHECK(strcmp(confonnx_outputs_dtype(outputs, 0), "float32") == 0);
    const uint8_t *data = confonnx_outputs_data(outputs, 0, &len);
    CHECK(len == 40);
    float scores[10];
    memcpy(scores, data, sizeof scores);
    int best = 0;
    for (int i = 1; i < 10; i++)
        if (scores[i] > scores[best]) best = i;
    CHECK(best == 1);
    CHECK(confonnx_outputs_name(outputs, 1) == NULL && confonnx_outputs_string(outputs, 0, 0, &len) == NULL);
    const char *names[] = {confonnx_outputs_name(outputs, 0)};
    ConfonnxOutputs *named = NULL;
    CHECK(confonnx_client_infer(client, "digits", NULL, inputs, names, 1, NULL, &named, &error) == CONFONNX_OK);
    CHECK(confonnx_outputs_count(named) == 1);
    confonnx_outputs_free(named);
    confonnx_outputs_free(outputs);

    /* A refusal that comes inside the seal. */
    outputs = NULL;
    CHECK(confonnx_client_infer(client, "none", NULL, inputs, NULL, 0, NULL, &outputs, &error) == CONFONNX_REFUSED);
    CHECK(outputs == NULL && confonnx_error_status(error) == 404 && confonnx_error_server_code(error) != NULL);
    confonnx_error_free(error);
    const char *texts[] = {"a", "\xc3\xa9"};
    const uint64_t two[] = {2};
    CHECK(confonnx_inputs_add_strings(inputs, "words", two, 1, texts, 2, &error) == CONFONNX_OK);
    CHECK(confonnx_inputs_add_strings(inputs, "words", two, 1, texts, 1, NULL) == CONFONNX_ARGUMENT);
    CHECK(confonnx_client_infer(client, NULL, NULL, inputs, NULL, 0, NULL, &outputs, &error) == CONFONNX_REFUSED);
    confonnx_error_free(error);
    confonnx_inputs_free(inputs);

    ConfonnxResponse *response = NULL;
    CHECK(confonnx_client_request(client, "GET", "/v2", NULL, NULL, 0, NULL, &response, &error) == CONFONNX_OK);
    CHECK(confonnx_response_status(response) == 200);
    CHECK(strstr(confonnx_response_field(response, "content-type"), "application/json") != NULL);
    CHECK(confonnx_response_body(response, &len) != NULL && len > 2);
    confonnx_response_free(response);
}

static void *infers(void *client) {
    for (int n = 0; n < 3; n++) proves_and_infers(client);
    return NULL;
}

static void *cancels(void *cancel) {
    usleep(200 * 1000);
    confonnx_cancel_now(cancel);
    return NULL;
}

int main(int argc, char **argv) {
    /* The URLs of a server, and of one that never answers. */
    CHECK(argc == 3);
    refuses_nonsense(argv[1]);
    ConfonnxClient *client = client_of(argv[1], "allow_debug", "true");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, infers, client) == 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    confonnx_client_free(client);

    char hash[97];
    memset(hash, '4', 96), hash[96] = '\0';
    client = client_of(argv[1], "enclave_hash", hash);
    ConfonnxError *error = NULL;
    ConfonnxText *proof = NULL;
    CHECK(confonnx_client_attest(client, NULL, &proof, &error) == CONFONNX_ATTESTATION);
    CHECK(proof == NULL && strstr(confonnx_error_checks(error), "\"enclave hash\"") != NULL);
    confonnx_error_free(error);
    confonnx_client_free(client);

    client = client_of(argv[2], "allow_debug", "true");
    ConfonnxCancel *cancel = confonnx_cancel_new();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, cancels, cancel) == 0);
    CHECK(confonnx_client_attest(client, cancel, &proof, &error) == CONFONNX_CANCELLED);
    confonnx_error_free(error);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(confonnx_client_attest(client, cancel, &proof, NULL) == CONFONNX_CANCELLED);
    confonnx_cancel_free(cancel);
    confonnx_client_free(client);
    puts("all of it");
    return 0;
}
