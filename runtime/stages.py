"""Which stages of a character are there to be compared, and how each is loaded without a second model in memory."""
import sys
from dataclasses import dataclass
from pathlib import Path

from backbone.folders import base_of, load, locate, put_adapter
from data import Character, reply_prompt, run_folder
from model import UniModel
from runtime.cli import UserError, say


@dataclass
class Stage:
    """A column of eval.py."""
    name: str
    folder: str
    about: str                  # the description that it is given when it has to reply
    opening: str = ""
    before: str = ""            # what stands before every question ...
    scene: str = ""             # ... and before every drawing instruction

    def asked(self, name: str, line: str) -> str:
        """The prompt in which the character is told a line."""
        return reply_prompt(name, self.about, self.opening, line)


def find_base(stage_1: Path) -> str:
    """The folder of what this stage 1 began with; where there is none, the embedded base."""
    return base_of(stage_1) if (stage_1 / "config.json").exists() else locate("tiny/base")


def find_stages(character: Character, char: str, base: str, sft: str = "", grpo: str = "",
                also: str = "") -> list[Stage]:
    """The stages that exist. `base`, `sft` and `grpo` are folders; an empty one is runs/<char>/<stage>, and if that is
    missing, it is told and skipped. "none" is left out. `also`: folders of other methods, commas between, each called
    as its folder."""
    about, opening = character.description, character.opening
    # A small base has seen no longer prompts than this, and before a picture only short ones.
    profile = " ".join((character.profile or about).split()[:200])
    stages = [Stage("base", base, character.name),
              Stage("base + profile", base, profile, opening, f"{profile}\n",
                    f"Description: {about}\n")]
    for folder in also.split(",") if also else []:
        name = Path(folder).name
        if not Path(folder, "config.json").exists():
            raise UserError(f"--also {folder}: no checkpoint there; give folders, commas between")
        if name in [stage.name for stage in stages]:
            raise UserError(f"--also {folder}: another one is called {name} too; rename the folder")
        stages.append(Stage(name, folder, about, opening))
    for name, given, usual in (("SFT", sft, "sft"), ("SFT + GRPO", grpo, "grpo")):
        if given == "none":
            continue
        folder = given or str(run_folder(char, usual))
        there = Path(folder, "config.json").exists()
        if given and not there:
            raise UserError(f"--{usual} {folder}: no checkpoint there; "
                            f"give a folder such as runs/coco/{usual}")
        if there:
            stages.append(Stage(name, folder, about, opening))
        else:
            say(f"{name}: nothing in {folder} yet, skipped", sys.stderr)
    return stages


def load_stage(stage: Stage, base: UniModel, device: str, weights: str, image_size: int) -> UniModel:
    """A stage's model: the base itself, wherever possible, perhaps under adapters. Two models of 7B would need two
    GPUs."""
    home = base.folder.resolve()
    if Path(stage.folder).resolve() == home:
        return base
    adapter = Path(stage.folder, "adapter_config.json").exists()
    if adapter and Path(base_of(stage.folder)).resolve() == home:
        return put_adapter(base, Path(stage.folder))
    return load(stage.folder, device, weights, image_size)
