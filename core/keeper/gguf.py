"""Read the header of a GGUF file within bounds: 20-40 ms and a few MiB, because arrays are skipped, not built.

Standard library only, syntax of Python 3.8, imports nothing of core, so that it also runs on other hosts:
`python -I -S gguf.py FILE` prints the header as JSON. Format: the GGUF specification, versions 1 to 3, in the byte
order of whichever machine the file was made for.
"""

import json
import os
import struct
import sys

MAGIC = b"GGUF"
MAX_KV = 65536
MAX_TENSORS = 1 << 20
MAX_STRING = 1 << 20
MAX_ARRAY = 1 << 26
MAX_STRINGS = 1 << 22  # in all arrays together; each costs 0.15 microseconds, and no room in a sparse file
MAX_HEADER = 1 << 30
KEEP_STRING = 64 << 10
KEEP_ARRAY = 4096
KEEP_TOTAL = 24 << 20
MAX_NAME = 512
WINDOW = 1 << 18

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
WORD, LONG = 4, 10

# ggml type: (name, weights a block, bytes a block). From llama.cpp as llama-cpp-python 0.3.36 carries it: the numbers
# are `enum ggml_type` of ggml/include/ggml.h, the sizes `type_traits` of ggml/src/ggml.c with the blocks of
# ggml/src/ggml-common.h; up to Q1_0 they are GGML_QUANT_SIZES of the package gguf 0.19.0, too (a test compares).
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
REMOVED = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}  # fmt: skip
"""Types that the format no longer has; no engine of today reads them."""


class BadHeader(ValueError):
    """The file is no GGUF model that may be taken; the message says why."""


class Reader:
    """A cursor over the file through one window; every read is checked against the file's end.

    Not mapped: a file that is cut while it is read would kill the process with SIGBUS.
    """

    def __init__(self, fd, size):
        self.fd = fd
        self.end = min(size, MAX_HEADER)
        self.size = size
        self.at = 0
        self.base = 0
        self.data = b""
        self.kept = 0
        self.strings = 0
        self.order = "<"
        self.long = LONG  # of lengths and counts: version 1 has words there

    def window(self, count):
        """Make sure that `count` bytes at the cursor lie in the window; their place in it."""
        if self.at < self.base or self.at + count > self.base + len(self.data):
            self.base = self.at
            self.data = os.pread(self.fd, max(WINDOW, count), self.at)
            if len(self.data) < count:
                raise BadHeader("the file was cut while it was read")
        return self.at - self.base

    def check(self, count, what):
        if count > self.end - self.at:
            raise BadHeader(
                "truncated: %s needs %d bytes at %d and the file has %d" % (what, count, self.at, self.size)
            )

    def keep(self, count, what):
        """Count what stays in memory, with Python's own share."""
        self.kept += count + 64
        if self.kept > KEEP_TOTAL:
            raise BadHeader("the header is absurdly long (at %s)" % what)

    def scalar(self, code, what):
        size = SIZES[code]
        self.check(size, what)
        at = self.window(size)
        found = struct.unpack_from(self.order + SCALARS[code], self.data, at)[0]
        self.at += size
        return found

    def string(self, what, most=MAX_STRING):
        length = self.scalar(self.long, what)
        if length > most:
            raise BadHeader("%s claims a length of %d bytes (at most %d are taken)" % (what, length, most))
        self.check(length, what)
        kept = min(length, KEEP_STRING)
        self.keep(kept, what)
        at = self.window(kept)
        text = self.data[at : at + kept].decode("utf-8", "replace")
        self.at += length
        return text

    def value(self, code, what):
        if code in SCALARS:
            return self.scalar(code, what)
        if code == STRING:
            return self.string(what)
        if code == ARRAY:
            return self.array(what)
        raise BadHeader("%s has the unknown type %d" % (what, code))

    def array(self, what):
        """Numbers of short arrays (one a layer) are kept; everything else is only counted."""
        code = self.scalar(WORD, what)
        count = self.scalar(self.long, what)
        if count > MAX_ARRAY:
            raise BadHeader("%s claims %d elements (at most %d are taken)" % (what, count, MAX_ARRAY))
        if code == ARRAY:
            raise BadHeader("%s is an array of arrays" % what)
        if code == STRING:
            self.strings += count
            if self.strings > MAX_STRINGS:
                raise BadHeader(
                    "%s brings the strings to %d (at most %d are taken)" % (what, self.strings, MAX_STRINGS)
                )
            unpack, end, width = struct.Struct(self.order + SCALARS[self.long]).unpack_from, self.end, SIZES[self.long]
            data, base, at = self.data, self.base, self.at
            last = base + len(data) - width
            for _ in range(count):
                if at > last:
                    self.at = at
                    self.check(width, what)
                    self.window(width)
                    data, base = self.data, self.base
                    last = base + len(data) - width
                length = unpack(data, at - base)[0]
                at += width + length
                if length > MAX_STRING:
                    raise BadHeader("%s has a string of %d bytes (at most %d are taken)" % (what, length, MAX_STRING))
                if at > end:
                    self.at = at - length
                    self.check(length, what)
            self.at = at
            return {"count": count}
        if code not in SIZES:
            raise BadHeader("%s has the unknown type %d" % (what, code))
        length = count * SIZES[code]
        self.check(length, what)
        if count > KEEP_ARRAY:
            self.at += length
            return {"count": count}
        self.keep(32 * count, what)
        at = self.window(length)
        found = list(struct.unpack_from("%s%d%s" % (self.order, count, SCALARS[code]), self.data, at))
        self.at += length
        return found


