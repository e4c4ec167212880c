/* Verifies a server, sends it an image of a one, and prints what it read: first URL insecure|ENCLAVE_HASH. */

#include <stdio.h>
#include <string.h>

#include <confonnx.h>

static int failed(ConfonnxError *error) {
    const char *checks = confonnx_error_checks(error);
    fprintf(stderr, "%s\n%s\n", confonnx_error_message(error), checks != NULL ? checks : "");
    confonnx_error_free(error);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const int insecure = strcmp(argv[2], "insecure") == 0;
    static float image[28 * 28];
    for (int row = 4; row < 24; row++) image[row * 28 + 13] = image[row * 28 + 14] = 1.0f;
    const uint64_t shape[] = {1, 1, 28, 28};

    ConfonnxError *error = NULL;
    ConfonnxOptions *options = confonnx_options_new();
    ConfonnxInputs *inputs = confonnx_inputs_new();
    ConfonnxClient *client = NULL;
    ConfonnxOutputs *outputs = NULL;
    /* The first function that fails says why. `infer` attests first, and sends nothing if the server is another. */
    if (confonnx_options_set(options, insecure ? "allow_debug" : "enclave_hash", insecure ? "true" : argv[2], &error) ||
        confonnx_client_new(argv[1], options, &client, &error) ||
        confonnx_inputs_add(inputs, "image", "float32", shape, 4, (const uint8_t *)image, sizeof image, &error) ||
        confonnx_client_infer(client, NULL, NULL, inputs, NULL, 0, NULL, &outputs, &error)) {
        failed(error);
    } else {
        float scores[10];
        size_t len = 0;
        int digit = 0;
        const uint8_t *data = confonnx_outputs_data(outputs, 0, &len);
        memcpy(scores, data, len < sizeof scores ? len : sizeof scores);
        for (int i = 1; i < (int)(len / sizeof scores[0]); i++) digit = scores[i] > scores[digit] ? i : digit;
        printf("digit %d\n", digit);
    }
    const int code = outputs == NULL;
    confonnx_outputs_free(outputs);
    confonnx_client_free(client);
    confonnx_inputs_free(inputs);
    confonnx_options_free(options);
    return code;
}
