"""Makes everything that tiny/ holds from nothing but code, two packages of English and a table of word vectors.

    pip download --no-deps -d runs/tiny/packages chitchat-dataset chatterbot-corpus wordllama
    python -m tiny.build                        all legs, in order; eight hours of one CPU core, estimated
    python -m tiny.build --only words           one leg
    torchrun --nproc-per-node 2 -m tiny.build --only drawing         one leg on two cores
    python -m tiny.build --quick                every leg at toy size, in another folder: does it run?

    leg          what it makes                                                        from
    pictures     the drawn world, as pixels                                           code
    tokenizer    byte-level BPE                                                       English, the invented language
    vision       the vision encoder, which names what it sees                         pictures
    words        the understanding expert: reads, sees, talks                         vision, tokenizer, vectors
    autoencoder  pixels <-> latents                                                   pictures
    latents      every picture as latents                                             autoencoder
    drawing      the generation expert: draws what was read                           words, latents
    worn         latents as the base leaves them                                      drawing
    decoder      the autoencoder's decoder, finished on those                         worn
    pairs        pictures as the base would draw them, for the judges                 decoder
    judge, identity, reader                                                           pairs
    export       half precision into tiny/
    measure      what the exported base can do -> measured.json

Every leg saves as it goes and can be killed at any moment: the same command goes on where it was, and what is done is
left alone. Logs are JSON lines with CPU minutes, sample grids PNG, all in --work. A reader of the method never needs
this file.
"""
import runtime  # noqa: F401     # first: before torch is loaded, see there

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from backbone.folders import load, save
from backbone.vision import to_images
from model import Config, UniModel
from runtime.cli import UserError, parse_options, run_script
from runtime.processes import is_main, start
from tiny import world
from tiny.training import attributes, autoencoder, drawing, judges, measure, words
from tiny.training.grids import sample_grid
from tiny.training.pictures import WORN, Pictures, done_so_far, load_autoencoder, write_text
from tiny.training.tokenizer import make_tokenizer
from tiny.training.trainer import Trainer, as_written, autocast

HERE = Path(__file__).resolve().parent


@dataclass
class Options:
    work: str = "runs/tiny"               # where pictures, logs and unfinished weights are
    packages: str = ""                    # the folder of the three wheels; empty: <work>/packages
    only: str = ""                        # one leg
    quick: bool = False                   # toy sizes, in <work>-quick
    scenes: int = 60000                   # single pictures
    moments: int = 20000                  # pictures with a persona and a dialogue
    triplets: int = 4000                  # creatures that are seen three times each
    held_out: int = 1000                  # scenes that nothing trains on
    steps_autoencoder: int = 3000
    steps_vision: int = 4500
    steps_words: int = 5200
    steps_drawing: int = 6000
    steps_decoder: int = 1900
    steps_judge: int = 2500
    steps_identity: int = 1500
    steps_reader: int = 5000
    worn: int = 6000                      # worn latents, and a third as many drawn from noise


QUICK = dict(scenes=700, moments=300, triplets=80, held_out=512, steps_autoencoder=3, steps_vision=2, steps_words=2,
             steps_drawing=2, steps_decoder=2, steps_judge=2, steps_identity=2, steps_reader=2, worn=40)


