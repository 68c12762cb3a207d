"""Talk with a character: it answers in words, then draws the moment. In the terminal, in the browser, or for a client.

    python chat.py                                      the newest run under runs/; without any, Coco's small adapter
    python chat.py --web                                the same in the browser, and an OpenAI-compatible endpoint
    python chat.py --model runs/coco/sft                a checkpoint of your choice
    python chat.py --once "hello" --out hello.png       one reply and one picture, for scripts

An answer is at most three calls of the one model. reply_prompt gives words. moment_prompt gives a sentence that says what
to draw, or, if thinking is on, think_prompt a plan. A picture is drawn from that sentence, or from draw_prompt, which is the
dialogue with the plan. With words and sentence known ones help (runtime/recall.py). `Conversation` makes these calls, and
reports every piece as an Event. The terminal prints events; web/server.py sends them. Talks: runs/<char>/chat/.
"""
import runtime  # noqa: F401     # first: before torch is loaded, see there
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image

import sft
from characters.schema import names_in
from data import (
    DESCRIBE, MOMENT_TOKENS, Character, draw_prompt, moment_prompt, read_plan, reply_prompt, think_prompt)
from model import UniModel
from runtime.cli import UserError, parse_options, printable, run_script, say
from runtime.processes import start
from runtime.talks import GoesInCircles, Stages, TalkFolder, chat_folder, cleaned, first_lines, goes_in_circles
from runtime.terminal import HELP, PAINTERS, Display, Keyboard, choose_graphics, picture_and_question
from web.server import serve


@dataclass
class Options:
    model: str = ""             # checkpoint folder; empty: the newest run, of --char if that is given
    char: str = ""              # character, by name or folder; empty: the one that the checkpoint was taught, or coco
    once: str = ""              # say this, print one reply and one picture, and leave
    out: str = ""               # with --once: file for the picture
    web: bool = False           # talk in the browser instead, on this machine only
    port: int = 8000            # of --web
    pictures: bool = True       # draw after each reply
    think: bool = False         # plan each picture in words first (/think switches it)
    previews: int = 6           # how often the unfinished picture is shown while it is drawn
    graphics: str = "auto"      # auto, blocks, kitty, iterm, sixel or none (print the picture's path)
    width: int = 0              # columns that a picture takes; 0: what the window has, up to 64
    weights: str = "auto"       # fp32, bf16 or int8; auto: bf16 from a billion numbers on
    device: str = "auto"        # auto, cpu, mps or cuda
    seed: int = 0               # of the first answer, its words and its picture; each further answer adds one
    steps: int = 20             # denoising steps of a picture
    guidance: float = 0.0       # classifier-free guidance of a picture; 0: the model's own, 1: none
    recall: float = -1.0        # share of known replies in a word; 0: the weights alone, in pictures too; -1: as usual
    temperature: float = 0.2    # of the replies (eval.py: 0.7, as published); plans are always greedy
    max_tokens: int = 200       # longest reply
    memory: int = 4             # past turns that the prompt repeats: small models were taught on short prompts
    memory_tokens: int = 160    # ... and how many tokens these may have; the oldest turns are left out first
    context: int = 2048         # longest prompt, in tokens


RANGES = {"width": (0, 1000), "seed": (0, 2 ** 62), "steps": (1, 1000), "guidance": (0, 100), "recall": (-1, 1),
          "temperature": (0, 100), "max_tokens": (1, 100_000), "memory": (0, 1000), "memory_tokens": (0, 10 ** 6),
          "context": (64, 10 ** 6), "previews": (0, 1000), "port": (0, 65535)}


# ---- the engine ------------------------------------------------------------------------------------------------------

@dataclass
class Event:
    """A piece of an answer. text: the next words; plan: thinking and instruction; preview: the picture as the model
    foresees it after some steps, or None; picture: the finished one."""
    kind: str                   # text, plan, preview or picture
    stage: str                  # who answers
    text: str = ""
    plan: tuple[str, ...] = ()
    image: Image.Image | None = None
    step: int = 0
    steps: int = 0
    shows: str = ""             # of a picture: the sentence that it was drawn from, if the model wrote one


Emit = Callable[[Event], None]  # an exception raised by it (Ctrl-C, a client that left) ends the answer


