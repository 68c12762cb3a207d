"""What server.py answers to clients of the OpenAI API: models, chat completions, pictures.

    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    client.chat.completions.create(model="coco", messages=[{"role": "user", "content": "Hello!"}])

coco is the newest checkpoint; coco-base, coco-sft and coco-grpo are the stages. System messages take the place of the
description; assistant messages before the first user message take the place of the opening. The client keeps the talk.
"""
import base64
import secrets
import time
from dataclasses import replace

from runtime.cli import UserError
from runtime.terminal import png
from web.line import Refused, Stopped
from web.page_api import read_picture


def get_routes(server) -> dict:
    return {"/v1/models": lambda handler: handler.send_json(models(server.stages))}


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


def number(body: dict, name: str, default: float, least: float, most: float, kind: type = float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise Refused(400, f"{name} must be a number from {least} to {most}")
    return kind(value)


# ---- reading messages ------------------------------------------------------------------------------------------------

def split_content(content: object) -> tuple[str, str | None]:
    """-> the text of a message, and the URL of its picture."""
    if isinstance(content, str):
        return whole(content), None
    parts = content if isinstance(content, list) else []
    texts, pictures = [], []
    for part in [part for part in parts if isinstance(part, dict)]:
        if isinstance(part.get("text"), str):
            texts.append(part["text"])
        if isinstance(part.get("image_url"), dict):
            pictures.append(part["image_url"].get("url"))
    return whole("\n".join(texts)), pictures[-1] if pictures else None


def whole(text: str) -> str:
    """JSON may hold half of a character, which no tokenizer can read: it becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_messages(messages: object, who) -> tuple:
    """-> the persona, the turns before, what the user says now, and the URL of a picture or None."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise Refused(400, "messages must be a list of objects")
    system, opening, turns = [], [], []
    for message in messages:
        role, (text, picture) = message.get("role"), split_content(message.get("content"))
        if role in ("system", "developer"):
            system.append(text)
        elif role == "user" and turns and not turns[-1]["reply"]:       # two of the user's messages in a row are one
            turns[-1] = {"user": f"{turns[-1]['user']}\n{text}", "reply": "", "picture": picture}
        elif role == "user":
            turns.append({"user": text, "reply": "", "picture": picture})
        elif role == "assistant":
            if turns:
                turns[-1]["reply"] = f"{turns[-1]['reply']}\n{text}".strip()
            else:
                opening.append(text)
        else:
            raise Refused(400, "a message's role must be system, user or assistant")
    if not turns or turns[-1]["reply"] or not (turns[-1]["user"].strip() or turns[-1]["picture"]):
        raise Refused(400, "the last message must be the user's, and not empty")
    if system:
        who = replace(who, description="\n".join(system).strip(), opening="")
    if opening:
        who = replace(who, opening="\n".join(opening).strip())
    return who, turns[:-1], turns[-1]["user"], turns[-1]["picture"]


def read_stops(value: object) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise Refused(400, "stop must be a text or a list of texts")
    return stops


# ---- chat completions ------------------------------------------------------------------------------------------------

def chat(handler) -> None:
    server, body = handler.server, handler.body()
    stage = stage_of(server.stages, body.get("model"))
    who, before, user, picture = read_messages(body.get("messages"), server.stages.character)
    options = {"temperature": number(body, "temperature", 0.2, 0, 100),
               "max_tokens": number(body, "max_completion_tokens", number(body, "max_tokens", 200, 1, 10_000, int), 1,
                                    10_000, int),
               "seed": number(body, "seed", secrets.randbelow(2 ** 31), 0, 2 ** 62, int), "pictures": False}
    if number(body, "n", 1, 1, 128, int) != 1:
        raise Refused(400, "n must be 1")
    image = read_picture(picture) if picture else None
    talk = server.new_talk(who, False, **options)
    talk.turns = [{"user": turn["user"], "answers": {stage: {"text": turn["reply"]}}} for turn in before]
    counts = {}

    def work(emit) -> None:
        if image is None:
            talk.say(user, emit, [stage])
        else:
            talk.show(image, user, emit, [stage])
        tokens = server.stages.model(stage).text_ids
        said = [who.description, who.opening, user, *(turn["user"] + turn["reply"] for turn in before)]
        counts["prompt_tokens"] = len(tokens("\n".join(said)))
        counts["completion_tokens"] = len(tokens(talk.turns[-1]["answers"][stage]["text"]))
    answer = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body.get("model")}
    pieces = until(read_stops(body.get("stop")), (event.text for event in handler.events(work)))
    if body.get("stream"):
        usage = isinstance(body.get("stream_options"), dict) and body["stream_options"].get("include_usage")
        stream(handler, answer, pieces, counts, options["max_tokens"], bool(usage))
    else:
        text = "".join(pieces).strip()
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None,
                  "finish_reason": finish_reason(counts, options["max_tokens"])}
        handler.send_json(answer | {"object": "chat.completion", "choices": [choice], "usage": totals(counts)})


def stream(handler, answer: dict, pieces, counts: dict, longest: int, usage: bool) -> None:
    """Server-sent events: the role, the pieces, the reason of the end, [DONE]."""
    def send(delta: dict, reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        handler.send_event(answer | {"object": "chat.completion.chunk", "choices": [choice]})
    handler.send_head(200, "text/event-stream")
    try:
        send({"role": "assistant", "content": ""})
        for piece in pieces:
            send({"content": piece})
        send({}, finish_reason(counts, longest))
        if usage:
            handler.send_event(answer | {"object": "chat.completion.chunk", "choices": [], "usage": totals(counts)})
    except (UserError, Stopped, Refused) as error:
        handler.send_event({"error": {"message": str(error.args[-1]), "type": "invalid_request_error", "code": 400}})
    handler.wfile.write(b"data: [DONE]\n\n")


def until(stops: list[str], pieces):
    """The pieces up to the first of `stops`. What may be the beginning of one is held back until it is clear."""
    held = ""
    for piece in pieces:
        held += piece
        found = [held.index(stop) for stop in stops if stop in held]
        if found:
            yield held[:min(found)]
            return
        begun = [n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])]
        ready = len(held) - max(begun, default=0)
        yield held[:ready]
        held = held[ready:]
    yield held


def finish_reason(counts: dict, longest: int) -> str:
    return "length" if counts.get("completion_tokens", 0) >= longest else "stop"


def totals(counts: dict) -> dict:
    counts = {"prompt_tokens": 0, "completion_tokens": 0} | counts
    return counts | {"total_tokens": sum(counts.values())}


# ---- pictures --------------------------------------------------------------------------------------------------------

def images(handler) -> None:
    server, body = handler.server, handler.body()
    stage, prompt = stage_of(server.stages, body.get("model")), body.get("prompt")
    count = number(body, "n", 1, 1, 4, int)
    if not isinstance(prompt, str) or not prompt.strip():
        raise Refused(400, "prompt must be a text")
    if body.get("response_format") not in (None, "b64_json"):
        raise Refused(400, "response_format must be b64_json: nothing is kept that a URL could lead to")
    seed = number(body, "seed", secrets.randbelow(2 ** 31), 0, 2 ** 62, int)
    talk = server.new_talk(None, False, previews=0, seed=seed)

    def work(emit) -> None:
        for _ in range(count):
            talk.draw(prompt, emit, [stage])
    drawn = [event.image for event in handler.events(work) if event.kind == "picture"]
    data = [{"b64_json": base64.b64encode(png(image)).decode()} for image in drawn]
    handler.send_json({"created": int(time.time()), "data": data, "output_format": "png"})


POST = {"/v1/chat/completions": chat, "/v1/images/generations": images}
