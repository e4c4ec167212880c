/* Verifies a server and sends it an image of a handwritten digit: infer URL INSECURE|ENCLAVE_HASH. */

#include <stdio.h>
#include <string.h>

#include <confonnx.h>

static int failed(const char *what, ConfonnxError *error) {
    fprintf(stderr, "%s: %s (code %d)\n", what, confonnx_error_message(error), (int)confonnx_error_code(error));
    const char *checks = confonnx_error_checks(error);
    if (checks != NULL) fprintf(stderr, "%s\n", checks);
    confonnx_error_free(error);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: infer URL insecure|ENCLAVE_HASH\n");
        return 2;
    }
    ConfonnxError *error = NULL;
    ConfonnxOptions *options = confonnx_options_new();
    ConfonnxClient *client = NULL;
    ConfonnxText *proof = NULL;
    ConfonnxInputs *inputs = confonnx_inputs_new();
    ConfonnxOutputs *outputs = NULL;
    int result = 1;

    const int insecure = strcmp(argv[2], "insecure") == 0;
    const char *name = insecure ? "allow_debug" : "enclave_hash";
    if (confonnx_options_set(options, name, insecure ? "true" : argv[2], &error) != CONFONNX_OK) {
        failed("options", error);
        goto end;
    }
    if (confonnx_client_new(argv[1], options, &client, &error) != CONFONNX_OK) {
        failed("client", error);
        goto end;
    }
    if (confonnx_client_attest(client, NULL, &proof, &error) != CONFONNX_OK) {
        failed("attestation", error);
        goto end;
    }

    static float image[28 * 28];
    for (int row = 4; row < 24; row++) image[row * 28 + 14] = image[row * 28 + 13] = 1.0f;
    const uint64_t shape[] = {1, 1, 28, 28};
    if (confonnx_inputs_add(inputs, "image", "float32", shape, 4, (const uint8_t *)image, sizeof image, &error) !=
        CONFONNX_OK) {
        failed("input", error);
        goto end;
    }
    if (confonnx_client_infer(client, NULL, NULL, inputs, NULL, 0, NULL, &outputs, &error) != CONFONNX_OK) {
        failed("inference", error);
        goto end;
    }
    for (size_t i = 0; i < confonnx_outputs_count(outputs); i++) {
        size_t rank = 0, len = 0;
        const uint64_t *dims = confonnx_outputs_shape(outputs, i, &rank);
        confonnx_outputs_data(outputs, i, &len);
        printf("%s %s [", confonnx_outputs_name(outputs, i), confonnx_outputs_dtype(outputs, i));
        for (size_t axis = 0; axis < rank; axis++) printf(axis ? ", %llu" : "%llu", (unsigned long long)dims[axis]);
        printf("] %zu bytes\n", len);
    }
    result = 0;
end:
    confonnx_outputs_free(outputs);
    confonnx_inputs_free(inputs);
    confonnx_text_free(proof);
    confonnx_client_free(client);
    confonnx_options_free(options);
    return result;
}