class Conversation:
    """One talk with one character. `turns` has what was said; an answer that was stopped keeps what had come."""
    def __init__(self, stages: Stages, options: Options, persona: Character | None = None, keep: bool = True):
        self.stages, self.options, self.who = stages, options, persona or stages.character
        self.turns: list[dict] = []
        self.prompt_tokens = 0                              # of what was sent last
        head = {"character": self.who.name, "opening": self.who.opening, "options": asdict(options),
                "stages": {stage: str(folder) for stage, folder in stages.folders.items()}}
        self.folder = TalkFolder(chat_folder(self.who), head) if keep else None

    def say(self, user: str, emit: Emit, stages: list[str] | None = None) -> None:
        """The user's line, answered in words and, if wanted, with a picture."""
        user = cleaned(user)

        def reply_and_draw(stage: str, answer: dict) -> None:
            self.reply(stage, user, answer, emit)
            if self.options.pictures:
                self.illustrate(stage, user, answer, emit)
        self.take_turn({"user": user}, stages, reply_and_draw)

    def show(self, image: Image.Image, question: str, emit: Emit, stages: list[str] | None = None) -> None:
        """Asks about a picture. The answers are curt, and a small model would copy that: no prompt repeats them."""
        question = cleaned(question) or DESCRIBE
        turn = {"shown": self.keep_picture(image, "shown"), "question": question}
        self.take_turn(turn, stages, lambda stage, answer: self.write(stage, question, answer, 0.0, emit, image))

    def draw(self, text: str, emit: Emit, stages: list[str] | None = None) -> None:
        """Draws what the text says, outside the dialogue."""
        text = cleaned(text)
        self.take_turn({"draw": text}, stages, lambda stage, answer: self.paint(stage, text, answer, emit))

    def take_turn(self, turn: dict, stages: list[str] | None, fill: Callable[[str, dict], None]) -> None:
        """Lets each stage fill its answer to the same line, with the same noise. Keeps what came, whatever ends it."""
        stages = stages or [self.stages.default]
        self.stages.check(*stages)
        turn |= {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "seed": self.seed,
                 "answers": {stage: {} for stage in stages}}
        try:
            for stage in stages:
                fill(stage, turn["answers"][stage])
        except BaseException:                               # Ctrl-C, a client that left, or an error
            turn["stopped"] = True
            raise
        finally:
            self.turns.append(turn)
            if self.folder:
                self.folder.add_turn(turn)

    # -- the three calls of the model --
    def reply(self, stage: str, user: str, answer: dict, emit: Emit) -> None:
        who, model, history = self.who, self.stages.model(stage), self.history(stage)
        prompt = partial(reply_prompt, who.name, who.description, who.opening, user)
        most = min(self.options.context, len(model.text_ids(prompt())) + self.options.memory_tokens)
        while history and len(model.text_ids(prompt(history))) > most:
            history = history[2:]
        known = self.stages.recall(stage, who, user)
        self.write(stage, prompt(history), answer, self.options.temperature, emit, recall=known)

    def illustrate(self, stage: str, user: str, answer: dict, emit: Emit) -> None:
        """A picture of what was just said: from the talk and a plan if thinking is on; else from a sentence that the model
        writes, or, where it does not name who is meant, from the talk alone."""
        who, plan, said = self.who, (), answer["text"].strip()
        if self.options.think:
            prompt = think_prompt(who.name, who.description, user, said)
            text = self.stages.model(stage).generate_text([prompt], max_tokens=self.options.max_tokens)[0]
            plan = read_plan(printable(text))
            answer["plan"] = plan
            emit(Event("plan", stage, "" if plan else printable(text), plan))
        elif self.stages.says_moments(stage, who):
            prompt, known = moment_prompt(who.name, user, said), self.stages.moment(stage, who, said)
            self.check_length(self.stages.model(stage), prompt)
            text = self.stages.model(stage).generate_text([prompt], max_tokens=MOMENT_TOKENS, recall=known)[0]
            if names_in(text, who.name):                    # else it would draw somebody else
                answer["moment"] = printable(text)
        prompt = answer.get("moment") or draw_prompt(who.name, who.description, user, said, *plan)
        self.paint(stage, prompt, answer, emit)

    def write(self, stage: str, prompt: str, answer: dict, temperature: float, emit: Emit,
              image: Image.Image | None = None, recall: Callable | None = None) -> None:
        model, answer["text"] = self.stages.model(stage), ""
        self.check_length(model, prompt)

        def stream(piece: str) -> None:
            piece = printable(piece) if answer["text"] else printable(piece).lstrip()
            answer["text"] += piece
            emit(Event("text", stage, piece))
            if goes_in_circles(answer["text"]):
                raise GoesInCircles
        try:
            model.generate_text([prompt], images=[image], max_tokens=self.options.max_tokens, temperature=temperature,
                                generator=torch.Generator().manual_seed(self.seed), stream=stream, recall=recall)
        except GoesInCircles:
            answer["lost"] = True                           # no prompt repeats it, or she would go on so

    def paint(self, stage: str, prompt: str, answer: dict, emit: Emit) -> None:
        model, previews = self.stages.model(stage), self.options.previews
        self.check_length(model, prompt)

        def on_step(step: int, steps: int, clean: torch.Tensor) -> None:
            due = step * (previews + 1) // steps > (step - 1) * (previews + 1) // steps and step < steps
            preview = model.decode(clean)[0] if due else None   # x - t v: what the model takes for the clean picture
            emit(Event("preview", stage, image=preview, step=step, steps=steps))
        image = model.sample_images([prompt], [self.seed], steps=self.options.steps, guidance=self.options.guidance,
                                    on_step=on_step)[0]
        answer["picture"] = self.keep_picture(image, stage)
        emit(Event("picture", stage, answer["picture"], image=image, shows=answer.get("moment", "")))

    def keep_picture(self, image: Image.Image, name: str) -> str:
        return self.folder.add_picture(image, f"{len(self.turns) + 1:03d}-{name}.png") if self.folder else ""

    def check_length(self, model: UniModel, prompt: str) -> None:
        self.prompt_tokens = len(model.text_ids(prompt))
        if self.prompt_tokens > (most := self.options.context):
            raise UserError(f"{self.prompt_tokens} tokens, more than {most}; say it in fewer words, or give --context")

    # -- what was said --
    @property
    def seed(self) -> int:
        return self.options.seed + len(self.turns)

    def history(self, stage: str) -> list[tuple[str, str]]:
        """The last turns of the dialogue. Where only another stage answered, its reply stands for this one's."""
        lines = []
        for turn in [turn for turn in self.turns if "user" in turn]:
            answers = [turn["answers"].get(stage, {}), *turn["answers"].values()]
            replies = [answer["text"].strip() for answer in answers
                       if answer.get("text", "").strip() and not answer.get("lost")]
            if replies:
                lines += [("User", turn["user"]), (self.who.name, replies[0])]
        return lines[max(0, len(lines) - 2 * self.options.memory):]


