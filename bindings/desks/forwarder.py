"""A DLL without code, whose one function is that of another DLL: what a wine that is older than Rust's library lacks."""

from __future__ import annotations

import struct

BASE, SECTION = 0x1_8BAD_0000, 0x1000


def library(name: str, function: str, target: str) -> bytes:
    """`name`.dll with `function`, which is `target` (`LIBRARY.FUNCTION`). PE32+ for x86-64: headers, and one section with the exports
    (Microsoft's "PE Format", section 6.3)."""
    texts = [f"{name}.dll".encode() + b"\0", function.encode() + b"\0", target.encode() + b"\0"]
    # The directory of 40 bytes, then a table of addresses, one of names, one of ordinals, with an entry each.
    addresses, names, ordinals = SECTION + 40, SECTION + 44, SECTION + 48
    places, at = [], SECTION + 52
    for text in texts:
        places.append(at)
        at += len(text)
    directory = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, places[0], 1, 1, 1, addresses, names, ordinals)
    # An address that lies within the exports is the name of another DLL's function.
    section = directory + struct.pack("<IIHxx", places[2], places[1], 0) + b"".join(texts)
    size = len(section)
    header = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 112 + 16 * 8, 0x2022)
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, 0, size, 0, 0, SECTION)
    optional += struct.pack("<QIIHHHHHHIIIIHHQQQQII", BASE, 0x1000, 0x200, 6, 0, 0, 0, 6, 0, 0, 0x2000, 0x200, 0, 3, 0x100, 1 << 20, 4096, 1 << 20, 4096, 0, 16)
    optional += struct.pack("<II", SECTION, size) + b"\0" * 15 * 8
    entry = struct.pack("<8sIIIIIIHHI", b".edata", size, SECTION, 0x200, 0x200, 0, 0, 0, 0, 0x40000040)
    dos = b"MZ" + b"\0" * 58 + struct.pack("<I", 64)
    return (dos + b"PE\0\0" + header + optional + entry).ljust(0x200, b"\0") + section.ljust(0x200, b"\0")
