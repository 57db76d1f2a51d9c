"""A pool of processes that works on matrices, with a result that depends on each of them."""

import hashlib
import multiprocessing
import sys

import numpy


def work(number):
    generator = numpy.random.default_rng(number)
    matrix = generator.standard_normal((220, 220))
    for _ in range(6):
        matrix = numpy.linalg.qr(matrix)[0] @ matrix
        matrix /= numpy.abs(matrix).max()
    return number, hashlib.sha256(numpy.round(matrix, 6).tobytes()).hexdigest()


def main():
    with multiprocessing.Pool(3) as pool, open(sys.argv[1], "w", buffering=1) as out:
        for number, digest in pool.imap(work, range(400)):
            out.write(f"{number} {digest}\n")


if __name__ == "__main__":
    main()
