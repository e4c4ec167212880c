"""The flame graph's reading and drawing."""

import xml.etree.ElementTree as xml

import flame

TEXT = """
            7f1 aws_lc_0_40_0_aes_gcm_enc_update+0x10 (/t/confonnx-server)
            7f2 <confonnx_protocol::server::Reply as core::ops::Drop>::seal::h0123456789abcdef (/t/confonnx-server)
            7f3 main (/t/confonnx-server)

            7f4 tcp_sendmsg ([kernel.kallsyms])
            7f3 main (/t/confonnx-server)
"""


def test_stacks_begin_with_the_outermost_frame():
    first, second = flame.stacks(TEXT)
    assert [what for _, what in first] == ["rest", "ours", "crypto"]
    assert first[-1][0] == "aws_lc_40_0_aes_gcm_enc_update"
    assert second == [("main", "rest"), ("tcp_sendmsg", "kernel")]


def test_widths_are_parts_of_the_whole():
    root = flame.fold(flame.stacks(TEXT))
    drawn = xml.fromstring(flame.draw(root, "note"))
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(group.find(f"{space}rect").get("width")) for group in drawn.iter(f"{space}g")]
    assert sorted(widths) == [600, 600, 600, 1200]
