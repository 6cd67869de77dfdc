"""Stands in front of a server: PORT TARGET-HOST:PORT FAULTS. The file FAULTS says what is wrong with the way: nothing,
`closed` (nobody gets through), or `slow MS` (each answer is held back)."""

import asyncio
import pathlib
import sys

PORT, TARGET, FAULTS = int(sys.argv[1]), sys.argv[2].rsplit(":", 1), pathlib.Path(sys.argv[3])
open_writers = set()


def fault():
    try:
        return FAULTS.read_text().split()
    except FileNotFoundError:
        return []


async def pump(reader, writer, answers):
    try:
        while data := await reader.read(1 << 16):
            wrong = fault()
            if wrong[:1] == ["slow"] and answers:
                await asyncio.sleep(int(wrong[1]) / 1000)
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def accept(reader, writer):
    if fault() == ["closed"]:
        writer.close()
        return
    try:
        from_server, to_server = await asyncio.open_connection(TARGET[0], int(TARGET[1]))
    except OSError:
        writer.close()
        return
    both = {writer, to_server}
    open_writers.update(both)
    await asyncio.gather(pump(reader, to_server, False), pump(from_server, writer, True))
    open_writers.difference_update(both)


async def main():
    server = await asyncio.start_server(accept, "127.0.0.1", PORT)
    async with server:
        while True:
            await asyncio.sleep(0.05)
            if fault() == ["closed"]:
                for writer in list(open_writers):
                    writer.transport.abort()


asyncio.run(main())
