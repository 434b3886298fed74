"""Which devices this machine has, found out without loading a framework for each of them."""

import ctypes


def cuda_is_there() -> bool:
    """Whether the CUDA driver is installed and knows a device; what a framework then makes of it is another matter."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
