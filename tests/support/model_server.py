"""A scripted model provider: OpenAI's and Anthropic's wire protocols over real HTTP on 127.0.0.1.

Real SDKs talk to it through their base URL; nothing is patched. A script says what is answered: a
function from the request to the answer, so that a program which was killed and asks again is told
the same. The server keeps its own log of every request, for tests to count against::

    def script(asked: Asked) -> Say | Fail | str:
        if asked.round == 0:  # the model hasn't spoken yet
            return Say(calls=(Use("read_file", {"path": "notes.md"}),))
        return f"It says {asked.results[0].text}"

    with ModelServer(script, log=tmp_path / "requests.jsonl") as server:
        ...  # os.environ | server.environment, or base_url=server.openai_url
        assert server.count == server.distinct == 2

It speaks `POST /v1/chat/completions`, `POST /v1/responses` and `POST /v1/messages`, whole answers
and server-sent events. It runs in threads of this process; `python -m support.model_server
FILE.py:SCRIPT LOG` makes it a process of its own that prints its URL.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import msgspec

Json = dict[str, Any]

CHAT, RESPONSES, ANTHROPIC = "chat", "responses", "anthropic"
_PATHS = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/messages": ANTHROPIC,
}
_CREATED = 1_764_000_000
"""Unix time in seconds that every answer bears, so that equal requests are answered equally."""


# -- what is asked --------------------------------------------------------------------------------


class Call(msgspec.Struct, frozen=True):
    """A tool call that the model made earlier in the conversation."""

    id: str
    name: str
    arguments: Json


class Result(msgspec.Struct, frozen=True):
    """What a tool returned, as the model is told; `name` is the tool's."""

    id: str
    name: str
    text: str


class Turn(msgspec.Struct):
    """One turn of the conversation: `user`, `assistant` or `tool` (the results of calls)."""

    role: str
    text: str = ""
    calls: list[Call] = []
    results: list[Result] = []


class Asked(msgspec.Struct, frozen=True):
    """A request, the same whichever protocol it came in.

    Args:
        protocol: `chat`, `responses` or `anthropic`.
        model: the name that was asked for.
        system: every system text and instruction, joined by newlines.
        turns: the conversation.
        tools: names of the tools on offer.
        stream: whether the answer is to come in pieces.
        body: the request as it came.
        headers: of the request, names in lower case.
        digest: of the canonical body, without what says how it is to be delivered.
        nth: how often the same body was asked before: 0 the first time.
    """

    protocol: str
    model: str
    system: str
    turns: tuple[Turn, ...]
    tools: tuple[str, ...]
    stream: bool
    body: Json
    headers: dict[str, str]
    digest: str
    nth: int

    @property
    def prompt(self) -> str:
        """The first thing the user said."""
        return next((turn.text for turn in self.turns if turn.role == "user"), "")

    @property
    def last(self) -> str:
        """The last thing the user said."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user"), "")

    @property
    def round(self) -> int:
        """How often the model has spoken already, in this conversation."""
        return sum(turn.role == "assistant" for turn in self.turns)

    @property
    def results(self) -> list[Result]:
        """What the tools returned since the model last spoke, in the order it is told."""
        after = list(self.turns)
        while any(turn.role == "assistant" for turn in after):
            after.pop(0)
        return [result for turn in after for result in turn.results]


# -- what is answered -----------------------------------------------------------------------------


class Use(msgspec.Struct, frozen=True):
    """A tool call of the model's. Its id follows from the request unless it is given."""

    name: str
    arguments: Json = {}
    id: str | None = None


class Tokens(msgspec.Struct, frozen=True):
    """What an answer used. `input` counts every token that was sent, cached ones too.

    The server reports that as each provider does: OpenAI's input includes cached tokens,
    Anthropic's leaves out those read from and written to the cache.
    """

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0


