"""The delay of a lab's network: a program that holds each packet back for a while.

Packets that hosts send come out of a TUN device; after the delay they go back in and the kernel
routes them on. Where the sender's kernel has not cut a transfer into packets yet, it arrives here, and
leaves, as pieces of up to 64 kB, which is what makes this fast. Order is kept.

It is run by its path, inside the switch's namespace: ``router.py <delay in s>``. It writes "ready"
when the device is there.
"""

import collections
import fcntl
import gc
import os
import select
import struct
import sys
import time

DEVICE = "delay"
#: Bytes held at most, above which packets are lost as in any full queue.
CAPACITY = 256 * 2**20
#: Packets read before those due are sent on.
BATCH = 256
#: linux/if_tun.h: requests, what the device is, and what its pieces may be left to do for the kernel.
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
TUN, NO_PACKET_INFORMATION, OFFLOAD_HEADER = 0x0001, 0x1000, 0x4000
CHECKSUMS, TCP4, TCP6, CONGESTION_MARKS = 0x01, 0x02, 0x04, 0x08
#: The largest piece, and the header before it that says how the kernel has to cut it.
LARGEST = 65536 + 10


def open_device(name: str) -> int:
    """A descriptor, not blocking, of a new TUN device."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    flags = TUN | NO_PACKET_INFORMATION | OFFLOAD_HEADER
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(device, TUNSETOFFLOAD, CHECKSUMS | TCP4 | TCP6 | CONGESTION_MARKS)
    return device


def carry(device: int, delay: float) -> None:
    """Sends on each packet `delay` s after it was read. Never returns."""
    held: collections.deque[tuple[float, bytes]] = collections.deque()
    size = 0
    # Packets are gathered for a hundredth of the delay, for far fewer wake-ups.
    pause = min(delay / 100, 5e-4)
    while True:
        if held:
            time.sleep(pause)
            wait = max(0.0, held[0][0] - time.monotonic())
            select.select([device], [], [], wait)
        else:
            select.select([device], [], [])
        for _ in range(BATCH):
            try:
                packet = os.read(device, LARGEST)
            except BlockingIOError:
                break
            if size + len(packet) <= CAPACITY:
                size += len(packet)
                held.append((time.monotonic() + delay, packet))
        now = time.monotonic()
        while held and held[0][0] <= now:
            packet = held.popleft()[1]
            size -= len(packet)
            try:
                os.write(device, packet)
            except BlockingIOError:
                continue  # the kernel's queue is full: a lost packet


if __name__ == "__main__":
    os.setpriority(os.PRIO_PROCESS, 0, -20)  # a switch does not wait for the work of the hosts
    gc.disable()  # there are no cycles
    opened = open_device(DEVICE)
    print("ready", flush=True)
    carry(opened, float(sys.argv[1]))
