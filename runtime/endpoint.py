"""Ask a language model, on a server or on this machine, for one JSON object: for rubric judges and to write characters.

    endpoint = Endpoint.from_name("http://localhost:8000/v1", cache=Path("answers.jsonl"))
    endpoint.ask("How warm is this reply? ...", object_of(reasons=text(), score=integer(1, 7)))

Every answer that was received is kept on disk under a hash of its request, sound or not: a run that is repeated asks
only for what is missing, and nothing is paid for twice. The key comes from an environment variable and goes nowhere but
into the header of a request.
"""
import base64
import hashlib
import http.client
import io
import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import torch
import transformers
from tqdm import tqdm

from runtime.cli import UserError
from runtime.processes import pick_device

ATTEMPTS = 4
LONGEST_WAIT = 120          # seconds before another attempt, whatever a server wishes
# Servers differ in how they take the wish for an object, and in the names that they know ("": left out).
FORMS = "json_schema", "json_object", "text"
OTHER_NAMES = {"max_tokens": "max_completion_tokens", "temperature": "", "seed": ""}


# ---- what an answer has to be: JSON schemas, and what is wrong with a value ------------------------------------------

def object_of(**fields: dict) -> dict:
    """All fields are required, in this order: put the reasons before the score."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def list_of(kind: dict, least: int = 0, most: int = 1000) -> dict:
    return {"type": "array", "items": kind, "minItems": least, "maxItems": most}


def integer(low: int, high: int) -> dict:
    return {"type": "integer", "minimum": low, "maximum": high}


def text() -> dict:
    return {"type": "string", "minLength": 1}


def one_of(*values: str) -> dict:
    return {"type": "string", "enum": list(values)}


def complaint(value: object, schema: dict, where: str = "the answer") -> str:
    """What is wrong with a value, in words, or "". Nothing is converted or clamped: 5.0 and "5" are no integers."""
    kind = schema["type"]
    wanted = {"object": dict, "array": list, "string": str, "integer": int}[kind]
    if type(value) is not wanted:
        return f"{where} is not of the type {kind}"
    if kind == "integer" and not schema["minimum"] <= value <= schema["maximum"]:
        return f"{where} is not from {schema['minimum']} to {schema['maximum']}"
    if kind == "string" and not value.strip():
        return f"{where} is empty"
    if kind == "string" and value not in schema.get("enum", [value]):
        return f"{where} is none of {', '.join(schema['enum'])}"
    parts = []
    if kind == "array":
        if not schema["minItems"] <= len(value) <= schema["maxItems"]:
            return f"{where} has {len(value)} items, not {schema['minItems']} to {schema['maxItems']}"
        parts = [(item, schema["items"], f"{where}[{i}]") for i, item in enumerate(value)]
    if kind == "object":
        if missing := [name for name in schema["required"] if name not in value]:
            return f"{where} lacks {', '.join(missing)}"
        parts = [(value[name], inner, f"{where}.{name}") for name, inner in schema["properties"].items()]
    return next(filter(None, (complaint(*part) for part in parts)), "")


def last_object(said: str) -> dict:
    """The last JSON object that stands in no other. Thinking, prose and code fences are passed over. Raises ValueError
    where there is none, or where one that was begun later is not whole."""
    said = said.rpartition("</think>")[2]
    if "<think>" in said:
        raise ValueError("its thinking does not end")
    decoder = json.JSONDecoder(parse_constant=lambda name: float(f"{name} is not JSON"))        # raises ValueError
    found, at = None, said.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(said, at)
        except (ValueError, RecursionError):
            if re.match(r'\{\s*"', said[at:]):              # an object, not a brace in prose
                raise ValueError("its JSON object is broken or cut off") from None
            end = at + 1
        at = said.find("{", end)
    if found is None:
        raise ValueError("it holds no JSON object")
    return found


# ---- what all endpoints share ----------------------------------------------------------------------------------------

@dataclass
class Answer:
    said: str
    cut: bool                       # it ended because it was as long as allowed
    tokens_in: int
    tokens_out: int


@dataclass
class Usage:
    price: tuple[float, float] = (0.0, 0.0)         # dollars for a million tokens in and out
    requests: int = 0                               # that were sent
    cached: int = 0                                 # answers that were on disk already
    missing: int = 0                                # questions without a sound answer after all attempts
    tokens_in: int = 0
    tokens_out: int = 0

    def spent(self) -> str:
        cost = (self.price[0] * self.tokens_in + self.price[1] * self.tokens_out) / 1e6
        tokens = f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out"
        return f"{tokens}, $ {cost:.4f}" if cost else tokens

    def __str__(self) -> str:
        counts = f"{self.requests:,} requests, {self.cached:,} answers from the cache, {self.missing:,} missing"
        return f"{counts}, {self.spent()}"


class Unanswered(Exception):
    """One attempt failed. wait: seconds that the server asks for; final: another attempt would fail alike; gone: nobody
    was there at all."""
    def __init__(self, why: str, wait: float | None = None, final: bool = False, gone: bool = False):
        super().__init__(why)
        self.wait, self.final, self.gone = wait, final, gone


class Endpoint:
    """Subclasses say how one request is answered: `send(messages, images, schema, room, sample) -> Answer`."""
    sees = True                     # takes pictures, as far as is known

    def __init__(self, place: str, name: str, cache: Path | None = None, at_once: int = 8, timeout: float = 120,
                 max_tokens: int = 1024, temperature: float = 0.0, price: str = "", pause: float = 1.0):
        self.place, self.name = place, name
        self.at_once, self.timeout, self.pause = at_once, timeout, pause
        self.max_tokens, self.temperature = max_tokens, temperature
        self.usage, self.problems = Usage(), Counter()              # problems: why answers are missing
        if price:
            self.usage.price = read_price(price)
        self.not_before, self.stopping = 0.0, False                 # all threads rest until then; end soon
        self.lock, self.turns = threading.Lock(), {}
        self.cache, self.answers = cache, read_cache(cache)

    @staticmethod
    def from_name(name: str, model: str = "", key_env: str = "OPENAI_API_KEY", device: str = "auto",
                  **more) -> "Endpoint":
        """A server by its address, or a `transformers` chat model of this machine. more: as Endpoint.__init__."""
        return Server(name, model, key_env, **more) if "://" in name else LocalModel(name, device, **more)

    def ask(self, messages: str | list[dict], schema: dict, images: list | tuple = (), sample: int = 0,
            check: Callable[[dict], str] = lambda value: "") -> dict | None:
        """An object that fits the schema and that `check` has nothing against ("" is nothing), or None after four
        attempts. Pictures go with the last message. The model is told what was wrong with an earlier answer."""
        told = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        wish = f"End your answer with one JSON object that fits this JSON schema: {json.dumps(schema)}"
        told, room, gone = with_more(told, wish), self.max_tokens, 0
        for attempt in range(ATTEMPTS):
            try:
                answer = self.recall(told, images, schema, room, sample)
            except Unanswered as error:
                why = str(error)
                gone += error.gone
                if error.final or self.stopping:
                    break
                self.rest(attempt, error.wait)
                continue
            value, why = read_answer(answer, schema, check)
            if not why:
                return value
            if self.stopping:
                break
            if answer.cut:
                room = 2 * self.max_tokens
            told = with_more(told, f"An earlier answer could not be used: {why}.")
        if gone == ATTEMPTS:
            raise UserError(f"{self.place}: no server answers there ({why}); start it, or mend the address")
        if not self.stopping:
            with self.lock:
                self.usage.missing += 1
                self.problems[why] += 1
        return None

    def rest(self, attempt: int, wait: float | None) -> None:
        """As long as the server asks for, or else twice as long after each attempt."""
        if wait is None:
            wait = self.pause * 2 ** attempt * random.uniform(1, 1.5)
        self.not_before = max(self.not_before, time.monotonic() + min(wait, LONGEST_WAIT))

    def recall(self, messages: list[dict], images: list | tuple, schema: dict, room: int, sample: int) -> Answer:
        """The answer on disk, or else a new one, put there at once. Two threads do not ask for the same."""
        seen = [hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest() for image in images]
        asked = [self.place, self.name, messages, seen, schema, room, self.temperature, sample]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        with self.lock:
            turn = self.turns.setdefault(key, threading.Lock())
        with turn:
            if key in self.answers:
                with self.lock:
                    self.usage.cached += 1
                return self.answers[key]
            answer = self.send(messages, images, schema, room, sample)
            with self.lock:
                self.keep(key, answer)
        return answer

    def keep(self, key: str, answer: Answer) -> None:
        self.answers[key] = answer
        self.usage.tokens_in += answer.tokens_in
        self.usage.tokens_out += answer.tokens_out
        if self.cache:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            row = json.dumps({"key": key} | asdict(answer))
            with open(self.cache, "a", encoding="utf-8") as file:
                file.write(f"\n{row}\n")                            # a new line first: the last may be torn

    def ask_all(self, questions: list[dict], doing: str) -> list[dict | None]:
        """`ask` for each, its arguments by name, `at_once` at a time; answers in their order. An interrupt waits for
        the requests under way, which are paid for, and keeps their answers."""
        answers, pool = [None] * len(questions), ThreadPoolExecutor(self.at_once)
        try:
            places = {pool.submit(self.ask, **question): i for i, question in enumerate(questions)}
            with tqdm(total=len(questions), desc=doing, unit="call") as bar:
                for future in as_completed(places):
                    answers[places[future]] = future.result()
                    bar.set_postfix_str(self.usage.spent(), refresh=False)
                    bar.update()
        except BaseException:
            self.stopping = True
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return answers


def read_price(price: str) -> tuple[float, float]:
    try:
        given, made = map(float, price.split("/"))
    except ValueError:
        raise UserError(f"price {price}: give dollars for a million tokens in and out, such as 0.15/0.60") from None
    return given, made


def read_cache(file: Path | None) -> dict[str, Answer]:
    answers = {}
    for line in file.read_text("utf-8").split("\n") if file and file.exists() else []:
        try:
            row = json.loads(line)
            key = row.pop("key")
            answers[key] = Answer(**row)
        except (ValueError, TypeError, LookupError, AttributeError):        # empty, or torn by a kill
            continue
    return answers


def read_answer(answer: Answer, schema: dict, check: Callable[[dict], str]) -> tuple[dict | None, str]:
    """-> the object, and what is wrong with it, or ""."""
    if answer.cut:
        return None, "it was cut off; be brief"
    try:
        value = last_object(answer.said)
    except ValueError as error:
        return None, str(error)
    return value, complaint(value, schema) or check(value)


def with_more(messages: list[dict], more: str) -> list[dict]:
    return messages[:-1] + [messages[-1] | {"content": f"{messages[-1]['content']}\n\n{more}"}]


# ---- a server, by HTTP -----------------------------------------------------------------------------------------------

class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *given):         # the header with the key would go along to wherever a server points
        return None


class Refused(Exception):
    """The server does not take a request of this form; it may take another."""


class Server(Endpoint):
    def __init__(self, url: str, model: str, key_env: str, **more):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise UserError(f"endpoint: give http(s)://host/v1 without any key; the key is read from ${key_env}")
        path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
        super().__init__(f"{parts.scheme}://{parts.netloc}{path}", model, **more)
        self.key, self.key_env = os.environ.get(key_env, "").strip(), key_env
        if not (self.key.isascii() and self.key.isprintable()) or " " in self.key:     # http.client would quote it
            raise UserError(f"${key_env}: a key is one line of plain characters; set it anew")
        self.opener, self.form, self.renamed = urllib.request.build_opener(NoRedirect), 0, {}
        if not model:
            try:
                self.name = self.post("/models")["data"][0]["id"]
            except (Unanswered, Refused, LookupError, TypeError) as error:
                raise UserError(f"{self.place}: lists no models ({error}); start it, or name the model") from None

    def send(self, messages: list[dict], images: list | tuple, schema: dict, room: int, sample: int) -> Answer:
        """What the server refuses is left out, renamed or asked for in the next form, and remembered."""
        if images:
            parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
            parts.append({"type": "text", "text": messages[-1]["content"]})
            messages = messages[:-1] + [messages[-1] | {"content": parts}]
        body = {"model": self.name, "messages": messages, "max_tokens": room, "temperature": self.temperature,
                "seed": sample}
        formats = [{"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}},
                   {"type": "json_object"}]
        form, renamed = self.form, self.renamed
        while True:
            asked = {renamed.get(name, name): value for name, value in body.items() if renamed.get(name, name)}
            if form < len(formats):
                asked["response_format"] = formats[form]
            try:
                answer = answer_of(self.post("/chat/completions", asked))
                self.form, self.renamed = form, renamed
                return answer
            except Refused as error:
                refused = next((name for name in OTHER_NAMES.keys() - renamed if name in str(error)), None)
                if refused:
                    renamed = renamed | {refused: OTHER_NAMES[refused]}
                elif form == len(formats):
                    raise Unanswered(str(error), final=True) from None
                else:
                    form += 1

    def post(self, path: str, body: dict | None = None) -> dict:
        """One request. Raises Refused, Unanswered, or UserError where no other request can succeed either."""
        time.sleep(max(0.0, self.not_before - time.monotonic()))
        with self.lock:
            self.usage.requests += 1
        request = urllib.request.Request(self.place + path, body and json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        if self.key:
            request.add_header("Authorization", f"Bearer {self.key}")
        raw, end = b"", time.monotonic() + self.timeout
        try:
            with self.opener.open(request, timeout=self.timeout) as response:
                while piece := response.read1(1 << 16):             # a server that drips is not waited for either
                    raw += piece
                    if time.monotonic() > end:
                        raise TimeoutError("timed out")
            return json.loads(self.without_key(raw.decode("utf-8", "replace")))
        except urllib.error.HTTPError as error:
            self.explain(error)
        except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
            why = getattr(error, "reason", error)
            gone = isinstance(why, OSError) and not isinstance(why, TimeoutError)
            raise Unanswered(f"{type(why).__name__}: {why}", gone=gone) from None

    def explain(self, error: urllib.error.HTTPError) -> NoReturn:
        """What an answer other than 200 means."""
        try:
            said = self.without_key(error.read(2000).decode("utf-8", "replace"))
        except (OSError, http.client.HTTPException):
            said = ""
        why, after = f"HTTP {error.code}: {' '.join(said.split())[:200]}", error.headers.get("Retry-After", "")
        if error.code in (401, 402, 403, 404, 405) or error.code < 400 or "insufficient_quota" in said:
            raise UserError(f"{self.place}: {why}; mend the address, the model's name or the key in ${self.key_env}")
        if error.code in (400, 413, 415, 422) or re.search("response_format|json_schema|grammar", said):
            raise Refused(why)
        try:
            wait = float(after) if after.strip().isdigit() else parsedate_to_datetime(after).timestamp() - time.time()
        except ValueError:
            wait = None                                             # not said: the usual pauses
        raise Unanswered(why, wait)

    def without_key(self, said: str) -> str:
        """Some servers repeat the key. A short one, such as "none" for a server at home, is no secret but a word."""
        return said.replace(self.key, "***") if len(self.key) >= 12 else said


def data_url(image) -> str:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def answer_of(row: dict) -> Answer:
    try:
        choice, used = row["choices"][0], row.get("usage") or {}
        said = str(choice["message"].get("content") or "")          # none, when thinking has used up the tokens
        cut = choice.get("finish_reason") == "length"
        return Answer(said, cut, int(used.get("prompt_tokens") or 0), int(used.get("completion_tokens") or 0))
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError):
        raise Unanswered(f"no answer in it: {json.dumps(row)[:200]}") from None


# ---- a model on this machine -----------------------------------------------------------------------------------------

class LocalModel(Endpoint):
    """A `transformers` chat model: a folder, a .gguf file, or a hub name. It answers one question at a time."""
    def __init__(self, name: str, device: str = "auto", **more):
        super().__init__(name, Path(name).name, **more | {"at_once": 1})
        gguf = {"gguf_file": Path(name).name} if name.endswith(".gguf") else {}
        folder = str(Path(name).parent) if gguf else name
        try:
            self.sees = hasattr(transformers.AutoConfig.from_pretrained(folder, **gguf), "vision_config")
            kind = transformers.AutoModelForImageTextToText if self.sees else transformers.AutoModelForCausalLM
            reader = transformers.AutoProcessor if self.sees else transformers.AutoTokenizer
            self.reader = reader.from_pretrained(folder, **gguf)
            self.model = kind.from_pretrained(folder, dtype="auto", **gguf).eval()
        except (OSError, ValueError, LookupError, ImportError) as error:
            raise UserError(f"{name}: neither an address nor a transformers chat model ({str(error)[:200]})") from None
        self.model.to(pick_device(device))

    @torch.inference_mode()
    def send(self, messages: list[dict], images: list | tuple, schema: dict, room: int, sample: int) -> Answer:
        if images and not self.sees:
            raise Unanswered("this model sees no pictures", final=True)
        if self.sees:
            messages = [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in messages]
            messages[-1]["content"][:0] = [{"type": "image", "image": image} for image in images]
        self.usage.requests += 1
        given = self.reader.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True,
                                                return_tensors="pt").to(self.model.device)
        torch.manual_seed(sample)
        how = {"do_sample": True, "temperature": self.temperature} if self.temperature else {"do_sample": False}
        stop = [lambda ids, scores, **more: torch.full((len(ids),), self.stopping, device=ids.device)]
        made = self.model.generate(**given, max_new_tokens=room, stopping_criteria=stop, **how)[0]
        made = made[given["input_ids"].shape[1]:]
        if self.stopping:
            raise Unanswered("stopped", final=True)         # half an answer is not kept; here nothing was paid for it
        said = self.reader.decode(made, skip_special_tokens=True)
        return Answer(said, len(made) >= room, given["input_ids"].shape[1], len(made))
