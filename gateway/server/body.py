"""Reading a request's body without trusting its length."""

from __future__ import annotations

from fastapi import Request

from gateway.server.errors import Code, Problem


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body; raises Problem TOO_LARGE as soon as it exceeds the limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise Problem(
                Code.RESOURCE_EXHAUSTED,
                "TOO_LARGE",
                f"the body is larger than {limit_bytes:,} bytes",
                {"expected": f"at most {limit_bytes} bytes"},
                http=413,
            )
    return bytes(body)
