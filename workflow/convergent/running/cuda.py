"""CUDA devices of this machine, listed without torch; run as a file, it prints them.

It runs in a process of its own, because CUDA reads ``CUDA_VISIBLE_DEVICES`` once in each process.
Only CUDA can resolve the numbers and abbreviations in that variable, and see which devices a
container or a scheduler hides.
"""

import ctypes
import sys
import uuid


def devices() -> list[str]:
    """List the UUIDs of the devices that CUDA shows; none without CUDA.

    Raises
    ------
    OSError
        If CUDA is installed but does not start.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    error, no_device = cuda.cuInit(0), 100
    if error:
        if error == no_device:
            return []
        raise OSError(f"cuInit gives error {error}")
    count, device = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    uuids = []
    for index in range(count.value):
        cuda.cuDeviceGet(ctypes.byref(device), index)
        whole, part = ctypes.create_string_buffer(16), ctypes.create_string_buffer(16)
        cuda.cuDeviceGetUuid(whole, device)
        cuda.cuDeviceGetUuid_v2(part, device)
        # The two differ if the device is a part of a divided GPU (MIG).
        kind = "GPU" if whole.raw == part.raw else "MIG"
        uuids.append(f"{kind}-{uuid.UUID(bytes=part.raw)}")
    return uuids


if __name__ == "__main__":
    try:
        print("\n".join(devices()))
    except OSError as error:
        sys.exit(str(error))