class Say(msgspec.Struct, frozen=True):
    """An answer: a text, tool calls (several are parallel ones), or both.

    Args:
        text: what the model says.
        calls: which tools it calls.
        usage: by default one token for every four characters.
        delay: seconds before the first byte.
        pause: seconds between the events of a stream.
        cut: cut the connection after so many events of a stream, or (0 to 99) after that percentage
            of a whole answer.
        headers: further ones.
    """

    text: str = ""
    calls: tuple[Use, ...] = ()
    usage: Tokens | None = None
    delay: float = 0.0
    pause: float = 0.0
    cut: int | None = None
    headers: Mapping[str, str] = {}


class Fail(msgspec.Struct, frozen=True):
    """An error answer of the provider; a status of 0 cuts the connection without any answer."""

    status: int = 500
    message: str = "The server had an error while processing your request."
    code: str = "server_error"
    headers: Mapping[str, str] = {}
    delay: float = 0.0


Answer = Say | Fail | str
Script = Callable[[Asked], Answer]


def too_many_requests(seconds: float, style: str = "retry-after") -> Fail:
    """Return a 429 whose headers say when to come again.

    Args:
        seconds: from now.
        style: `retry-after` in seconds, `date` for the same as an HTTP date, `openai`
            (`x-ratelimit-reset-*` as durations), `anthropic` (`anthropic-ratelimit-*-reset` as
            timestamps), or `none`.
    """
    # A server's own clock is what such headers are about; it isn't Holdfast's.
    then = datetime.now(UTC) + timedelta(seconds=seconds)
    headers = {
        "retry-after": {"retry-after": f"{seconds:g}"},
        "date": {"retry-after": format_datetime(then, usegmt=True)},
        "openai": {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": _duration(seconds),
            "x-ratelimit-remaining-tokens": "149000",
            "x-ratelimit-reset-tokens": "6ms",
        },
        "anthropic": {
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": then.isoformat().replace("+00:00", "Z"),
            "anthropic-ratelimit-tokens-remaining": "1000",
            "anthropic-ratelimit-tokens-reset": datetime.now(UTC).isoformat(),
        },
        "none": {},
    }[style]
    return Fail(429, "Rate limit reached.", "rate_limit_exceeded", headers)


def table(answers: Mapping[str, Answer | Sequence[Answer]]) -> Script:
    """Return a script that looks the user's last words up.

    Args:
        answers: regular expressions, searched for in order, and their answers. A list has one
            answer for each round: what the model says first, after the first results, and so on.
    """

    def script(asked: Asked) -> Answer:
        for pattern, given in answers.items():
            if re.search(pattern, asked.last):
                if isinstance(given, str | Say | Fail):
                    return given
                return given[min(asked.round, len(given) - 1)]
        return Fail(400, f"The script has no answer to {asked.last!r}.", "invalid_request_error")

    return script