class Build:
    """The legs, each a method of its name."""

    LEGS = ("pictures", "tokenizer", "vision", "words", "autoencoder", "latents", "drawing", "worn", "decoder",
            "pairs", "judge", "identity", "reader", "export", "measure")

    def __init__(self, options: Options):
        self.o, self.work = options, Path(options.work)
        self.packages = Path(options.packages or self.work / "packages")
        self.data = Pictures(self.work, options.scenes, options.moments, options.triplets, options.held_out)
        self.done_file = self.work / "legs.json"

    def run(self):
        self.data.check()
        for leg in [self.o.only] if self.o.only else self.LEGS:
            if leg in self.done() and not self.o.only:
                continue
            print(f"== {leg}", flush=True)
            getattr(self, leg)()
            if not is_main():
                continue
            done = self.done()                             # read again: another process may have made another leg
            write_text(self.done_file, json.dumps([name for name in self.LEGS if name in done or name == leg]))

    def done(self) -> list[str]:
        return json.loads(self.done_file.read_text()) if self.done_file.exists() else []

    # -- the world and its words --
    def pictures(self):
        self.data.render()

    def tokenizer(self):
        make_tokenizer(self.work / "tokenizer", self.packages)

    # -- the base --
    def vision(self):
        self.train_judge("vision", attributes.VisionEncoder)

    def new_model(self, **more) -> UniModel:
        from transformers import AutoTokenizer
        torch.manual_seed(1)
        model = UniModel(Config(**more), AutoTokenizer.from_pretrained(self.work / "tokenizer"))
        model.init_weights()
        return model

    def base(self, name: str) -> UniModel:
        """The base as a leg left it."""
        return load(self.work / name, "cpu").float()

    def words(self):
        model = self.new_model()
        model.vit_model["vision_model"].load_state_dict(load_file(self.work / "vision.safetensors"))
        texts = words.Texts(self.packages)
        held_out = [(f"{before}\n{line}" if before else line, answer)
                    for before, line, answer in texts.english if texts.held_out(line)][:300]

        def look(step):
            with as_written(model):
                found = measure.words(model.eval(), held_out) | {"vqa": measure.vqa(model, self.data)}
                said = measure.samples(model)
            model.train()
            trainer_log(self.work / "words.jsonl", {"step": step, **found})
            print(said, flush=True)

        words.train_words(model, self.work, self.packages, self.data, self.o.steps_words, look)
        save(model, self.work / "words", {"stage": "words"})

    def autoencoder(self):
        autoencoder.train_autoencoder(self.work, Config(), self.data, self.o.steps_autoencoder)

    def latents(self):
        self.data.encode()

    def drawing(self):
        scale = json.loads((self.work / "scale.json").read_text())
        model = self.new_model(**scale)
        model.load_state_dict(self.base("words").state_dict())
        model.vae.load_state_dict(load_file(self.work / "ae.safetensors"))

        def look(step):
            scenes, captions = measure.held_out_scenes(16)
            with as_written(model), autocast():
                drawn = model.sample_images(captions, range(16), 15)
            true = [world.draw(scene) for scene in scenes]
            sample_grid([true[:8], drawn[:8], true[8:], drawn[8:]], self.work / "drawing.png")

        drawing.train_drawing(model, self.work, self.data, self.o.steps_drawing, look=look)
        if is_main():
            save(model, self.work / "drawing", {"stage": "pretrain", "step": self.o.steps_drawing})

    # -- the decoder, finished on what the base leaves --
    def worn(self):
        autoencoder.make_worn_latents(self.base("drawing"), self.work, self.data, self.o.worn, self.o.worn // 3)

    def decoder(self):
        autoencoder.finish_decoder(self.base("drawing"), self.work, self.data, self.o.steps_decoder)

    def pairs(self):
        """Every fourth picture as the base would draw it: a worn latent where there is one, or the picture's own latent
        a little off, through the finished decoder. Judges that learn from these are not surprised by drawn pictures."""
        vae, done = load_autoencoder(self.work), self.work / "worn.done"
        known = {autoencoder.worn_index(self.data, k): k for k in range(self.o.worn)}
        worn = np.memmap(self.work / "worn_latents.f16", np.float16, "r", shape=(self.o.worn, 16, 16, 16))
        index = range(0, self.data.count, WORN)
        for k in range(done_so_far(done), len(index), 32):
            some, generator = index[k:k + 32], torch.Generator().manual_seed(k)
            with torch.no_grad(), autocast():
                z = vae.encode(self.data.batch(some))[0].float()
                off = 0.3 * torch.rand(len(z), 1, 1, 1, generator=generator)
                z = z + off * torch.randn(z.shape, generator=generator)
                for row, i in enumerate(some):
                    if i in known:
                        z[row] = torch.from_numpy(np.asarray(worn[known[i]])).float()
                images = to_images(vae.decode(z))
            self.data.worn[k:k + 32] = np.stack([np.asarray(image) for image in images])
            if k % 3200 == 0:
                self.data.worn.flush()
                write_text(done, str(k))
                print(f"worn {k} of {len(index)}", flush=True)
        self.data.worn.flush()
        write_text(done, str(len(index)))

    # -- the judges --
    def train_judge(self, name: str, kind):
        judge = kind(self.work, self.data)
        trainer = Trainer(self.work, name, judge.model, getattr(self.o, f"steps_{name}"), *judge.lr)

        def look(step):
            trainer.log({"step": step, "held_out": judge.held_out()})
        trainer.run(judge.loss_of, look, 1000)
        judge.save(self.work / name)

    def judge(self):
        self.train_judge("judge", judges.Matcher)

    def identity(self):
        self.train_judge("identity", judges.Identity)

    def reader(self):
        self.train_judge("reader", attributes.Reader)

    # -- what the repository ships --
    def export(self):
        """Half precision into tiny/, or, of a quick build, into its own folder."""
        from transformers import (
            AutoImageProcessor, AutoModelForImageClassification, AutoTokenizer, CLIPModel, Dinov2Model)
        target = self.work / "export" if self.o.quick else HERE
        model = self.base("drawing")
        model.vae.load_state_dict(load_autoencoder(self.work).state_dict())
        save(model, target / "base", model.run, dtype=torch.float16)
        kinds = {"judge": CLIPModel, "identity": Dinov2Model, "reader": AutoModelForImageClassification}
        for name, kind in kinds.items():
            kind.from_pretrained(self.work / name).half().save_pretrained(target / name)
            AutoImageProcessor.from_pretrained(self.work / name).save_pretrained(target / name)
        AutoTokenizer.from_pretrained(self.work / "judge").save_pretrained(target / "judge")
        print(f"{sum(f.stat().st_size for f in target.rglob('*.safetensors')) / 1e6:.1f} MB of weights in {target}")

    def measure(self):
        from rewards import AttributeReader
        target = self.work / "export" if self.o.quick else HERE
        model = load(target / "base", "cpu").eval()
        found = measure.pictures(model, AttributeReader(str(target / "reader"), "cpu"), 24 if self.o.quick else 192)
        write_text(self.work / "measured.json", json.dumps(found, indent=1))
        print(json.dumps(found, indent=1))


def trainer_log(path: Path, row: dict):
    print(json.dumps(row), flush=True)
    with open(path, "a") as file:
        file.write(json.dumps(row) + "\n")


def main(argv=None):
    options = parse_options(Options, __doc__, argv)
    if options.only and options.only not in Build.LEGS:
        raise UserError(f"--only {options.only}: no such leg; take one of {', '.join(Build.LEGS)}")
    if options.quick:
        packages = options.packages or f"{options.work}/packages"
        options = replace(options, work=f"{options.work}-quick", packages=packages, **QUICK)
    Path(options.work).mkdir(parents=True, exist_ok=True)
    start("cpu", "auto")
    Build(options).run()


if __name__ == "__main__":
    run_script(main)