def read_header(fd):
    """{"version", "byteorder", "metadata", "tensors": [name, type, shape, bytes], …} of an open file. Raises
    BadHeader, OSError."""
    size = os.fstat(fd).st_size
    if size == 0:
        raise BadHeader("the file is empty")
    if size < 16:
        raise BadHeader("truncated: the file has %d bytes" % size)
    return _parse(Reader(fd, size))


def _parse(reader):
    reader.window(4)
    if reader.data[:4] != MAGIC:
        raise BadHeader("this is no GGUF file (its first bytes are %s)" % reader.data[:4].hex(" "))
    reader.at = 4
    version = reader.scalar(WORD, "the version")
    if version and not version & 0xFFFF:  # as llama.cpp tells it (gguf_init_from_reader in ggml/src/gguf.cpp)
        version, reader.order = int.from_bytes(version.to_bytes(4, "little"), "big"), ">"
    if version not in (1, 2, 3):
        raise BadHeader("GGUF version %d is not known (1 to 3 are)" % version)
    if version == 1:
        reader.long = WORD
    n_tensors = reader.scalar(reader.long, "the tensor count")
    n_kv = reader.scalar(reader.long, "the metadata count")
    if n_kv > MAX_KV or n_tensors > MAX_TENSORS:
        raise BadHeader("absurd counts: %d tensors and %d metadata entries" % (n_tensors, n_kv))
    metadata = {}
    for _ in range(n_kv):
        key = reader.string("a metadata key", 65535)
        if key in metadata:
            raise BadHeader("the metadata key %.80r stands twice" % key)
        metadata[key] = reader.value(reader.scalar(WORD, "a metadata type"), "metadata %.80r" % key)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or isinstance(alignment, bool) or not 1 <= alignment <= 1 << 20:
        raise BadHeader("general.alignment is %.40r" % (alignment,))
    tensors, offsets, names = [], [], set()
    for _ in range(n_tensors):
        name = reader.string("a tensor's name", MAX_NAME)
        reader.keep(512, "a tensor")
        if name in names:
            raise BadHeader("the tensor %.80r stands twice" % name)
        names.add(name)
        tensor, offset = _tensor(reader, name)
        tensors.append(tensor)
        offsets.append(offset)
    start = (reader.at + alignment - 1) // alignment * alignment
    for tensor, offset in zip(tensors, offsets):
        if offset % alignment:
            raise BadHeader("tensor %.80r is not aligned: its offset is %d" % (tensor[0], offset))
        if offset + tensor[3] > reader.size - start:
            raise BadHeader(
                "truncated: tensor %.80r ends at %d and the file has %d bytes"
                % (tensor[0], start + offset + tensor[3], reader.size)
            )
    order = "little" if reader.order == "<" else "big"
    return {
        "version": version, "byteorder": order, "metadata": metadata, "tensors": tensors, "data_start": start,
        "bytes": reader.size,
    }  # fmt: skip


def _tensor(reader, name):
    n_dims = reader.scalar(WORD, "tensor %.80r" % name)
    if not 1 <= n_dims <= 4:
        raise BadHeader("tensor %.80r has %d dimensions" % (name, n_dims))
    shape, count = [], 1
    for _ in range(n_dims):
        dim = reader.scalar(reader.long, "tensor %.80r" % name)
        if not 1 <= dim <= 1 << 40:
            raise BadHeader("tensor %.80r has a dimension of %d" % (name, dim))
        shape.append(dim)
        count *= dim
    code = reader.scalar(WORD, "tensor %.80r" % name)
    offset = reader.scalar(LONG, "tensor %.80r" % name)
    if code in REMOVED:
        raise BadHeader("tensor %.80r is of type %s, which the format has no longer" % (name, REMOVED[code]))
    if code not in TYPES:
        raise BadHeader("tensor %.80r has the unknown type %d" % (name, code))
    kind, block, size = TYPES[code]
    if count > 1 << 50 or shape[0] % block:
        raise BadHeader("tensor %.80r has rows of %d weights, which %s can't hold" % (name, shape[0], kind))
    return [name, kind, shape, count // block * size], offset


def kind(header):
    """What a file is: "model", "vocabulary" (no weights), "projector" (of pictures or sound, for a model beside it),
    "adapter" (LoRA), "control vector", "importance matrix", or "" if it does not say."""
    meta, tensors = header["metadata"], header["tensors"]
    arch, told = meta.get("general.architecture"), meta.get("general.type")
    if arch in ("clip", "mmproj") or told == "mmproj":
        return "projector"
    if told == "adapter":
        return "adapter"
    if arch == "controlvector":
        return "control vector"
    if told == "imatrix":
        return "importance matrix"
    if not isinstance(arch, str) or not arch:
        return ""
    return "vocabulary" if not tensors and meta.get("split.count", 0) in (0, 1) else "model"


def main():
    try:
        fd = os.open(sys.argv[1], os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        print(json.dumps(read_header(fd)))
    except (BadHeader, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