def _duration(seconds: float) -> str:
    """Write a duration as OpenAI does: 6m0s, 1.5s, 20ms."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"


# -- the server -----------------------------------------------------------------------------------


class ModelServer:
    """The provider. A `with` block ends it; no thread or connection is left.

    Args:
        script: what is answered; may be replaced while the server runs.
        log: file to which each request is added, a line when it comes (`asked`) and one when its
            answer has been handed to the system whole, or not (`answered`).
    """

    def __init__(self, script: Script, log: Path | None = None) -> None:
        self.script = script
        self.requests: list[Asked] = []
        """Every request, in the order they came."""
        self.connections = 0
        """How many connections were made."""
        self._log = log
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self._connections: set[socket.socket] = set()
        self._closing = threading.Event()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.server = self
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is; the base URL that Anthropic's SDK takes."""
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def openai_url(self) -> str:
        """The base URL that OpenAI's SDK takes."""
        return f"{self.url}/v1"

    @property
    def environment(self) -> dict[str, str]:
        """What the SDKs read: base URLs, and keys that open nothing."""
        return {
            "OPENAI_BASE_URL": self.openai_url,
            "OPENAI_API_KEY": "none-needed",
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": "none-needed",
        }

    @property
    def count(self) -> int:
        """How many requests came."""
        return len(self.requests)

    @property
    def distinct(self) -> int:
        """How many different ones."""
        return len({asked.digest for asked in self.requests})

    def close(self) -> None:
        """Stop, cutting what is being answered."""
        self._closing.set()
        self._http.shutdown()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._http.server_close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- for the handler -------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Wait, unless the server is being closed."""
        self._closing.wait(seconds)

    def note_connection(self, connection: socket.socket, *, there: bool) -> None:
        with self._lock:
            self.connections += there
            (self._connections.add if there else self._connections.discard)(connection)

    def take(self, protocol: str, body: Json, headers: dict[str, str]) -> tuple[int, Asked]:
        """Count a request in; returns its number and what is asked."""
        kept = {key: value for key, value in body.items() if key not in _DELIVERY}
        canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(f"{protocol}:{canonical}".encode()).hexdigest()
        system, turns = _READ[protocol](body)
        with self._lock:
            asked = Asked(
                protocol=protocol,
                model=str(body.get("model")),
                system=system,
                turns=tuple(turns),
                tools=tuple(map(_tool_name, body.get("tools") or ())),
                stream=bool(body.get("stream")),
                body=body,
                headers=headers,
                digest=digest,
                nth=self._seen[digest],
            )
            self._seen[digest] += 1
            self.requests.append(asked)
            number = len(self.requests)
        self.note(
            number, "asked", digest=digest, protocol=protocol, model=asked.model,
            stream=asked.stream, round=asked.round, nth=asked.nth, prompt=asked.prompt[:80],
        )  # fmt: skip
        return number, asked

    def note(self, number: int, event: str, **facts: object) -> None:
        if self._log is None:
            return
        line = json.dumps({"n": number, "event": event, **facts}) + "\n"
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, line.encode())
        os.close(descriptor)


_DELIVERY = frozenset({"stream", "stream_options"})


class _Http(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for them
    request_queue_size = 128
    server: ModelServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say what is wrong with the server; clients that went away are nothing new."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.server.server.note_connection(self.connection, there=True)

    def finish(self) -> None:
        self.server.server.note_connection(self.connection, there=False)
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
        """Print nothing: the log is a file."""

    def do_POST(self) -> None:
        provider = self.server.server
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        protocol = _PATHS.get(self.path.partition("?")[0])
        if protocol is None:
            self._send(404, {"error": {"message": f"No such path: {self.path}"}}, {})
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        number, asked = provider.take(protocol, json.loads(data), headers)
        answer = provider.script(asked)
        if isinstance(answer, str):
            answer = Say(answer)
        provider.wait(answer.delay)
        whole = False
        try:
            whole = self._fail(protocol, answer) if isinstance(answer, Fail) else self._say(
                asked, answer
            )  # fmt: skip
        finally:
            status = answer.status if isinstance(answer, Fail) else 200
            provider.note(number, "answered", digest=asked.digest, status=status, whole=whole)

    def _fail(self, protocol: str, answer: Fail) -> bool:
        if answer.status == 0:
            self._cut()
            return False
        error: Json = {"type": answer.code, "message": answer.message}
        if protocol == ANTHROPIC:
            body = {"type": "error", "error": error}
        else:
            body = {"error": error | {"code": answer.code, "param": None}}
        self._send(answer.status, body, answer.headers)
        return True

    def _say(self, asked: Asked, answer: Say) -> bool:
        said = _Said(asked, answer)
        if asked.stream:
            return self._stream(_STREAM[asked.protocol](said), answer)
        return self._send(200, _WHOLE[asked.protocol](said), answer.headers, answer.cut)

    def _send(
        self, status: int, body: Json, headers: Mapping[str, str], cut: int | None = None
    ) -> bool:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if cut is None else data[: len(data) * cut // 100])
        if cut is not None:
            self._cut()
        return cut is None

    def _stream(self, events: Iterator[bytes], answer: Say) -> bool:
        self.send_response(200)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number, event in enumerate(events):
            if number == answer.cut:
                self._cut()
                return False
            if number:
                self.server.server.wait(answer.pause)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")
        return True

    def _cut(self) -> None:
        """Cut the connection, so that the client sees it end too early."""
        self.wfile.flush()
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


# -- reading requests -----------------------------------------------------------------------------


def _tool_name(tool: Json) -> str:
    return tool.get("name") or tool.get("function", {}).get("name") or tool.get("type", "")


def _text(content: object) -> str:
    """Return the text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, list):
        return "\n".join(
            _text(part.get("text", part.get("content", ""))) if isinstance(part, dict) else ""
            for part in content
        )
    return content if isinstance(content, str) else ""


