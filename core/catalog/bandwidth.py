"""What threads read from memory at once: a program of its own, `python -I -S bandwidth.py MIB SECONDS THREADS …`.

Each thread looks through its own share of a touched buffer with the C library's memchr for a byte that is not there,
which reads it once and in order, as an engine reads weights; ctypes lets other threads run meanwhile. It prints one
JSON object, {threads: bytes a second}, the best of its rounds. Standard library alone.
"""

import ctypes
import json
import sys
import threading
import time

CHUNK = 4 << 20


def measure(buffer: "ctypes.Array[ctypes.c_char]", size: int, threads: int, seconds: float) -> float:
    """Bytes a second of `threads` at once."""
    libc = ctypes.CDLL(None)
    libc.memchr.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    libc.memchr.restype = ctypes.c_void_p
    begin, share = ctypes.addressof(buffer), size // threads
    best, end = 0.0, time.monotonic() + seconds
    gate = threading.Barrier(threads + 1)

    def read(place: int) -> None:
        while True:
            gate.wait()
            if done:
                return
            for at in range(place, place + share - CHUNK + 1, CHUNK):
                libc.memchr(at, 2, CHUNK)
            gate.wait()

    done = False
    workers = [threading.Thread(target=read, args=(begin + n * share,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    try:
        while time.monotonic() < end or not best:
            started = time.perf_counter()
            gate.wait()
            gate.wait()
            took = time.perf_counter() - started
            best = max(best, share // CHUNK * CHUNK * threads / took)
    finally:
        done = True
        gate.wait()
        for worker in workers:
            worker.join()
    return best


def main() -> int:
    """Measure each of the thread counts."""
    mib, seconds, counts = int(sys.argv[1]), float(sys.argv[2]), [int(each) for each in sys.argv[3:]]
    size = mib << 20
    buffer = ctypes.create_string_buffer(size)
    ctypes.memset(buffer, 1, size)  # else every page would be the one page of zeros, which lies in the cache
    found = {count: measure(buffer, size, count, seconds) for count in counts}
    print(json.dumps(found))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
