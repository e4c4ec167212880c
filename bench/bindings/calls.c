/* Calls in sequence by the C library: calls URL SECONDS; prints calls in a second, and bytes of the large calls. */

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <confonnx.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void call(const ConfonnxClient *client, uint64_t count, const float *image) {
    ConfonnxError *error = NULL;
    ConfonnxInputs *inputs = confonnx_inputs_new();
    ConfonnxOutputs *outputs = NULL;
    const uint64_t shape[] = {count, 1, 28, 28};
    if (confonnx_inputs_add(inputs, "image", "float32", shape, 4, (const uint8_t *)image, count * 784 * sizeof *image, &error) ||
        confonnx_client_infer(client, NULL, NULL, inputs, NULL, 0, NULL, &outputs, &error)) {
        fprintf(stderr, "%s\n", confonnx_error_message(error));
        exit(1);
    }
    confonnx_outputs_free(outputs);
    confonnx_inputs_free(inputs);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const double seconds = atof(argv[2]);
    ConfonnxOptions *options = confonnx_options_new();
    ConfonnxClient *client = NULL;
    float *image = calloc(1024 * 784, sizeof *image);
    if (image == NULL || confonnx_options_set(options, "allow_debug", "true", NULL) ||
        confonnx_client_new(argv[1], options, &client, NULL))
        return 1;
    const uint64_t counts[] = {1, 1024};
    double found[2];
    for (int which = 0; which < 2; which++) {
        for (int n = 0; n < 5; n++) call(client, counts[which], image);
        int calls = 0;
        const double start = now();
        while (now() - start < seconds) call(client, counts[which], image), calls++;
        found[which] = calls / (now() - start);
    }
    printf("{\"small\": %f, \"large\": %f}\n", found[0], found[1] * 1024 * 784 * sizeof *image);
    free(image);
    confonnx_client_free(client);
    confonnx_options_free(options);
    return 0;
}