class _Conversation:
    """Turns being gathered: what one side says in several messages is one turn."""

    def __init__(self) -> None:
        self.system: list[str] = []
        self.turns: list[Turn] = []
        self._names: dict[str, str] = {}

    def of(self, role: str) -> Turn:
        if not self.turns or self.turns[-1].role != role:
            self.turns.append(Turn(role, "", [], []))
        return self.turns[-1]

    def say(self, role: str, text: str) -> None:
        if role in {"system", "developer"}:
            self.system.append(text)
            return
        turn = self.of(role)
        turn.text = f"{turn.text}\n{text}" if turn.text else text

    def call(self, id_: str, name: str, arguments: str | Json) -> None:
        given = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
        self._names[id_] = name
        self.of("assistant").calls.append(Call(id_, name, given))

    def result(self, id_: str, content: object) -> None:
        self.of("tool").results.append(Result(id_, self._names.get(id_, ""), _text(content)))

    @property
    def read(self) -> tuple[str, list[Turn]]:
        return "\n".join(self.system), self.turns


def _read_chat(body: Json) -> tuple[str, list[Turn]]:
    conversation = _Conversation()
    for message in body["messages"]:
        if message["role"] == "tool":
            conversation.result(message["tool_call_id"], message["content"])
            continue
        if message.get("content") or not message.get("tool_calls"):
            conversation.say(message["role"], _text(message.get("content")))
        for call in message.get("tool_calls") or ():
            function = call["function"]
            conversation.call(call["id"], function["name"], function["arguments"])
    return conversation.read


def _read_responses(body: Json) -> tuple[str, list[Turn]]:
    conversation = _Conversation()
    if body.get("instructions"):
        conversation.say("system", body["instructions"])
    given = body["input"]
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        match item.get("type", "message"):
            case "message":
                conversation.say(item["role"], _text(item["content"]))
            case "function_call":
                conversation.call(item["call_id"], item["name"], item["arguments"])
            case "function_call_output":
                conversation.result(item["call_id"], item["output"])
            case _:
                pass
    return conversation.read


def _read_anthropic(body: Json) -> tuple[str, list[Turn]]:
    conversation = _Conversation()
    if body.get("system"):
        conversation.say("system", _text(body["system"]))
    for message in body["messages"]:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            match block["type"]:
                case "text":
                    conversation.say(message["role"], block["text"])
                case "tool_use":
                    conversation.call(block["id"], block["name"], block["input"])
                case "tool_result":
                    conversation.result(block["tool_use_id"], block.get("content"))
                case _:
                    pass
    return conversation.read


_READ = {CHAT: _read_chat, RESPONSES: _read_responses, ANTHROPIC: _read_anthropic}


# -- writing answers ------------------------------------------------------------------------------


class _Said:
    """An answer with the ids and counts it has on the wire."""

    def __init__(self, asked: Asked, answer: Say) -> None:
        self.model = asked.model
        self.text = answer.text
        self.id = asked.digest[:24]
        self.calls = [
            Call(use.id or f"call_{asked.digest[:16]}{number}", use.name, dict(use.arguments))
            for number, use in enumerate(answer.calls)
        ]
        written = answer.text + "".join(json.dumps(dict(use.arguments)) for use in answer.calls)
        self.usage = answer.usage or Tokens(
            1 + len(json.dumps(asked.body)) // 4, 1 + len(written) // 4
        )

    @property
    def pieces(self) -> list[str]:
        """The text as it is streamed: word by word."""
        return re.findall(r"\S+\s*|\s+", self.text)