# ---- the terminal ----------------------------------------------------------------------------------------------------

class Terminal:
    """Prints what a Conversation reports. Every command is a method that takes the rest of the line."""
    def __init__(self, stages: Stages, options: Options):
        self.stages, self.options, self.stage = stages, options, stages.default
        graphics = choose_graphics(options.graphics, sys.stdout.isatty(), os.environ)
        if graphics == "none":
            options.previews = 0                            # nobody would see them
        self.display = Display("" if options.once else stages.character.name, graphics, options.width, options.out)
        self.talk = Conversation(stages, options)

    def show(self, rest: str) -> None:
        self.talk.show(*picture_and_question(rest), self.display.show, [self.stage])

    def draw(self, rest: str) -> None:
        self.talk.draw(rest, self.display.show, [self.stage])

    def compare(self, rest: str) -> None:
        self.display.stage = ""                             # so that every answer says whose it is
        self.talk.say(rest, self.display.show, list(self.stages.folders))

    def change_stage(self, rest: str) -> None:
        if rest:
            self.stages.check(rest)
            self.stage = rest
        for stage, folder in self.stages.folders.items():
            print(f"  {'*' if stage == self.stage else ' '} {stage:5} {folder}")

    def switch_thinking(self, rest: str) -> None:
        self.options.think = {"on": True, "off": False}.get(rest.lower(), not self.options.think)
        print(f"  planning pictures in words first: {'on' if self.options.think else 'off'}")

    def history(self, rest: str) -> None:
        for turn in self.talk.turns:
            print(f"  you: {turn.get('user') or turn.get('question') or turn.get('draw')}")
            for stage, answer in turn["answers"].items():
                print(f"  {stage}: {answer.get('text', '').strip()} {answer.get('picture', '')}".rstrip())
        print(f"  {self.where()}" if self.talk.turns else "  nothing was said yet")

    def where(self) -> str:
        return f"kept in {self.talk.folder.folder}" if self.talk.folder.folder else "not kept"

    def reset(self, rest: str) -> None:
        print(f"  forgotten; on the disk it is {self.where()}" if self.talk.turns else "  forgotten")
        self.talk = Conversation(self.stages, self.options)

    def leave(self, rest: str) -> None:
        raise EOFError                                      # as Ctrl-D

    def handle(self, line: str) -> bool:
        """One message of the user -> whether it was stopped. An error or Ctrl-C ends the message, not the talk."""
        commands = {"/show": self.show, "/draw": self.draw, "/compare": self.compare, "/stage": self.change_stage,
                    "/think": self.switch_thinking, "/history": self.history, "/reset": self.reset,
                    "/help": lambda rest: print(HELP), "/quit": self.leave, "/exit": self.leave}
        self.display.stage = self.stage
        try:
            line = cleaned(line)
            word, rest = re.match(r"(\S*)\s*(.*)", line, re.DOTALL).groups()
            word = word.lower()
            if word in ("/show", "/draw", "/compare") and not rest:
                print(f"  {word} what? /help shows how")
            elif word in commands:
                commands[word](rest)
            elif word.startswith("/"):
                print(f"  {printable(word)}: unknown; /help lists the commands")
            elif word:
                self.talk.say(line, self.display.show, [self.stage])
        except UserError as error:
            self.display.end()
            print(f"  {printable(str(error))}")
        except KeyboardInterrupt:
            self.display.end()
            print("  (stopped; Ctrl-C again leaves)")
            return True
        self.display.end()
        return False

    def run(self) -> None:
        who = self.talk.who
        say(f"{self.stages.introduction()}\nTo begin with: {' | '.join(first_lines(who))}\n/help lists the commands.\n")
        if who.opening:
            self.display.stage = self.stage
            self.display.show(Event("text", self.stage, who.opening))
            self.display.end()
            print()
        keyboard = Keyboard(chat_folder(who) / "history")
        stopped = False                                     # by Ctrl-C, just now
        with suppress(EOFError):                            # Ctrl-D, /quit
            while True:
                try:
                    stopped = self.handle(keyboard.read("you: "))
                except KeyboardInterrupt:
                    typed = keyboard.typed()                # Ctrl-C clears a line, as everywhere
                    if stopped and not typed:
                        break
                    stopped = not typed
                    print("\n  (Ctrl-C again leaves)" * stopped)
        keyboard.close()
        print(f"\nGoodbye. This talk is {self.where()}." if self.talk.turns else "\nGoodbye.")


