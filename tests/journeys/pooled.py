"""The sample as a model that makes embeddings."""

import struct


def pooled(data: bytes) -> bytes:
    """The sample with llama.pooling_type = mean in place of general.size_label; the 8 bytes over go to the licence."""
    old = _string("general.size_label") + struct.pack("<I", 8) + _string("135M")
    new = _string("llama.pooling_type") + struct.pack("<II", 4, 1)
    licence = _string("general.license") + struct.pack("<I", 8)
    start = data.index(old + licence + _string("apache-2.0"))
    end = start + len(old + licence + _string("apache-2.0"))
    return data[:start] + new + licence + _string("apache-2.0" + 8 * " ") + data[end:]


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
