"""How gradient codes are written with torch; run by ``codec.py --torch``, in an environment with torch.

Prints the names of its arms, then reads names from standard input and answers each with the seconds that
it took.
"""

import argparse
import sys
import time

import torch

LARGEST = {8: 127, 4: 7}


def arms(n, chunk, k, share):
    torch.manual_seed(0)
    gradient, out = torch.randn(n), torch.zeros(n)
    acc, kept = torch.randn(n), torch.randn(n)
    code16, numbers = acc.to(torch.bfloat16), torch.randint(0, 4096, (n,), dtype=torch.int16)
    powers = 2 ** torch.arange(8, dtype=torch.uint8)
    places = torch.arange(n // chunk)[:, None] * chunk
    tall, waves = torch.randn(n // 4, 4), torch.randn(64, 64)
    step = n // share

    def bf16_encode():
        code = kept.to(torch.bfloat16)
        kept.sub_(code)
        return code

    def blocks_encode(bits):
        x = kept.view(-1, 256)
        scales = x.abs().amax(1, keepdim=True) / LARGEST[bits]
        codes = (x / scales).round_().to(torch.int8)
        x.sub_(codes * scales)
        if bits == 4:
            codes = (codes[:, ::2] & 15) | (codes[:, 1::2] << 4)
        return codes, scales

    def signs_encode():
        x = kept.view(-1, 256)
        scales = x.abs().mean(1, keepdim=True)
        negative = torch.signbit(x)
        bits = (negative.view(-1, 8) * powers).sum(1, dtype=torch.uint8)
        x.sub_(torch.where(negative, -scales, scales))
        return bits, scales

    def chunk_topk():
        x = acc.view(-1, chunk)
        indices = x.abs().topk(k, dim=1, sorted=False).indices.sort(1).values
        return indices, x.gather(1, indices)

    def topk():
        indices = acc.abs().topk(share, sorted=False).indices.sort().values
        return indices, acc[indices]

    def random_k():
        indices = torch.arange(share) * step + torch.randint(0, step, (share,))
        return acc[indices]

    def pack_bits():
        low, high = numbers[::2], numbers[1::2]
        parts = low & 255, (low >> 8) | ((high & 15) << 4), high >> 4
        return torch.stack(parts, 1).to(torch.uint8)

    codes, scales = blocks_encode(8)
    found, entries = chunk_topk()
    found = (found + places).view(-1)
    return lambda: kept.copy_(gradient), {
        "accumulate": lambda: acc.mul_(0.9).add_(gradient, alpha=0.1),
        "bf16 encode, keep": bf16_encode,
        "bf16 add": lambda: out.add_(code16, alpha=0.5),
        "8 bits encode, keep": lambda: blocks_encode(8),
        "8 bits add": lambda: out.view(-1, 256).add_(codes * scales, alpha=0.5),
        "4 bits encode, keep": lambda: blocks_encode(4),
        "signs encode, keep": signs_encode,
        "largest of chunks": chunk_topk,
        "largest of chunks, add": lambda: out.index_add_(0, found, entries.view(-1), alpha=0.5),
        "largest of all": topk,
        "random": random_k,
        "pack 12 bits": pack_bits,
        "orthogonal columns": lambda: torch.linalg.qr(tall),
        "cosines of 64": lambda: acc.view(-1, 64) @ waves,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("elements", "chunk", "k", "share", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.thread_time if arguments.threads == 1 else time.perf_counter
    refill, found = arms(arguments.elements, arguments.chunk, arguments.k, arguments.share)
    print(";".join(found), flush=True)
    for line in sys.stdin:
        refill()  # what encoders leave gets less and less
        start = clock()
        found[line.strip()]()
        print(clock() - start, flush=True)


if __name__ == "__main__":
    main()
