"""What every command shares: where Penstock is, how to print, and how a failure looks.

Standard output carries what was asked for; standard error carries everything else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import httpx
import typer
from rich.console import Console, RenderableType
from rich.text import Text

DEFAULT_SERVER = "http://127.0.0.1:8090"
DEFAULT_GATEWAY = "http://127.0.0.1:8080"

CONNECT_TIMEOUT_S = 5.0


class ExitCode(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    ROLLED_BACK = 3


class Failure(Exception):
    """The command ends here. `status` is the google.rpc.Status of a refused request, when there was one."""

    def __init__(
        self,
        message: str,
        *,
        status: Mapping[str, Any] | None = None,
        exit_code: ExitCode = ExitCode.FAILED,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.exit_code = exit_code


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # Lines for programs and logs are not folded at 80 columns because nobody set a width.
    return Console(file=stream, highlight=False, soft_wrap=not stream.isatty(), width=None if stream.isatty() else 160)


@dataclass(frozen=True)
class Session:
    """One run of the command line."""

    as_json: bool
    server: str
    gateway: str
    out: Console = field(default_factory=lambda: _console(stderr=False))
    err: Console = field(default_factory=lambda: _console(stderr=True))

    @property
    def interactive(self) -> bool:
        """Whether a person watches: then progress is drawn and redrawn."""
        return not self.as_json and self.out.is_terminal

    def show(self, value: object, shown: RenderableType) -> None:
        """The result: `value` as JSON for programs, `shown` for people."""
        if self.as_json:
            self.print_json(value)
        else:
            self.out.print(shown)

    def print_json(self, value: object) -> None:
        typer.echo(json.dumps(value, ensure_ascii=False))

    def tell(self, message: str) -> None:
        """Something beside the result, for a person."""
        if not self.as_json:
            self.err.print(Text(message))

    def show_failure(self, failure: Failure) -> None:
        if self.as_json:
            typer.echo(json.dumps({"error": failure.status or {"message": failure.message}}), err=True)
        else:
            self.err.print(Text.assemble(("error: ", "bold red"), failure.message))

    @contextmanager
    def operators(self, *, timeout_s: float | None = 30.0) -> Iterator[httpx.Client]:
        """A client of the operators' port; connection trouble becomes a Failure. None waits without limit."""
        hint = "is it running? `penstock up` starts it, --server names another address"
        with _client(self.server, timeout_s, f"Penstock does not answer at {self.server}: {hint}") as client:
            yield client

    @contextmanager
    def callers(self, *, timeout_s: float = 60.0) -> Iterator[httpx.Client]:
        """A client of the callers' port; connection trouble becomes a Failure."""
        hint = "is it running? `penstock up` starts it, --gateway names another address"
        with _client(self.gateway, timeout_s, f"the gateway does not answer at {self.gateway}: {hint}") as client:
            yield client


@contextmanager
def _client(url: str, timeout_s: float | None, unreachable: str) -> Iterator[httpx.Client]:
    timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
    try:
        # Not through a proxy from the environment: these are this machine's or this network's own addresses.
        with httpx.Client(base_url=url, timeout=timeout, trust_env=False) as client:
            yield client
    except httpx.ConnectError as error:
        raise Failure(unreachable) from error
    except httpx.InvalidURL as error:
        raise Failure(f"{url!r} is not an address: {error}", exit_code=ExitCode.USAGE) from error
    except httpx.UnsupportedProtocol as error:
        raise Failure(f"{url!r} is not an http:// or https:// address", exit_code=ExitCode.USAGE) from error
    except httpx.TimeoutException as error:
        raise Failure(f"{url} did not answer within {timeout_s or CONNECT_TIMEOUT_S:g} s") from error
    except httpx.HTTPError as error:
        raise Failure(f"the connection to {url} broke: {error or type(error).__name__}") from error


def checked(response: httpx.Response) -> Any:
    """The JSON of an answer. Raises Failure with the server's own words when it refused."""
    response.read()
    if response.is_success:
        return response.json()
    raise refused(response)


def refused(response: httpx.Response) -> Failure:
    """What a refusal says."""
    try:
        status = response.json()
        return Failure(str(status["message"]), status=status)
    except (ValueError, KeyError, TypeError):
        return Failure(f"{response.request.url} answered {response.status_code}: {response.text[:200]}")


def json_lines(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The values of a streamed answer as they come. Raises Failure when it is refused, or ends in an error."""
    if not response.is_success:
        response.read()
        raise refused(response)
    for line in response.iter_lines():
        if not line:
            continue
        value = json.loads(line)
        if "error" in value:
            raise Failure(str(value["error"]["message"]), status=value["error"])
        yield value
