"""The CUDA devices of this machine, asked without torch; run as a file it prints them.

A process of its own asks, since CUDA reads ``CUDA_VISIBLE_DEVICES`` once in each. Only CUDA knows
what a number or an abbreviation there stands for, and what a container or a scheduler hides.
"""

import ctypes
import sys
import uuid


def devices() -> list[str]:
    """UUIDs of the devices that CUDA shows, as ``CUDA_VISIBLE_DEVICES`` takes them; [] without it.

    Raises
    ------
    OSError
        If there is CUDA and it does not start.
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
    found = []
    for index in range(count.value):
        cuda.cuDeviceGet(ctypes.byref(device), index)
        whole, part = ctypes.create_string_buffer(16), ctypes.create_string_buffer(16)
        cuda.cuDeviceGetUuid(whole, device)
        cuda.cuDeviceGetUuid_v2(part, device)
        # They differ where the device is a part of a GPU that its owner has divided (MIG).
        kind = "GPU" if whole.raw == part.raw else "MIG"
        found.append(f"{kind}-{uuid.UUID(bytes=part.raw)}")
    return found


if __name__ == "__main__":
    try:
        print("\n".join(devices()))
    except OSError as error:
        sys.exit(str(error))
