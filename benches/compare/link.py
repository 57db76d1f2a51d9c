"""A link to a server that is further away than loopback: a TCP proxy with a delay and a limit on what comes back.

    link.py PORT [--delay-ms D] [--bytes-per-second B]      prints its own port, then serves until it is killed
"""

import argparse
import asyncio
import contextlib
import pathlib
import signal
import subprocess
import sys
import time

PIECE = 256 << 10


class Rate:
    """Bytes a second, over all connections: each piece books its share of the time line. Counts them."""

    def __init__(self, bytes_per_second):
        self.bytes_per_second, self.booked, self.passed = bytes_per_second, 0.0, 0

    def until(self, count):
        """When a piece of this size has passed."""
        self.passed += count
        if not self.bytes_per_second:
            return 0.0
        self.booked = max(self.booked, time.monotonic()) + count / self.bytes_per_second
        return self.booked


async def carry(reader, writer, delay, rate):
    """One direction: what is read goes out after the delay, as fast as the rate allows, in order."""
    under_way = asyncio.Queue(maxsize=64)

    async def take():
        while piece := await reader.read(PIECE):
            await under_way.put((max(rate.until(len(piece)), time.monotonic()) + delay, piece))
        await under_way.put((0, b""))

    async def give():
        while True:
            due, piece = await under_way.get()
            if not piece:
                break
            await asyncio.sleep(max(0, due - time.monotonic()))
            writer.write(piece)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    with contextlib.suppress(OSError):
        await asyncio.gather(take(), give())


async def serve(port, delay, bytes_per_second):
    down, up, known = Rate(bytes_per_second), Rate(0), set()

    async def connected(reader, writer):
        # The event loop holds on to no task by itself.
        known.add(asyncio.current_task())
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        # Half of the round trip each way.
        await asyncio.gather(carry(reader, far_writer, delay / 2, up), carry(far_reader, writer, delay / 2, down))
        writer.close()
        far_writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=4 << 20)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: print(down.passed, flush=True))
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Link:
    """The proxy as a process of its own, so that it does not slow down who measures."""

    def __init__(self, port, delay_ms=0, bytes_per_second=0):
        self.command = [sys.executable, "-B", pathlib.Path(__file__), str(port), "--delay-ms", str(delay_ms), "--bytes-per-second", str(bytes_per_second)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())
        return self

    def passed(self):
        """Bytes that have come back so far."""
        self.process.send_signal(signal.SIGUSR1)
        return int(self.process.stdout.readline())

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--bytes-per-second", type=float, default=0)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.delay_ms / 1000, options.bytes_per_second))


if __name__ == "__main__":
    main()
