"""A pass-through by hand, grpc.aio, bytes in and bytes out: `python grpc_aio.py PORT SERVER`."""

from __future__ import annotations

import asyncio
import sys

import grpc

METHOD = "/inference.GRPCInferenceService/ModelInfer"
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


async def main(port: int, server: str) -> None:
    async with grpc.aio.insecure_channel(server, options=OPTIONS) as channel:
        call = channel.unary_unary(METHOD)

        async def infer(request: bytes, _: grpc.aio.ServicerContext) -> bytes:
            return await call(request, timeout=30)

        front = grpc.aio.server(options=OPTIONS)
        service, _, method = METHOD.strip("/").partition("/")
        handler = grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(infer)})
        front.add_generic_rpc_handlers((handler,))
        front.add_insecure_port(f"127.0.0.1:{port}")
        await front.start()
        await front.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
