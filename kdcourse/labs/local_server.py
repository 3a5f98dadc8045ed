"""A small inference server for lab 10: it answers as vLLM does, with a model behind it, and it can fail.

It knows one dialect and one way to be asked. What stands in front of a real teacher is a real server.
"""

from __future__ import annotations

import json
import random
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OVERLOADED, NOT_THERE = 429, 404


class LocalServer:
    """Serves while the `with` block lasts, at `url`.

    Args:
        model: whose likeliest tokens are given; nobody may train it meanwhile.
        tokenizer: the model's.
        name: under which the server knows it.
        fails: the share of questions that it is too busy for (429), drawn.
        dies_after: so many answers; then it hangs up on whoever asks. None for never.

    `asked` counts questions about texts, and `answered` those that were given an answer.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str = "teacher", fails: float = 0.0,
        dies_after: int | None = None,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.fails, self.dies_after = fails, dies_after
        self.asked = self.answered = 0
        self._lock, self._random = Lock(), random.Random(0)  # noqa: S311

    def __enter__(self) -> LocalServer:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def admit(self) -> int | None:
        """Count a question; None if it is to be answered, a code of HTTP to fail with, or 0 to hang up."""
        with self._lock:
            self.asked += 1
            if self.dies_after is not None and self.answered >= self.dies_after:
                return 0
            if self._random.random() < self.fails:
                return OVERLOADED
            self.answered += 1
            return None

    def likeliest(self, tokens: list[int], k: int) -> dict[str, Any]:
        """vLLM's answer with `prompt_logprobs`: {id: log-probability, its word} in each place but the first, for the
        text's own token, which comes first, and for the k likeliest."""
        with torch.no_grad():
            log_probs = self.model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
        places: list[dict[str, Any] | None] = [None]
        for own, row in zip(tokens[1:], log_probs, strict=True):
            named = dict.fromkeys([own, *row.topk(k).indices.tolist()])
            words = {each: self.tokenizer.decode([each]) for each in named}
            places.append({str(each): {"logprob": row[each].item(), "decoded_token": words[each]} for each in named})
        return {"model": self.name, "choices": [{"prompt_token_ids": tokens, "prompt_logprobs": places}]}


def _handler(server: LocalServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def reply(self, code: int, answer: Any) -> None:
            content = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self.reply(200, {"data": [{"id": server.name}]})
            else:
                self.reply(NOT_THERE, {"error": "not found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize":
                ids = server.tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"])["input_ids"]
                self.reply(200, {"tokens": ids, "count": len(ids)})
            elif self.path == "/v1/completions" and body["model"] == server.name:
                trouble = server.admit()
                if trouble is None:
                    self.reply(200, server.likeliest(body["prompt"], body["prompt_logprobs"]))
                elif trouble:
                    self.reply(trouble, {"error": "too many questions"})
            else:
                self.reply(NOT_THERE, {"error": "not found"})

    return Handler
