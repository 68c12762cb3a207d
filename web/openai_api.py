"""What server.py answers to clients of the OpenAI API: models, chat completions, pictures.

    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    client.chat.completions.create(model="coco", messages=[{"role": "user", "content": "Hello!"}])

coco is the newest checkpoint; coco-base, coco-sft and coco-grpo are the stages. System messages take the place of the
description; assistant messages before the first user message take the place of the opening. The client keeps the talk.
"""
import base64
import json
import secrets
import time
from dataclasses import dataclass, replace
from urllib.parse import quote

from runtime.cli import UserError
from runtime.terminal import png
from web.line import Refused, Stopped
from web.page_api import read_picture


def get_routes(server) -> dict:
    found = models(server.stages)
    return {"/v1/models": lambda handler: handler.send_json(found)} | {
        f"/v1/models/{quote(entry['id'], safe='')}": lambda handler, entry=entry: handler.send_json(entry)
        for entry in found["data"]}


def models(stages) -> dict:
    name = stages.character.folder.name
    names = [name, *(f"{name}-{stage}" for stage in stages.folders)]
    return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "chat.py"}
                                       for name in names]}


def stage_of(stages, model: object) -> str:
    known = {entry["id"] for entry in models(stages)["data"]}
    if model is not None and not (isinstance(model, str) and model in known):
        raise Refused(404, f"there is no such model; there are: {', '.join(sorted(known))}")
    _, _, stage = str(model or "").removeprefix(stages.character.folder.name).partition("-")
    return stage or stages.default


def number(body: dict, name: str, default: float | None, least: float, most: float, kind: type = float) -> float | None:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise Refused(400, f"{name} must be a number from {least} to {most}")
    return kind(value)


def refuse_other(body: dict, **plain: list) -> None:
    """What would change the shape of the answer is refused: a client that asked for it could not read the answer."""
    for name, values in plain.items():
        if body.get(name) not in [None, *values]:
            raise Refused(400, f"{name} is not supported; leave it out")


# ---- reading messages ------------------------------------------------------------------------------------------------

def split_content(content: object) -> tuple[str, list[str]]:
    """-> the text of a message, and the URLs of its pictures."""
    if isinstance(content, str):
        return whole(content), []
    if not isinstance(content, list):
        raise Refused(400, f"a message's content must be a text or a list of parts, not {shortly(content)}")
    texts, pictures = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else part
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            url = part.get("image_url")
            pictures.append(url.get("url") if isinstance(url, dict) else url)
        else:
            raise Refused(400, f"a part of a message must be a text or an image_url, not {shortly(kind)}")
    return whole("\n".join(texts)), pictures


def shortly(value: object) -> str:
    return json.dumps(value)[:40]


def whole(text: str) -> str:
    """JSON may hold half of a character, which no tokenizer can read: it becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_messages(messages: object, who) -> tuple:
    """-> the persona, the turns before, what the user says now, and the URLs of its pictures: none or one."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise Refused(400, "messages must be a list of objects")
    system, opening, turns = [], [], []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role == "assistant" and content is None:                     # so is one that only called a tool
            content = ""
        text, pictures = split_content(content)
        if role in ("system", "developer"):
            system.append(text)
        elif role == "user" and turns and not turns[-1]["reply"]:       # two of the user's messages in a row are one
            turns[-1]["user"] += f"\n{text}"
            turns[-1]["pictures"] += pictures
        elif role == "user":
            turns.append({"user": text, "reply": "", "pictures": pictures})
        elif role == "assistant":
            if turns:
                turns[-1]["reply"] = f"{turns[-1]['reply']}\n{text}".strip()
            else:
                opening.append(text)
        else:
            raise Refused(400, "a message's role must be system, user or assistant")
    if not turns or turns[-1]["reply"] or not (turns[-1]["user"].strip() or turns[-1]["pictures"]):
        raise Refused(400, "the last message must be the user's, and not empty")
    if any(len(turn["pictures"]) > 1 for turn in turns):
        raise Refused(400, "a message may have one picture")
    if system:
        who = replace(who, description="\n".join(system).strip(), opening="")
    if opening:
        who = replace(who, opening="\n".join(opening).strip())
    return who, turns[:-1], turns[-1]["user"], turns[-1]["pictures"]


def read_stops(value: object) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise Refused(400, "stop must be a text or a list of texts")
    return stops


# ---- chat completions ------------------------------------------------------------------------------------------------

@dataclass
class Count:
    """Of tokens, while an answer comes."""
    longest: int
    talk: object                    # chat.py's Conversation, which answers
    completion: int = 0
    stopped: bool = False           # by a text of `stop`

    @property
    def reason(self) -> str:
        return "length" if self.completion >= self.longest and not self.stopped else "stop"

    @property
    def usage(self) -> dict:
        prompt = self.talk.prompt_tokens            # what was really sent; a picture is not counted
        return {"prompt_tokens": prompt, "completion_tokens": self.completion,
                "total_tokens": prompt + self.completion}


