// Verifies a server, sends it an image of a one, and prints what it read: first URL insecure|ENCLAVE_HASH.

#include <algorithm>
#include <iostream>

#include <confonnx.hpp>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    try {
        const bool insecure = std::string(argv[2]) == "insecure";
        confonnx::Options options;
        options.set(insecure ? "allow_debug" : "enclave_hash", insecure ? "true" : argv[2]);
        const confonnx::Client client(argv[1], options);

        std::vector<float> image(28 * 28);
        for (int row = 4; row < 24; row++) image[row * 28 + 13] = image[row * 28 + 14] = 1.0f;
        // Attests first, and throws if the server is not what is expected: then nothing was sent.
        const auto answer = client.infer(confonnx::Inputs().add("image", "float32", {1, 1, 28, 28}, image));
        const auto scores = answer.values<float>(0);
        std::cout << "digit " << std::max_element(scores.begin(), scores.end()) - scores.begin() << '\n';
        return 0;
    } catch (const confonnx::Error &error) {
        std::cerr << error.what() << '\n' << error.checks() << '\n';
        return 1;
    }
}
