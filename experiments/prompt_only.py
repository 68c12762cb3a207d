"""Baseline: prompt only. A real language model that nobody trains reads the profile and answers as the character.

    python experiments/prompt_only.py --lm path/to/SmolLM2-135M-Instruct.gguf --char coco
    python experiments/prompt_only.py --lm Qwen/Qwen2.5-VL-7B-Instruct --char coco --device cuda

--lm is a `transformers` chat model: a folder, a .gguf file (needs the packages `gguf` and `accelerate`) or a hub name.
It gets the words of the character's test: knowledge, facts said, bits per byte, variety, and with --judge the rubrics,
as eval.py asks them and by eval.py's own functions. Its table and eval.json lie in runs/<char>/prompt-only/<model>.
The profile stands in the system prompt, and each line of a user is a message: its own format, so it is at its best.

The other half of this baseline, the unified base with the profile in its prompt, is the column "base + profile" of
eval.py. It sees a reference picture only with --reference: the tiny base never drew from a picture that it was shown.

What it can do: sound fluent, and look up what the profile says. What it cannot: draw, or have the character's voice
beyond what a description tells. Bits per byte are comparable between tokenizers: those of a reply with its end, over
its bytes.
"""
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import runtime  # noqa: E402, F401     # first: before torch is loaded, see there

import json  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import torch  # noqa: E402

import eval as evaluation  # noqa: E402
from data import load_character, run_folder  # noqa: E402
from model import Example, UniModel  # noqa: E402
from runtime import judging, report  # noqa: E402
from runtime.cli import UserError, parse_options, run_script, say  # noqa: E402
from runtime.endpoint import LocalModel  # noqa: E402
from runtime.files import write_beside  # noqa: E402
from runtime.processes import pick_device, start  # noqa: E402
from runtime.stages import Stage  # noqa: E402


@dataclass
class Options(evaluation.Options):
    lm: str = ""                # the language model: a folder, a .gguf file, or a hub name
    char: str = "coco"          # a name under characters/, or a folder


class LanguageModel:
    """What eval.py asks of a UniModel when it is about words, answered by a causal language model."""
    readings, cross_entropy = UniModel.readings, UniModel.cross_entropy

    def __init__(self, name: str, system: str, device: str):
        found = LocalModel(name, device)
        self.device, self.system = pick_device(device), system
        self.lm = found.model.to(self.device)
        self.tokenizer = getattr(found.reader, "tokenizer", found.reader)
        self.language_model = SimpleNamespace(lm_head=self.lm.get_output_embeddings())
        try:
            self.message("Hello!")
        except Exception as error:                          # whatever its template raises
            raise UserError(f"--lm {name}: takes no system prompt ({error}); give a chat model that does") from None

    def message(self, prompt: str) -> list[int]:
        """The tokens of a talk in which it is the assistant's turn to answer the prompt."""
        talk = [{"role": "system", "content": self.system}, {"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
        return self.tokenizer.encode(text, add_special_tokens=False)

    def prepare(self, sample) -> Example:
        """As UniModel.prepare: `labels` has the next token where it belongs to the response or its end."""
        given = self.message(sample.prompt)
        learned = self.tokenizer.encode(sample.response, add_special_tokens=False) + [self.tokenizer.eos_token_id]
        labels = [-100] * (len(given) - 1) + learned + [-100]
        return Example(torch.tensor(given + learned), torch.tensor(labels), torch.arange(len(labels)))

    def context(self, prompts, images=None):
        """Nothing is read before: every example holds its whole talk."""
        return SimpleNamespace(rows=lambda index: None)

    def extend(self, context, ids):
        """ids (B, n), padding last -> hidden states (B, n, C), and no longer context. What all rows begin with, the
        long system prompt, is read once."""
        same = (ids == ids[0]).all(0).int().cumprod(0).sum()
        n = min(int(same), ids.shape[1] - 1)
        read = self.lm.base_model(input_ids=ids[:1, :n], use_cache=True)
        cache = read.past_key_values
        cache.batch_repeat_interleave(len(ids))
        rest = self.lm.base_model(input_ids=ids[:, n:], past_key_values=cache).last_hidden_state
        return torch.cat((read.last_hidden_state.expand(len(ids), -1, -1), rest), 1), None

    @torch.no_grad()
    def generate_text(self, prompts, images=None, max_tokens=200, temperature=0.0, generator=None) -> list[str]:
        rows = [self.message(prompt) for prompt in prompts]
        longest = max(map(len, rows))
        padding = self.tokenizer.eos_token_id
        ids = [[padding] * (longest - len(row)) + row for row in rows]
        real = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        how = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        torch.manual_seed(generator.initial_seed() if generator else 0)
        made = self.lm.generate(input_ids=torch.tensor(ids, device=self.device), max_new_tokens=max_tokens,
                                attention_mask=torch.tensor(real, device=self.device), pad_token_id=padding, **how)
        return [self.tokenizer.decode(row[longest:], skip_special_tokens=True).strip() for row in made]


class Prompted(Stage):
    """Its description is in the system prompt already, so a line is asked as it is."""
    def asked(self, name: str, line: str) -> str:
        return line


def system_prompt(character) -> str:
    return (f"You are {character.name}. {character.description}\n{character.profile}\n{character.opening}\n"
            f"Answer as {character.name} would, in one or two sentences.")


def main(argv=None):
    o = evaluation.check(parse_options(Options, __doc__, argv))
    if not o.lm:
        raise UserError("--lm: give a chat model, as a folder, a .gguf file or a hub name")
    name = Path(o.lm).name.removesuffix(".gguf")
    out = Path(o.out) if o.out else run_folder(o.char, "prompt-only") / name
    if o.read_scores:
        return judging.read_again(o, out)
    start(o.device)
    character = load_character(o.char)
    exam = evaluation.examination(character, o)
    exam.choices = {"knowledge": exam.choices["knowledge"], "vqa": [], "vqa_seen": [], "identity_vqa": []}
    out.mkdir(parents=True, exist_ok=True)                  # now, not after minutes of work
    stage = Prompted(name, o.lm, character.name)
    model = LanguageModel(o.lm, system_prompt(character), o.device)

    values, told = evaluation.text_values(model, stage, exam, o)
    record = asdict(stage) | {"system": model.system, "values": values, "told": told,
                              "figures": report.figures_of(values, values, {}, [])}
    guessed = evaluation.guesses(character, exam, {name: record}, o)
    rows = report.table({name: record["figures"]}, guessed)
    say(report.aligned(rows))
    write_beside(out / "table.md", lambda file: file.write_text(report.markdown(rows), "utf-8"))
    result = {"character": exam.name, "options": asdict(o), "guessing": guessed, "judge": {}, "stages": {name: record}}
    text = json.dumps(result, indent=1, default=report.as_json)
    write_beside(out / "eval.json", lambda file: file.write_text(text, "utf-8"))
    if exam.judged:
        judging.run(evaluation.word_requests(character, exam, {name: told["judged"]}).rows, o, out)
    say(f"written to {out}: table.md, eval.json")


if __name__ == "__main__":
    run_script(main)
