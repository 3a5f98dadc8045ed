"""A small inference server with a real model behind it, which can fail in every way that servers do.

It speaks as vLLM, SGLang, llama.cpp and OpenAI's old completions do, by their documentation, and shares no line with
the client.
"""

import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch


class Listener(ThreadingHTTPServer):
    request_queue_size = 64  # of connections that wait; more than any test opens


class LocalServer:
    """Use it as a context.

    Args:
        troubles: called with the number of a question about a text, counted from 0, and its tokens; gives a code to
            fail with, "hang up", or None.
        spoil: called with an answer (JSON) and its tokens; gives another one, or bytes.
        seconds: the longest pause before an answer; how long each is, is drawn.
        names: "ids" or "words", in the completions dialect.
        has: which paths it has beside those that answer.
    """

    def __init__(
        self, model, tokenizer, *, name="teacher", troubles=None, spoil=None, seconds=0.0, names="ids", rounded=None,
        has=("/tokenize", "/v1/models"), port=0,
    ):  # fmt: skip
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.troubles, self.spoil = troubles or (lambda number, tokens: None), spoil or (lambda answer, tokens: answer)
        self.seconds, self.names, self.rounded, self.has, self.port = seconds, names, rounded, has, port
        self.answered, self.headers, self.paths = [], [], []
        self.under_way = self.most_under_way = self.questions = 0
        self.lock = threading.Lock()
        self.random = random.Random(0)

    def __enter__(self):
        self.http = Listener(("127.0.0.1", self.port), handler_for(self))
        self.http.socket.settimeout(0.5)  # a connection that is gone before it is accepted
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def log_probs(self, tokens):
        """Of each token that follows one of these."""
        with torch.no_grad():
            found = self.model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        return found if self.rounded is None else found.to(self.rounded).double()

    def likeliest(self, log_probs, k, own=None):
        """{id: log-probability}, the text's own token first, as vLLM has it."""
        top = log_probs.topk(k)
        entries = dict(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        return entries if own is None else {own: log_probs[own].item()} | entries

    def answer(self, path, body):
        return {"/v1/completions": self.completions, "/generate": self.generate, "/completion": self.completion}[path](
            body
        )

    def completions(self, body):
        tokens = body["prompt"]
        if isinstance(tokens, str):
            tokens = self.tokenizer(tokens)["input_ids"]
        k = body.get("prompt_logprobs") or body.get("logprobs") or 0
        rows = self.log_probs(tokens)
        likeliest = [self.likeliest(row, k, own) for row, own in zip(rows, tokens[1:], strict=False)]
        choice = {"index": 0, "text": "", "finish_reason": "length"}
        if "prompt_logprobs" in body:
            choice["prompt_token_ids"] = tokens
            choice["prompt_logprobs"] = [
                None,
                *(
                    {
                        str(each): {"logprob": log_prob, "rank": rank, "decoded_token": self.tokenizer.decode([each])}
                        for rank, (each, log_prob) in enumerate(place.items())
                    }
                    for place in likeliest
                ),
            ]
        elif body.get("echo"):
            new = rows[-1].argmax().item()
            own = [
                None,
                *(row[each].item() for row, each in zip(rows, tokens[1:], strict=False)),
                rows[-1].max().item(),
            ]
            choice["logprobs"] = {
                "tokens": [self.named(each) for each in [*tokens, new]],
                "token_logprobs": own,
                "top_logprobs": [
                    None,
                    *(
                        {self.named(each): log_prob for each, log_prob in place.items()}
                        for place in [*likeliest, self.likeliest(rows[-1], k)]
                    ),
                ],
            }
        usage = {"prompt_tokens": len(tokens), "completion_tokens": 1}
        return {"object": "text_completion", "model": self.name, "choices": [choice], "usage": usage}

    def named(self, each):
        return f"token_id:{each}" if self.names == "ids" else self.tokenizer.decode([each])

    def generate(self, body):
        tokens, k = body["input_ids"], body["top_logprobs_num"]
        rows = self.log_probs(tokens)
        own = [[None, tokens[0], self.tokenizer.decode([tokens[0]])]]
        top = [None]
        for row, each in zip(rows, tokens[1:], strict=False):
            own.append([row[each].item(), each, self.tokenizer.decode([each])])
            entries = self.likeliest(row, k).items()
            top.append([[log_prob, one, self.tokenizer.decode([one])] for one, log_prob in entries])
        return {"text": "", "meta_info": {"input_token_logprobs": own, "input_top_logprobs": top}}

    def completion(self, body):
        entries = self.likeliest(self.log_probs(body["prompt"])[-1], body["n_probs"]).items()
        top = [{"id": each, "token": self.tokenizer.decode([each]), "logprob": log_prob} for each, log_prob in entries]
        place = {**top[0], "top_logprobs": top}
        return {"model": self.name, "tokens_evaluated": len(body["prompt"]), "completion_probabilities": [place]}


def handler_for(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and content in one packet, for which nobody waits

        def log_message(self, *_):
            """Say nothing."""

        def reply(self, code, answer, headers=None):
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(code)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            server.headers.append(dict(self.headers))
            if self.path not in server.has:
                return self.reply(404, {"error": "not found"})
            return self.reply(200, {"object": "list", "data": [{"id": server.name}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.headers.append(dict(self.headers))
            server.paths.append(self.path)
            if self.path == "/tokenize":
                if self.path not in server.has:
                    return self.reply(404, {"error": "not found"})
                tokens = server.tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"])["input_ids"]
                return self.reply(200, {"tokens": tokens, "count": len(tokens), "max_model_len": 4096})
            tokens = body.get("input_ids", body.get("prompt"))
            if isinstance(tokens, str):  # somebody counts its tokens
                return self.reply(200, server.answer(self.path, body))
            with server.lock:
                number, server.questions = server.questions, server.questions + 1
                server.under_way += 1
                server.most_under_way = max(server.most_under_way, server.under_way)
                pause = server.random.uniform(0, server.seconds)
            try:
                time.sleep(pause)
                trouble = server.troubles(number, tokens)
                if trouble == "hang up":
                    self.close_connection = True
                    return None
                if trouble is not None:
                    return self.reply(*trouble) if isinstance(trouble, tuple) else self.reply(trouble, b"Sorry")
                answer = server.spoil(server.answer(self.path, body), tokens)
                with server.lock:
                    server.answered.append(tuple(tokens))
                return self.reply(200, answer)
            finally:
                with server.lock:
                    server.under_way -= 1

    return Handler