# ---- the command -----------------------------------------------------------------------------------------------------

def check(options: Options) -> None:
    """Before anything is loaded: a mistake should not cost the wait for a 7B model, nor the picture it was to save."""
    if options.graphics not in ("auto", *PAINTERS, "none"):
        raise UserError(f"--graphics {options.graphics}: choose one of auto, {', '.join(PAINTERS)}, none")
    for field, (least, most) in RANGES.items():
        if not least <= getattr(options, field) <= most:        # in this order, so that nan fails too
            raise UserError(f"--{field.replace('_', '-')} {getattr(options, field)}: must be from {least} to {most}")
    if "--once" in options.argv and (not cleaned(options.once) or options.web):
        raise UserError("--once: has no words; say something" if not options.web else "--once, --web: choose one")
    drawn = options.once and options.pictures
    if options.out and (not drawn or os.path.isdir(options.out) or not options.out.lower().endswith(".png")):
        raise UserError(f"--out {options.out}: give a file that ends in .png, the words with --once, and pictures")


def main(argv: list[str] | None = None) -> None:
    options = parse_options(Options, __doc__.splitlines()[0], argv)
    check(options)
    start(options.device)
    stages = Stages(options.model, options.char, sft.Options.model, options.device, options.weights, options.recall)
    stages.model(stages.default)                            # the wait comes before the first word, not after it
    stages.recall(stages.default, stages.character, "hello")
    if options.web:
        serve(stages, options.port, lambda persona=None, keep=True, **changes: Conversation(
            stages, replace(options, **changes), persona, keep))
    elif options.once:
        if not stages.trained:
            print(stages.introduction(), file=sys.stderr)
        terminal = Terminal(stages, options)
        terminal.talk.say(options.once, terminal.display.show)
        terminal.display.end()
    else:
        Terminal(stages, options).run()


if __name__ == "__main__":
    run_script(main)
