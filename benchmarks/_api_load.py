"""The clients of `make bench-api` that wrk cannot be, in their own process: `python -m benchmarks._api_load`.

`submit` posts jobs, `listen` holds event streams open, `download` fetches a file and throws it away. What is
wanted comes as JSON on standard input, one line; what came of it goes to standard output, likewise.
"""

import asyncio
import hashlib
import json
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from itertools import count
from typing import Any

BUFFER_BYTES = 1 << 20
IDLE_SECONDS = 2.0
"""Less than uvicorn keeps a connection open on which nothing is asked."""


class Connection:
    """One connection that is kept, over which one request goes after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> "Connection":
        """Open it."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> int:
        """Send a request and read the head of its answer: its status."""
        head = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        status = int((await self._reader.readline()).split()[1])
        self._length, self.retry_after = 0, 0.0
        while (line := await self._reader.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                self._length = int(value)
            elif name.lower() == b"retry-after":
                self.retry_after = float(value)
        return status

    async def body(self) -> bytes:
        """What the answer holds, where its length was told."""
        return await self._reader.readexactly(self._length)

    async def line(self) -> bytes:
        """The next line of a stream; empty at its end."""
        return await self._reader.readline()

    def close(self) -> None:
        """Leave."""
        self._writer.close()


async def submit(
    port: int, submitters: Sequence[dict[str, Any]], jobs: int, repeat_every: int
) -> dict[str, Any]:
    """Each submitter posts one job after the other, all of them so many together.

    Every `repeat_every`-th is sent twice at the same moment under its `Idempotency-Key`, as by a client that
    has lost its patience. One of the two may be refused while the other is in flight: it is sent again as it
    is told. The submitter goes on as soon as one of the two has the job, and nobody waits for the other but
    the end.
    """
    late: set[asyncio.Task[None]] = set()
    opened: list[Connection] = []
    answers: list[tuple[str, str, int]] = []
    times: list[float] = []
    numbers = count()

    async def one(submitter: dict[str, Any]) -> None:
        body = json.dumps(submitter["body"]).encode()
        headers = {"Authorization": f"Bearer {submitter['key']}", "Content-Type": "application/json"}
        idle: list[tuple[float, Connection]] = []

        async def connected() -> Connection:
            """The one that was used last, unless the server may be about to close it."""
            used, connection = idle.pop() if idle else (0.0, None)
            if connection is not None and time.monotonic() - used < IDLE_SECONDS:
                return connection
            opened.append(await Connection.to(port))
            return opened[-1]

        async def post(key: str) -> None:
            connection = await connected()
            while True:
                status = await connection.ask(
                    "POST", "/amalgamations", headers | {"Idempotency-Key": key}, body
                )
                answer = json.loads(await connection.body())
                if answer.get("code") != "request_in_flight":
                    break
                await asyncio.sleep(connection.retry_after)
            idle.append((time.monotonic(), connection))
            answers.append((key, answer.get("id", ""), status))

        while (number := next(numbers)) < jobs:
            key, began = str(uuid.uuid4()), time.perf_counter()
            copies = 1 + (number % repeat_every == 0)
            posts = [asyncio.create_task(post(key)) for _ in range(copies)]
            done, waiting = await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()  # a broken connection is no answer
            late.update(waiting)
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*[one(each) for each in submitters])
    seconds = time.perf_counter() - began
    await asyncio.gather(*late)
    for connection in opened:
        connection.close()
    return {"seconds": seconds, "times": times, "answers": answers}


async def listen(port: int, key: str, jobs: Sequence[str], listeners: int) -> dict[str, Any]:
    """Hold streams open until each has heard an event named `bench`; says `ready` when all of them are up."""
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    heard: list[float] = []
    begun = asyncio.Semaphore(0)
    opening = asyncio.Semaphore(32)

    async def one(job: str) -> None:
        async with opening:
            connection = await Connection.to(port)
            status = await connection.ask("GET", f"/amalgamations/{job}/events", headers)
            if status != 200 or not await connection.line():
                raise RuntimeError(f"a stream begins with status {status}")
        begun.release()
        while line := await connection.line():
            if line == b"event: bench\n":
                heard.append(time.time())
                connection.close()
                return

    async with asyncio.TaskGroup() as streams:
        for number in range(listeners):
            streams.create_task(one(jobs[number % len(jobs)]))
        for _ in range(listeners):
            await begun.acquire()
        print("ready", flush=True)
    return {"heard": heard}


def download(port: int, path: str, key: str, is_hashed: bool) -> dict[str, Any]:
    """Fetch a file as quickly as it comes."""
    digest, buffer, received = hashlib.sha256(), bytearray(BUFFER_BYTES), 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        began = time.perf_counter()
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        start = b""
        while b"\r\n\r\n" not in start:
            start += connection.recv(BUFFER_BYTES)
        answer, _, first = start.partition(b"\r\n\r\n")
        received = len(first)
        digest.update(first if is_hashed else b"")
        while length := connection.recv_into(buffer):
            received += length
            if is_hashed:
                digest.update(memoryview(buffer)[:length])
        seconds = time.perf_counter() - began
    status = int(answer.split()[1])
    return {"status": status, "bytes": received, "seconds": seconds, "sha256": digest.hexdigest()}


def main() -> None:
    """Do what is wanted, and tell."""
    wanted = json.loads(sys.stdin.readline())
    match sys.argv[1]:
        case "submit":
            told = asyncio.run(submit(**wanted))
        case "listen":
            told = asyncio.run(listen(**wanted))
        case _:
            told = download(**wanted)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
