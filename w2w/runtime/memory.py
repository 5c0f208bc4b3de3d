"""What glibc's malloc does with large blocks in a worker."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_memory() -> None:
    """Lets a worker keep the memory of one batch for the next. glibc gives large blocks back at once, and every batch then pays
    page faults for them: measured, 1.7 times the CPU for decoding, 3 times for torch eager. Does nothing on other systems."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        mallopt(option, 1 << 30)