def _halves(arguments: Json) -> tuple[str, str]:
    text = json.dumps(arguments)
    return text[: len(text) // 2], text[len(text) // 2 :]


def _data(body: Json | str) -> bytes:
    return f"data: {body if isinstance(body, str) else json.dumps(body)}\n\n".encode()


def _event(body: Json) -> bytes:
    return f"event: {body['type']}\n".encode() + _data(body)


# chat completions


def _chat_usage(said: _Said) -> Json:
    usage = said.usage
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": 0},
    }


def _chat_whole(said: _Said) -> Json:
    message: Json = {"role": "assistant", "content": said.text or None, "refusal": None}
    if said.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in said.calls
        ]
    reason = "tool_calls" if said.calls else "stop"
    return {
        "id": f"chatcmpl-{said.id}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": said.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": _chat_usage(said),
    }


def _chat_stream(said: _Said) -> Iterator[bytes]:
    def chunk(delta: Json, reason: str | None = None) -> bytes:
        return _data(
            {
                "id": f"chatcmpl-{said.id}",
                "object": "chat.completion.chunk",
                "created": _CREATED,
                "model": said.model,
                "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
            }
        )

    yield chunk({"role": "assistant", "content": ""})
    for piece in said.pieces:
        yield chunk({"content": piece})
    for number, call in enumerate(said.calls):
        first, second = _halves(call.arguments)
        function = {"name": call.name, "arguments": first}
        begun = {"index": number, "id": call.id, "type": "function", "function": function}
        yield chunk({"tool_calls": [begun]})
        yield chunk({"tool_calls": [{"index": number, "function": {"arguments": second}}]})
    yield chunk({}, "tool_calls" if said.calls else "stop")
    yield _data(
        {
            "id": f"chatcmpl-{said.id}",
            "object": "chat.completion.chunk",
            "created": _CREATED,
            "model": said.model,
            "choices": [],
            "usage": _chat_usage(said),
        }
    )
    yield _data("[DONE]")


# responses


def _responses_usage(said: _Said) -> Json:
    usage = said.usage
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _response(said: _Said, output: list[Json], status: str = "completed") -> Json:
    return {
        "id": f"resp_{said.id}",
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": said.model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": _responses_usage(said) if status == "completed" else None,
    }


