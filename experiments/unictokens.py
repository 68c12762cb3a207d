"""Baseline: UniCTokens (arXiv 2505.14671). The whole model stays frozen; a few new words learn who the character is.

    python experiments/unictokens.py --char coco                        -> runs/coco/unictokens
    python eval.py --char coco --also runs/coco/unictokens              a column of its own in the table

A concept is a few new entries of the vocabulary, and their rows of the embedding table are all that learns. In prompts
they stand where the name stood:

    to understand    16 shared, 8 perceived (from stage 3 on), 1 concept     questions, talk, pictures that are shown
    to draw          16 shared, 8 drawing, 1 concept                         pictures

Three stages, each a third of --steps. The point of the paper is what one hands on to the next:

    1. understanding warms up         concept and shared tokens learn from answers in words       CE
    2. drawing from understanding     the drawing tokens join them                                0.2 CE + 0.8 MSE
    3. perceiving by drawing          perceived tokens begin as patches of what the model itself
                                      now draws; they and the concept token learn                 0.2 CE + 0.8 MSE

Where it differs from the published code (on Show-o 1.3B):
1. Its shared tokens begin as cluster centres of the embedded patches of the true pictures, and its perceived tokens of
   half-drawn ones. Ours begin as some of the patches, and the drawn pictures are finished. Its drawing tokens begin at
   random or as embedded faces, ours as patches too.
2. It also learns the new rows of the output layer, so that it can say the concept. Our replies say the name. So these
   rows are copies of the row of a token that is never said, and rest.
3. It also asks of other pictures whether they show the concept. Ours asks that of the concept's own pictures alone.
4. Ours keep the description in the prompts, as all methods of the table do.

What it can do: learn a word for somebody. Nothing else moves, so nobody else can become the character. What it cannot:
let the model draw or say what no prompt of 25 words could call up. (`wording` in config.json tells eval.py and chat.py
how to ask: see UniModel.worded.)
"""
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import runtime  # noqa: E402, F401     # first: before torch is loaded, see there

import torch  # noqa: E402

import sft  # noqa: E402
from backbone.folders import load, locate  # noqa: E402
from backbone.lora import compile_layers  # noqa: E402
from data import class_word, run_folder, training_samples  # noqa: E402
from runtime.cli import UserError, parse_options, run_script  # noqa: E402
from runtime.processes import gradient_norm, start, world_size  # noqa: E402
from runtime.runs import Means, Run  # noqa: E402

TABLE = "language_model.model.embed_tokens.weight"
TOKENS = {"concept": 1, "shared": 16, "drawing": 8, "perceived": 8}
LEARN = (("concept", "shared"), ("concept", "shared", "drawing"), ("concept", "perceived"))         # stage by stage
UNDERSTAND = (("shared", "concept"), ("shared", "concept"), ("shared", "perceived", "concept"))
DRAW = ("shared", "drawing", "concept")


@dataclass
class Options(sft.Options):
    mix: str = "reply=24,fact=8,think=1,moment=4,knowledge=4,vqa=4,t2i=5,t2i_dialogue=1,t2i_plan=1"    # Samples per step; in
    #                               stage 1 those that are answered in words alone
    out: str = ""                 # the run's folder; empty = runs/<char>/unictokens
    lr: float = 1e-3              # AdamW, as published
    und_rate: float = 1.0         # times lr: the rate of the table


@torch.no_grad()
def add_tokens(model) -> dict[str, list[int]]:
    """Makes room in tokenizer, embedding table and output layer -> the ids of the new tokens."""
    names = {kind: [f"<{kind}_{i}>" for i in range(count)] for kind, count in TOKENS.items()}
    model.tokenizer.add_tokens([name for some in names.values() for name in some])
    lm = model.language_model
    for part in (lm.model.embed_tokens, lm.lm_head):
        more = max(0, len(model.tokenizer) - len(part.weight))            # BAGEL's tables have rows to spare
        part.weight = torch.nn.Parameter(torch.cat((part.weight, part.weight[:1].repeat(more, 1))))
    ids = {kind: model.tokenizer.convert_tokens_to_ids(some) for kind, some in names.items()}
    lm.lm_head.weight[sum(ids.values(), [])] = lm.lm_head.weight[model.soi].clone()
    model.config.vocab_size = len(lm.lm_head.weight)
    return ids


