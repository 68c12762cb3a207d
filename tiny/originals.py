"""The pictures of the shipped original characters: creatures of the drawn world, with features that no random one has.

    python -m tiny.originals --char coco                draws characters/coco/train/*.png and test/*.png anew
    python -m tiny.originals --char coco --diversity    how unlike true pictures of one held-out prompt are: the scale
                                                        of that figure

Nothing that is trained imports this file. What an original looks like, and what its pictures show, is data:
originals/<name>.json. Its texts are in characters/<name>/character.json, written by hand.
"""
import runtime  # noqa: F401     # first: before torch is loaded, see there

import json
import random
from dataclasses import dataclass
from pathlib import Path

from data import load_character
from rewards import ClipJudge, diversity
from runtime.cli import UserError, parse_options, run_script
from tiny.world import Look, Scene, draw
from tiny.world.scene import ATTRIBUTES, random_scene

HERE = Path(__file__).resolve().parent


@dataclass
class Options:
    char: str = "coco"            # a name of originals/<name>.json
    diversity: bool = False       # measure, draw nothing anew


@dataclass(frozen=True)
class Original:
    name: str                     # its folder under characters/
    names: dict[str, str]         # species and fur as words: at least one of them is no random creature's
    look: Look
    bare: dict[str, str]          # attributes that stay so in a picture whose prompt does not tell them
    pictures: dict[str, dict]     # file -> attributes of its Scene


def load_original(name: str) -> Original:
    """Raises UserError for an unknown name."""
    path = HERE / "originals" / f"{name}.json"
    if not path.exists():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.json")))
        raise UserError(f"--char {name}: no such original; known are: {known}")
    facts = json.loads(path.read_text())
    facts["look"] = Look(**{part: as_tuple(value) for part, value in facts["look"].items()})
    return Original(name, **facts)


def as_tuple(value):
    """Colors are lists in JSON and tuples for the pen."""
    return tuple(as_tuple(inner) for inner in value) if isinstance(value, list) else value


def drawn_truly(original: Original, prompt, seed: int, fixed: dict):
    """What the questions of a prompt tell, the original's own clothes, `fixed`, and everything else by chance."""
    told = {question.category: question.answer for question in prompt.questions if question.category in ATTRIBUTES}
    bare = dict(original.bare)
    for thing, where in (("beside", "side"), ("hat", "hat_color")):
        if thing in told:
            bare.pop(where, None)
    scene = random_scene(random.Random(seed), **{**original.names, **bare, **fixed, **told})
    return draw(scene, original.look, size=128)


def true_diversity(original: Original, fixed: dict, seeds: int = 3) -> float:
    """The figure that eval.py calls diversity, of pictures that are all that was asked for."""
    judge, prompts = ClipJudge(), load_character(original.name).test["prompts"]
    pictures = [drawn_truly(original, prompt, 100 * i + seed, fixed)
                for i, prompt in enumerate(prompts) for seed in range(seeds)]
    return float(diversity(judge.embed(pictures)[1].view(len(prompts), seeds, -1)).mean())


def main(argv=None):
    options = parse_options(Options, __doc__, argv)
    original = load_original(options.char)
    if options.diversity:
        middle = {"position": "center", "framing": "full"}
        varied, still = true_diversity(original, {}), true_diversity(original, middle)
        print(f"true pictures of a held-out prompt: diversity {varied:.3f} if what it leaves open varies, "
              f"{still:.3f} if the character stands whole in the middle")
        return
    folder = HERE.parent / "characters" / original.name
    for name, attributes in original.pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(Scene(**original.names, **attributes), original.look, size=256).save(path, optimize=True)


if __name__ == "__main__":
    run_script(main)