def _message_item(said: _Said, text: str, status: str) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    return {
        "id": f"msg_{said.id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _call_item(call: Call, arguments: str, status: str) -> Json:
    return {
        "id": f"fc_{call.id}",
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments,
        "status": status,
    }


def _output(said: _Said) -> list[Json]:
    text = [_message_item(said, said.text, "completed")] if said.text or not said.calls else []
    calls = [_call_item(call, json.dumps(call.arguments), "completed") for call in said.calls]
    return text + calls


def _responses_whole(said: _Said) -> Json:
    return _response(said, _output(said))


def _responses_stream(said: _Said) -> Iterator[bytes]:
    events = iter(_responses_events(said))
    for number, event in enumerate(events):
        yield _event(event | {"sequence_number": number})


def _responses_events(said: _Said) -> Iterator[Json]:
    yield {"type": "response.created", "response": _response(said, [], "in_progress")}
    yield {"type": "response.in_progress", "response": _response(said, [], "in_progress")}
    at = 0
    if said.text:
        yield from _responses_text(said, at)
        at += 1
    for call in said.calls:
        yield from _responses_call(call, at)
        at += 1
    yield {"type": "response.completed", "response": _response(said, _output(said))}


def _responses_text(said: _Said, at: int) -> Iterator[Json]:
    where = {"output_index": at, "item_id": f"msg_{said.id}", "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": []}
    yield {
        "type": "response.output_item.added",
        "output_index": at,
        "item": _message_item(said, "", "in_progress"),
    }
    yield {"type": "response.content_part.added", "part": empty} | where
    for piece in said.pieces:
        yield {"type": "response.output_text.delta", "delta": piece, "logprobs": []} | where
    yield {"type": "response.output_text.done", "text": said.text, "logprobs": []} | where
    yield {"type": "response.content_part.done", "part": empty | {"text": said.text}} | where
    yield {
        "type": "response.output_item.done",
        "output_index": at,
        "item": _message_item(said, said.text, "completed"),
    }


def _responses_call(call: Call, at: int) -> Iterator[Json]:
    where = {"output_index": at, "item_id": f"fc_{call.id}"}
    arguments = json.dumps(call.arguments)
    yield {
        "type": "response.output_item.added",
        "output_index": at,
        "item": _call_item(call, "", "in_progress"),
    }
    for half in _halves(call.arguments):
        yield {"type": "response.function_call_arguments.delta", "delta": half} | where
    yield {
        "type": "response.function_call_arguments.done",
        "name": call.name,
        "arguments": arguments,
    } | where
    yield {
        "type": "response.output_item.done",
        "output_index": at,
        "item": _call_item(call, arguments, "completed"),
    }


# anthropic


def _anthropic_usage(said: _Said) -> Json:
    usage = said.usage
    return {
        "input_tokens": usage.input - usage.cached - usage.cache_write,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
        "service_tier": "standard",
    }


def _anthropic_message(said: _Said, content: list[Json], reason: str | None) -> Json:
    return {
        "id": f"msg_{said.id}",
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": _anthropic_usage(said),
    }


def _anthropic_whole(said: _Said) -> Json:
    content: list[Json] = [{"type": "text", "text": said.text}] if said.text else []
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        for call in said.calls
    ]
    return _anthropic_message(said, content, "tool_use" if said.calls else "end_turn")


def _anthropic_stream(said: _Said) -> Iterator[bytes]:
    message = _anthropic_message(said, [], None)
    message["usage"] = message["usage"] | {"output_tokens": 1}
    yield _event({"type": "message_start", "message": message})
    at = 0
    if said.text:
        yield _event(
            {
                "type": "content_block_start",
                "index": at,
                "content_block": {"type": "text", "text": ""},
            }
        )
        yield _event({"type": "ping"})
        for piece in said.pieces:
            yield _anthropic_delta(at, {"type": "text_delta", "text": piece})
        yield _event({"type": "content_block_stop", "index": at})
        at += 1
    for call in said.calls:
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        yield _event({"type": "content_block_start", "index": at, "content_block": block})
        for half in _halves(call.arguments):
            yield _anthropic_delta(at, {"type": "input_json_delta", "partial_json": half})
        yield _event({"type": "content_block_stop", "index": at})
        at += 1
    yield _event(
        {
            "type": "message_delta",
            "delta": {
                "stop_reason": "tool_use" if said.calls else "end_turn",
                "stop_sequence": None,
            },
            "usage": _anthropic_usage(said),
        }
    )
    yield _event({"type": "message_stop"})


def _anthropic_delta(at: int, delta: Json) -> bytes:
    return _event({"type": "content_block_delta", "index": at, "delta": delta})


_WHOLE = {CHAT: _chat_whole, RESPONSES: _responses_whole, ANTHROPIC: _anthropic_whole}
_STREAM = {CHAT: _chat_stream, RESPONSES: _responses_stream, ANTHROPIC: _anthropic_stream}


def main(where: str, log: str) -> None:
    """Serve a script of a file until SIGTERM: `FILE.py:NAME`."""
    file, _, name = where.rpartition(":")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with ModelServer(runpy.run_path(file)[name], Path(log)) as server:
        print(server.url, flush=True)  # noqa: T201  what whoever started it waits for
        stop.wait()


if __name__ == "__main__":
    main(*sys.argv[1:3])
