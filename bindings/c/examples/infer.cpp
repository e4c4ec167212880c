// The same as infer.c, in C++: infer-cpp URL insecure|ENCLAVE_HASH.

#include <iostream>

#include <confonnx.hpp>

int main(int argc, char **argv) {
    if (argc != 3) {
        std::cerr << "usage: infer-cpp URL insecure|ENCLAVE_HASH\n";
        return 2;
    }
    try {
        confonnx::Options options;
        if (std::string(argv[2]) == "insecure") {
            options.set("allow_debug", "true");
        } else {
            options.set("enclave_hash", argv[2]);
        }
        const confonnx::Client client(argv[1], options);
        client.attest();

        std::vector<float> image(28 * 28);
        for (std::size_t row = 4; row < 24; row++) image[row * 28 + 13] = image[row * 28 + 14] = 1.0f;
        const auto outputs = client.infer(confonnx::Inputs().add("image", "float32", {1, 1, 28, 28}, image));
        for (std::size_t i = 0; i < outputs.size(); i++) {
            std::cout << outputs.name(i) << ' ' << outputs.dtype(i) << " [";
            const auto shape = outputs.shape(i);
            for (std::size_t axis = 0; axis < shape.size(); axis++) std::cout << (axis ? ", " : "") << shape[axis];
            std::cout << "] " << outputs.values<std::uint8_t>(i).size() << " bytes\n";
        }
        return 0;
    } catch (const confonnx::Error &error) {
        std::cerr << error.what() << " (code " << error.code() << ")\n" << error.checks() << '\n';
        return 1;
    }
}
