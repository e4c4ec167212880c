/* The one function of Windows 10's bcryptprimitives.dll that Rust's library calls, for a wine that is older than that library. */

#include <stddef.h>

unsigned char __stdcall SystemFunction036(void *buffer, unsigned long len);

__declspec(dllexport) int __stdcall ProcessPrng(unsigned char *data, size_t len);

int __stdcall ProcessPrng(unsigned char *data, size_t len) {
    while (len > 0) {
        unsigned long part = len < 0x10000000 ? (unsigned long)len : 0x10000000;
        if (!SystemFunction036(data, part)) return 0;
        data += part;
        len -= part;
    }
    return 1;
}
