"""Baseline: DreamBooth (arXiv 2208.12242). Only the drawing side learns, and it learns a face without a person.

    python experiments/dreambooth.py --char coco                        -> runs/coco/dreambooth
    python eval.py --char coco --also runs/coco/dreambooth              a column of its own in the table

The method, for a model that draws from text: take the few pictures of a subject and call it by a rare identifier before
the noun of its class, "sks small sea otter cub". The identifier means nothing yet, so it can come to mean this one; the
noun lends all that is known of such beings. Fine-tune on

    loss = MSE(pictures of the subject)  +  MSE(pictures that the model itself drew of the class noun)

The second term, prior preservation, keeps the class from becoming the subject. Both are the flow-matching loss of
sft.py, with as many prior pictures in a step as own ones, as published. The gen expert and the image head learn.

Where it differs from the paper:
1. The paper's prompts are "a [V] [class noun]". Ours are the character's own sentences, the name in them replaced by
   identifier and noun. So all methods of the table see the same words and pictures.
2. The prior's prompt is the class noun alone, as published. Stage 1 (sft.py) draws other beings too.
3. What reads stays frozen. Many implementations train the text encoder too. Which weights the UniCharacter paper
   trained for this baseline on BAGEL is not known.

What it can do: draw the character. What it cannot: speak as the character, know a fact about it, plan a picture. In
words the checkpoint is the base. It remembers the identifier (`wording` in config.json, UniModel.worded), so eval.py and
chat.py ask by name as always. Options of sft.py that concern words do nothing here.
"""
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import runtime  # noqa: E402, F401     # first: before torch is loaded, see there

import sft  # noqa: E402
from backbone.folders import load, locate  # noqa: E402
from backbone.lora import compile_layers  # noqa: E402
from data import class_word, run_folder, training_samples  # noqa: E402
from runtime.cli import UserError, parse_options, run_script  # noqa: E402
from runtime.processes import gradient_norm, start  # noqa: E402
from runtime.runs import Means, Run  # noqa: E402


@dataclass
class Options(sft.Options):
    mix: str = "t2i=10,prior=10"  # Samples per step: own pictures, and what the base drew of the class noun
    out: str = ""                 # the run's folder; empty = runs/<char>/dreambooth
    identifier: str = "sks"       # the word that comes to mean the character: a rare one
    class_word: str = ""          # the character's kind, such as "a cat"; empty: read from the description


def identifier_and_noun(character, options: Options) -> str:
    """"a small sea otter cub" -> "sks small sea otter cub"."""
    kind = options.class_word or class_word(character.description)
    return f"{options.identifier} {kind.removeprefix('an ').removeprefix('a ')}"


def main(argv=None):
    options = parse_options(Options, __doc__, argv)
    if options.backbone:
        raise UserError("--backbone: DreamBooth needs a base that can draw; give one with --model")
    options.precision = start(options.device, options.precision)
    character = sft.chosen_character(options)
    own_samples = [sample for sample in training_samples(character) if sample.task == "t2i"]
    begins_with = {"model": Path(locate(options.model)), "char": own_samples}
    folder = Path(options.out) if options.out else run_folder(options.char, "dreambooth")
    run = Run(folder, "dreambooth", options, options.steps, character, begins_with)

    model = load(options.model, options.device, options.weights, options.image_size).train()
    trained = sft.trainable_parameters(model, options, sft.is_generation_weight)
    if options.compile:
        compile_layers(model)
    prior = []
    if "prior" in sft.parse_mix(options.mix, {"t2i", "prior"}):
        noun = options.class_word or class_word(character.description)
        prior = sft.drawn_prior(model, [noun] * options.prior_pictures, options)
    called = identifier_and_noun(character, options)
    model.wording = {"name": character.name, "draw": [called, called]}
    run.say(f"in prompts for pictures, {character.name} is now called: {called}")
    examples = sft.prepare_examples(model, own_samples + prior)
    mix = sft.parse_mix(options.mix, set(examples))
    optimizer = sft.make_optimizer(trained, options)
    run.restore(model, trained, optimizer)
    shown = sft.grid_prompts(character)

    for step in run.steps():
        means = Means(step)
        sft.set_learning_rate(optimizer, step, options)
        batch = sft.next_batch(examples, mix, options.seed, step, options.drop_text)
        means("loss", sft.accumulate(model, batch, options, means))
        means("grad_norm", gradient_norm(trained.values(), options.clip))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.log(means.result())
        if run.due(options.sample_every):
            run.sample_grid(shown)
    run.finish("eval.py", "--char", options.char, "--also", folder)


if __name__ == "__main__":
    run_script(main)
