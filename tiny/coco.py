"""The pictures of Coco, the shipped character: an otter cub with features that no creature of the random world has.

    python -m tiny.coco                 draws characters/coco/train/*.png and test/*.png anew
    python -m tiny.coco --diversity     how unlike true pictures of one held-out prompt are: the scale of that figure

Nothing that is trained imports this file. Coco's texts are in characters/coco/character.json, written by hand.
"""
import runtime  # noqa: F401     # first: before torch is loaded, see there

import random
from dataclasses import dataclass
from pathlib import Path

from data import load_character
from rewards import ClipJudge, diversity
from runtime.cli import parse_options, run_script
from tiny.world import Look, Scene, draw
from tiny.world.scene import ATTRIBUTES, random_scene


@dataclass
class Options:
    diversity: bool = False       # measure, draw nothing anew


NAMES = {"species": "otter", "fur": "teal"}           # of the world's words, those that no creature there has
LOOK = Look(species="otter", fur=(38, 158, 152), mask=(252, 238, 208), ears="low", mark="star", cheeks=(255, 127, 104),
            scarf=((255, 118, 96), (255, 250, 242)), coat=(226, 168, 40), tail="thick")
PICTURES = {
    "train/0.png": dict(pose="waving", held="lantern", held_color="red", hand="right", place="harbor",
                        weather="starry night", jitter=100),
    "train/1.png": dict(expression="laughing", pose="arms up", beside="bucket", beside_color="blue", side="left",
                        place="beach", weather="sunny", jitter=101),
    "train/2.png": dict(held="cup", held_color="white", hand="right", place="kitchen", position="left", jitter=102),
    "train/3.png": dict(expression="sleepy", pose="sitting", held="book", held_color="blue", hand="left",
                        place="bedroom", jitter=103),
    "train/4.png": dict(expression="surprised", pose="arms up", beside="snowman", side="right", place="mountains",
                        weather="snowy", position="left", jitter=104),
    "train/5.png": dict(expression="sad", held="umbrella", held_color="purple", hand="left", place="forest",
                        weather="rainy", position="right", jitter=105),
    "train/6.png": dict(expression="angry", pose="hands on hips", beside="treasure chest", side="left", place="harbor",
                        weather="cloudy", position="right", jitter=106),
    "train/7.png": dict(expression="winking", pose="", held="letter", hand="right", place="library", framing="close",
                        jitter=107),
    "train/8.png": dict(expression="laughing", pose="waving", held="kite", held_color="orange", hand="left",
                        weather="sunny", position="left", jitter=108),
    "train/9.png": dict(hat="party hat", hat_color="pink", pose="waving", held="balloon", held_color="green",
                        hand="left", place="city", weather="cloudy", framing="close", jitter=109),
    "test/0.png": dict(pose="sitting", held="spoon", hand="left", beside="campfire", side="right", place="beach",
                       weather="starry night", position="left", jitter=200),
    "test/1.png": dict(expression="laughing", pose="waving", held="fish", held_color="orange", hand="right",
                       place="harbor", weather="sunny", position="right", jitter=201),
    "test/2.png": dict(expression="surprised", pose="", held="key", hand="left", weather="cloudy", framing="close",
                       jitter=202),
    "test/3.png": dict(expression="laughing", pose="", held="kite", held_color="red", hand="right", place="beach",
                       weather="cloudy", framing="close", jitter=203),
    "test/4.png": dict(expression="angry", pose="waving", held="umbrella", held_color="yellow", hand="right",
                       beside="tent", beside_color="yellow", side="left", place="harbor", weather="rainy",
                       position="right", jitter=204),
    "test/5.png": dict(expression="winking", pose="sitting", held="cup", held_color="green", hand="left",
                       beside="treasure chest", side="left", place="library", position="right", jitter=205),
    "test/6.png": dict(expression="surprised", pose="arms up", held="balloon", held_color="purple", hand="left",
                       place="moon", jitter=206),
    "test/7.png": dict(expression="angry", held="spoon", hand="left", place="kitchen", jitter=207),
}


def drawn_truly(prompt, seed: int, fixed: dict):
    """What the questions of a prompt tell, Coco's own clothes, `fixed`, and everything else by chance."""
    told = {question.category: question.answer for question in prompt.questions if question.category in ATTRIBUTES}
    bare = dict(top="", top_color="", hat="", hat_color="", eyewear="", beside="", side="")
    for thing, where in (("beside", "side"), ("hat", "hat_color")):
        if thing in told:
            del bare[where]
    scene = random_scene(random.Random(seed), **{**NAMES, **bare, **fixed, **told})
    return draw(scene, LOOK, size=128)


def true_diversity(fixed: dict, seeds: int = 3) -> float:
    """The figure that eval.py calls diversity, of pictures that are all that was asked for."""
    judge, prompts = ClipJudge(), load_character("coco").test["prompts"]
    pictures = [drawn_truly(prompt, 100 * i + seed, fixed) for i, prompt in enumerate(prompts) for seed in range(seeds)]
    return float(diversity(judge.embed(pictures)[1].view(len(prompts), seeds, -1)).mean())


def main(argv=None):
    if parse_options(Options, __doc__, argv).diversity:
        middle = {"position": "center", "framing": "full"}
        print(f"true pictures of a held-out prompt: diversity {true_diversity({}):.3f} if what it leaves open varies, "
              f"{true_diversity(middle):.3f} if she stands whole in the middle")
        return
    folder = Path(__file__).resolve().parent.parent / "characters" / "coco"
    for name, attributes in PICTURES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(Scene(**NAMES, **attributes), LOOK, size=256).save(path, optimize=True)


if __name__ == "__main__":
    run_script(main)