def wording(name: str, stage: int) -> dict:
    """How prompts name the character: all its tokens once, then the concept token alone."""
    def called(kinds):
        tokens = "".join(f"<{kind}_{i}>" for kind in kinds for i in range(TOKENS[kind]))
        return [tokens, "<concept_0>"]
    return {"name": name, "write": called(UNDERSTAND[stage]), "draw": called(DRAW)}


@torch.no_grad()
def begin_as_patches(model, table, rows: list[int], images: list):
    """Rows of the table become embedded patches of the pictures, evenly chosen, with the length of a usual row."""
    patches = []
    for image in images:
        und, _ = model.embed_und(model.readings([None], [image]))         # SOI, patches, EOI, padding
        patches.append(und[0, 1:1 + len(model.patches(image)[1])].float())
    patches = torch.cat(patches)                                                                    # (n, C)
    chosen = patches[torch.linspace(0, len(patches) - 1, len(rows), device=patches.device).long()]
    table[rows] = chosen * (table.norm(dim=1).median() / chosen.norm(dim=1, keepdim=True))


def main(argv=None):
    options = parse_options(Options, __doc__, argv)
    options.precision = start(options.device, options.precision)
    if options.backbone or world_size() > 1:
        raise UserError("UniCTokens: give a base that can draw with --model, without --backbone, and one process")
    character = sft.chosen_character(options)
    samples, name = training_samples(character), character.name
    folder = Path(options.out) if options.out else run_folder(options.char, "unictokens")
    begins_with = {"model": Path(locate(options.model)), "char": samples, "steps": [options.steps]}
    run = Run(folder, "unictokens", options, options.steps, character, begins_with)

    model = load(options.model, options.device, options.weights, options.image_size).train()
    ids = add_tokens(model)
    trained = sft.trainable_parameters(model, options, lambda name: name == TABLE)
    if options.compile:
        compile_layers(model)
    table = trained[TABLE]
    begin_as_patches(model, table, ids["shared"] + ids["drawing"], [scene["image"] for scene in character.scenes])
    table.data[ids["concept"]] = table.data[model.text_ids(class_word(character.description))].mean(0)
    learning = torch.zeros(len(table), 1, device=model.device)            # 1 for the rows that learn
    table.register_hook(lambda gradient: gradient * learning)             # Adam leaves alone what never had a gradient
    optimizer = sft.make_optimizer(trained, options)
    run.restore(model, trained, optimizer)

    examples, mixes = [], []
    for stage in range(3):
        model.wording = wording(name, stage)
        examples.append(sft.prepare_examples(model, samples))
        mixes.append(sft.parse_mix(options.mix, set(examples[stage])))
    in_words = {task: count for task, count in mixes[0].items() if examples[0][task][0].latent is None}
    mixes[0] = in_words or mixes[0]                                       # a bare character has pictures alone
    begins = [i * options.steps // 3 for i in range(3)]
    shown, drawn = sft.grid_prompts(character), [scene["draw"] for scene in character.scenes[:8]]

    for step in run.steps():
        means, stage = Means(step), sum(step >= begin for begin in begins) - 1
        model.wording = wording(name, stage)
        learning.zero_()[[row for kind in LEARN[stage] for row in ids[kind]]] = 1
        if step in begins:
            optimizer.state.clear()                                       # its momentum would move rows that rest now
        if step == begins[2]:
            with model.autocast(options.precision):
                begin_as_patches(model, table, ids["perceived"], model.sample_images(drawn, range(len(drawn))))
        sft.set_learning_rate(optimizer, step, options)
        batch = sft.next_batch(examples[stage], mixes[stage], options.seed, step, options.drop_text)
        means("loss", sft.accumulate(model, batch, options, means))
        means("grad_norm", gradient_norm(trained.values(), options.clip))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.log({"stage": stage + 1, **means.result()})
        if run.due(options.sample_every):
            run.sample_grid(shown)
    run.finish("eval.py", "--char", options.char, "--also", folder)


if __name__ == "__main__":
    run_script(main)