def chat(handler) -> None:
    server, body = handler.server, handler.body()
    stage = stage_of(server.stages, body.get("model"))
    refuse_other(body, tools=[[]], functions=[[]], response_format=[{"type": "text"}], logprobs=[False],
                 top_logprobs=[0], modalities=[["text"]])
    who, before, user, pictures = read_messages(body.get("messages"), server.stages.character)
    longest = number(body, "max_tokens", None, 1, 10_000, int)
    wanted = {"temperature": number(body, "temperature", None, 0, 100),
              "max_tokens": number(body, "max_completion_tokens", longest, 1, 10_000, int),
              "seed": number(body, "seed", secrets.randbelow(2 ** 31), 0, 2 ** 62, int)}
    wanted = {name: value for name, value in wanted.items() if value is not None}       # the rest as chat.py was started
    if number(body, "n", 1, 1, 128, int) != 1:
        raise Refused(400, "n must be 1")
    image = read_picture(pictures[0]) if pictures else None
    talk = server.new_talk(who, False, pictures=False, **wanted)
    talk.turns = [{"user": turn["user"], "answers": {stage: {"text": turn["reply"]}}} for turn in before]
    count = Count(talk.options.max_tokens, talk)

    def work(emit) -> None:
        tokens = server.stages.model(stage).text_ids

        def with_tokens(event) -> None:     # a piece is one token, unless its sign is written with several
            emit((event.text, 1 if event.text.isascii() else len(tokens(event.text))))
        if image is None:
            talk.say(user, with_tokens, [stage])
        else:
            talk.show(image, user, with_tokens, [stage])
    answer = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()),
              "model": body.get("model") or server.stages.character.folder.name}
    pieces = until(read_stops(body.get("stop")), handler.events(work), count)
    if body.get("stream"):
        usage = isinstance(body.get("stream_options"), dict) and body["stream_options"].get("include_usage")
        stream(handler, answer, pieces, count, bool(usage))
    else:
        text = "".join(pieces).strip()
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None,
                  "finish_reason": count.reason}
        handler.send_json(answer | {"object": "chat.completion", "choices": [choice], "usage": count.usage})


def stream(handler, answer: dict, pieces, count: Count, usage: bool) -> None:
    """Server-sent events: the role, the pieces, the reason of the end, [DONE]."""
    def send(delta: dict, reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        handler.send_event(answer | {"object": "chat.completion.chunk", "choices": [choice]})
    handler.send_head(200, "text/event-stream")
    try:
        send({"role": "assistant", "content": ""})
        for piece in pieces:
            send({"content": piece})
        send({}, count.reason)
        if usage:
            handler.send_event(answer | {"object": "chat.completion.chunk", "choices": [], "usage": count.usage})
    except (UserError, Stopped, Refused) as error:
        handler.send_event(handler.problem(error)[0])
    handler.wfile.write(b"data: [DONE]\n\n")


def until(stops: list[str], pieces, count: Count):
    """The pieces up to the first of `stops`. What may be the beginning of one is held back until it is clear."""
    held = ""
    for piece, tokens in pieces:
        count.completion = min(count.longest, count.completion + tokens)
        held += piece
        found = [held.index(stop) for stop in stops if stop in held]
        if found:
            count.stopped = True
            yield held[:min(found)]
            return
        begun = [n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])]
        ready = len(held) - max(begun, default=0)
        yield held[:ready]
        held = held[ready:]
    yield held


# ---- pictures --------------------------------------------------------------------------------------------------------

def images(handler) -> None:
    server, body = handler.server, handler.body()
    stage, prompt = stage_of(server.stages, body.get("model")), body.get("prompt")
    count = number(body, "n", 1, 1, 4, int)
    if not isinstance(prompt, str) or not prompt.strip():
        raise Refused(400, "prompt must be a text")
    refuse_other(body, stream=[False], output_format=["png"])
    if body.get("response_format") not in (None, "b64_json"):
        raise Refused(400, "response_format must be b64_json: nothing is kept that a URL could lead to")
    seed = number(body, "seed", secrets.randbelow(2 ** 31), 0, 2 ** 62, int)
    talk = server.new_talk(None, False, previews=0, seed=seed)

    def work(emit) -> None:
        for _ in range(count):
            talk.draw(prompt, emit, [stage])
    drawn = [event.image for event in handler.events(work) if event.kind == "picture"]
    data = [{"b64_json": base64.b64encode(png(image)).decode()} for image in drawn]
    # The model draws in one size, whatever was asked for; nothing is drawn for a client that left.
    size = "{}x{}".format(*drawn[0].size) if drawn else "auto"
    handler.send_json({"created": int(time.time()), "data": data, "output_format": "png", "size": size})


POST = {"/v1/chat/completions": chat, "/v1/images/generations": images}
