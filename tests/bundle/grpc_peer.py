"""A gRPC service and its client, in processes of their own: `serve CERTIFICATE KEY`, or `ask AUTHORITY HOST CALL…`.

Messages are bare bytes. The client prints a line for each call, in JSON.
"""

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]


def unary(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("x-end", "of unary"),))
    if request == b"metadata":
        return json.dumps(sorted(context.invocation_metadata())).encode()
    return request


def count(request: bytes, context: Any) -> Iterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


def echo(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield from requests


def fail(request: bytes, context: Any) -> bytes:
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this: ä")
    return b""


def wait(request: bytes, context: Any) -> Iterator[bytes]:
    ended = threading.Event()
    context.add_callback(ended.set)
    yield b"waiting"
    ended.wait(30)
    print("cancelled", flush=True)


def serve(certificate: str, key: str) -> None:
    server = grpc.server(ThreadPoolExecutor(8), options=OPTIONS)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Wait": grpc.unary_stream_rpc_method_handler(wait),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    credentials = grpc.ssl_server_credentials([(Path(key).read_bytes(), Path(certificate).read_bytes())])
    print(server.add_secure_port("127.0.0.1:0", credentials), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)


def ask(authority: str, host: str, calls: list[str]) -> None:
    credentials = grpc.ssl_channel_credentials(Path(authority).read_bytes())
    with grpc.secure_channel(
        f"{host}:443", credentials, options=[*OPTIONS, ("grpc.enable_retries", 0)]
    ) as channel:
        for call in calls:
            kind, _, text = call.partition(" ")
            try:
                said = one(channel, kind, text)
            except grpc.RpcError as error:
                said = {"code": error.code().name, "details": error.details()}
            print(json.dumps(said), flush=True)


def one(channel: grpc.Channel, kind: str, text: str) -> Any:
    path = "/test.Service/" + kind.partition("-")[0]
    data = text.encode()
    if kind == "Unary-large":
        data = b"x" * int(text)
    if kind.startswith("Unary") or kind == "Fail":
        compression = grpc.Compression.Gzip if kind == "Unary-gzip" else None
        metadata = (("x-api-key", "placeholder-9876543210-for-key"),) if kind == "Unary-key" else None
        method = channel.unary_unary(path)
        answer, call = method.with_call(data, timeout=20, compression=compression, metadata=metadata)
        trailers = dict(call.trailing_metadata())
        return {"answer": answer.decode()[:1000], "size": len(answer), "trailers": trailers}
    if kind == "Count":
        return [item.decode() for item in channel.unary_stream(path)(data, timeout=20)]
    if kind == "Wait":
        call = channel.unary_stream(path)(data, timeout=20)
        said = next(call).decode()
        call.cancel()
        return said
    return talk(channel, path, text)


def talk(channel: grpc.Channel, path: str, text: str) -> Any:
    """Each message is sent only when the last was answered: nothing may wait for the end of the stream."""
    answered = threading.Semaphore(1)

    def messages() -> Iterator[bytes]:
        for word in text.split():
            answered.acquire(timeout=10)
            yield word.encode()

    said: list[str] = []
    try:
        for item in channel.stream_stream(path)(messages(), timeout=20):
            said.append(item.decode())
            answered.release()
    except grpc.RpcError as error:
        return {"said": said, "code": error.code().name, "details": error.details()}
    return said


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:4])
    else:
        ask(sys.argv[2], sys.argv[3], sys.argv[4:])
