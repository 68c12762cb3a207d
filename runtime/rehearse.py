"""A rehearsal of the paper's size: every kind of step once, with random weights, and what it took beside its plan.

    python -m runtime.rehearse --folder /tmp/bagel-7b                       BAGEL-7B-MoT in int8, on a CPU with 24 GB
    python -m runtime.rehearse --folder /tmp/bagel-7b --device cuda \\
        --both "--image-size 512 --lora 64 --checkpointing" --sft "--micro-batch 2" \\
        --grpo "--micro-batch 4 --prompts 2"                                a row of docs/backbone.md, on a GPU

1. The folder is written as BAGEL-7B-MoT is published, file by file and name by name, but with random numbers: 14.7
   billion of them in bfloat16. If its two configuration files are there already, they decide the sizes; if weights are
   there already, they are used.
2. Stage 1 loads the folder through the ordinary loader, makes one optimizer step, one denoising step and one token of
   a reply, and saves its adapters. Stage 2 loads these and makes one iteration: rollout, rewards, one update. Each
   stage is a process of its own, as in a real run, so its peak memory is its own.
3. The table compares peak memory with the plan of the same options (runtime/plan.py), and seconds with the planned
   FLOPs at plan.UTILISATION of this machine's best matrix product.

Random weights say nothing about quality. They show that names, shapes, types, memory and time are right.
"""
import json
import math
import re
import shlex
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import AutoTokenizer

import grpo
import sft
from backbone.folders import has_weights, load, locate, save
from data import Sample, load_character, training_samples
from model import Config, UniModel
from rewards import Rewards
from runtime import plan
from runtime.bench import matmul_rate, matmul_type
from runtime.cli import UserError, keep_freed_memory, parse_options, peak_memory, run_script
from runtime.counting import described
from runtime.files import write_beside
from runtime.processes import gradient_norm, pick_device, pick_precision
from runtime.runs import Means

BAGEL_7B = Config(
    vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
    num_key_value_heads=4, head_dim=128, rope_theta=1e6, vit_hidden_size=1152, vit_intermediate_size=4304,
    vit_num_hidden_layers=26, vit_num_attention_heads=16, vit_patch_size=14, vit_max_patches=70, ae_ch=128, ae_num_res_blocks=2,
    ae_norm_groups=32, max_latent_size=64)
SHARD = 2 ** 30                        # bytes of weights in a file, or a little more


@dataclass
class Options:
    folder: str = "bagel-rehearsal"    # where the weights are written, 30 GB; or a folder in the published layout
    char: str = "coco"                 # whose pictures and words are learned
    layers: int = 0                    # of the decoder; 0 = all. Take fewer where memory or disk is short
    both: str = "--image-size 16 --lora 8 --weights int8 --checkpointing"               # options of both stages
    sft: str = "--mix t2i=1,reply=1,vqa=1 --micro-batch 1"                              # of stage 1 alone
    grpo: str = "--prompts 1 --group 2 --micro-batch 1 --updates 1 --steps 2 --window 1 --window-end 2"
    device: str = "auto"               # auto, cpu, cuda or mps
    keep: bool = False                 # leave the weights on disk


# ---- a folder of random weights --------------------------------------------------------------------------------------

def write_description(folder: Path, c: Config):
    """Everything of the published folder but the weights: two configurations and a tokenizer, here the tiny base's."""
    llm = {name: getattr(c, name) for name in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "rope_theta", "rms_norm_eps", "qk_norm")}
    vit = {"hidden_size": c.vit_hidden_size, "intermediate_size": c.vit_intermediate_size,
           "num_hidden_layers": c.vit_num_hidden_layers + 1, "num_attention_heads": c.vit_num_attention_heads,
           "patch_size": c.vit_patch_size, "image_size": c.vit_patch_size * c.vit_max_patches}
    folder.mkdir(parents=True, exist_ok=True)
    AutoTokenizer.from_pretrained(locate("tiny/base")).save_pretrained(folder)
    for name, config in (("llm_config.json", llm), ("vit_config.json", vit)):
        text = json.dumps(config, indent=1)
        write_beside(folder / name, lambda path: path.write_text(text))


def write_weights(folder: Path, c: Config, least: int = SHARD):
    """Random numbers under all names of the published weights. A file is written as soon as `least` bytes are ready,
    and the index last, so that memory never holds more than one file of them."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in UniModel(c).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2 ** 24, generator=generator).bfloat16()
    main = [name for name in shapes if not name.startswith("vae.")]
    autoencoder = {name.removeprefix("vae."): random_tensor(name, shapes[name], c, noise, generator).float()
                   for name in shapes if name.startswith("vae.")}
    write_beside(folder / "ae.safetensors", lambda path: save_file(autoencoder, path))
    shard, files = {}, {}
    for name in tqdm(main, "writing the weights"):
        shard[name] = random_tensor(name, shapes[name], c, noise, generator)
        if sum(value.nbytes for value in shard.values()) >= least or name == main[-1]:
            file = f"model-{len(set(files.values())) + 1:05d}.safetensors"
            write_beside(folder / file, lambda path: save_file(shard, path))
            files |= dict.fromkeys(shard, file)
            shard = {}
    index = json.dumps({"weight_map": files}, indent=1)
    write_beside(folder / "model.safetensors.index.json", lambda path: path.write_text(index))


def random_tensor(name: str, shape: torch.Size, c: Config, noise: torch.Tensor, generator) -> torch.Tensor:
    """bfloat16, of a size that keeps activations near 1 through all layers, as in UniModel.init_weights. Fourteen
    billion new numbers would take minutes, so the numbers of `noise` are used again, from another place each time."""
    value = torch.empty(shape, dtype=torch.bfloat16)
    if name.endswith("bias"):
        return value.zero_()
    if len(shape) == 1:                                    # the gain of a norm
        return value.fill_(1.0)
    inputs = math.prod(shape[1:])                          # of a linear layer or a convolution
    std = 0.02 if "embed" in name else inputs ** -0.5
    if name.split(".")[-2].startswith(("o_proj", "down_proj")):
        std /= math.sqrt(2 * c.num_hidden_layers)
    start = int(torch.randint(len(noise), (1,), generator=generator))
    turned = torch.cat((noise[start:], noise[:start])) * std
    for part in value.view(-1).split(len(noise)):
        part.copy_(turned[:len(part)])
    return value


# ---- the two stages, a step of each kind -----------------------------------------------------------------------------

@dataclass
class Measured:
    before: float                                          # GB that Python and its packages hold without a model
    peak: float                                            # GB at most, those included
    seconds: dict[str, float]                              # of each step, by name


class Clock:
    """Seconds of named steps, and the memory of the process that makes them."""
    def __init__(self, device: torch.device):
        keep_freed_memory()                                # as every script does
        self.device, self.seconds, self.before = device, {}, 0.0
        self.before = self.peak()

    @contextmanager
    def time(self, name: str):
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[name] = time.perf_counter() - start
        print(f"{name}: {self.seconds[name]:.1f} s, peak memory {self.peak():.2f} GB", flush=True)

    def peak(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**30
        return peak_memory()

    def result(self) -> Measured:
        return Measured(self.before, self.peak(), self.seconds)


def rehearse_sft(options: sft.Options, out: str) -> Measured:
    """Stage 1 from the published folder. Its adapters, if it has any, are saved in the folder `out`."""
    clock = Clock(pick_device(options.device))
    with clock.time("load"):
        model = sft.load_base(options).train()
    trained = sft.trainable_parameters(model, options, lambda name: sft.learns_in_sft(name, options, model.config))
    optimizer = sft.make_optimizer(trained, options)
    character = load_character(options.char)
    examples = sft.prepare_examples(model, some_samples(character))
    mix = sft.parse_mix(options.mix, set(examples))
    batch = sft.next_batch(examples, mix, options.seed, 0, options.drop_text)
    with clock.time("optimizer step"):
        sft.accumulate(model, batch, options, Means(0))
        gradient_norm(trained.values(), options.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    with torch.no_grad(), model.autocast(options.precision):
        context = model.eval().context([character.scenes[0]["draw"]])
        with clock.time("denoising step"):
            model.velocity(model.noise([0]), torch.tensor(0.5, device=model.device), context)
        with clock.time("reply token"):
            model.extend(context, torch.full((1, 1), model.bos, device=model.device))
    if options.lora:
        save(model, out, {"stage": "sft", "step": 1, **asdict(options)})
    return clock.result()


def some_samples(character) -> list[Sample]:
    """Of each task so many Samples as a step can hold."""
    by_task = defaultdict(list)
    for sample in training_samples(character):
        by_task[sample.task].append(sample)
    return [sample for samples in by_task.values() for sample in samples[:32]]


def rehearse_grpo(options: grpo.Options) -> Measured:
    """Stage 2: one iteration, from what stage 1 saved."""
    clock = Clock(pick_device(options.device))
    with clock.time("load"):
        model = load(options.model, options.device, options.weights, options.image_size)
    character = load_character(options.char)
    judge = Rewards(options, [scene["image"] for scene in character.scenes], grpo.vqa_judge(model, options))
    trained = sft.trainable_parameters(model, options, sft.is_generation_weight)
    optimizer = torch.optim.AdamW(trained.values(), lr=options.lr, fused=True)
    average = grpo.WeightAverage(trained, options.ema)
    prompts = sft.walk(character.prompts, options.prompts, f"{options.seed} prompts", 0)
    first_step, generators = grpo.window_start(options, 0), grpo.picture_generators(options, 0)
    with clock.time("rollout"):
        groups = grpo.rollout(model, [prompt.text for prompt in prompts], options, first_step, generators)
    with clock.time("rewards"):
        terms = judge([image for group in groups for image in group.images], prompts)
    advantage, _ = grpo.advantages(judge.total(terms, options.normalize_terms))
    active = torch.ones(len(groups), dtype=torch.bool)     # whatever was drawn, something is to be learned
    with clock.time("update"):
        grpo.update(model, groups, advantage, active, options, optimizer, Means(0))
        average.update(0)
    return clock.result()


# ---- the whole -------------------------------------------------------------------------------------------------------

def apart(function: Callable, *arguments):
    """Calls a function in a process of its own, whose memory ends with it."""
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    except (BrokenProcessPool, torch.OutOfMemoryError):
        raise UserError("the memory of this machine was not enough; take fewer --layers") from None


def available_memory() -> float:
    """GB that a new process could take, where Linux tells; else no limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20


def check_room(folder: Path, c: Config):
    """Raises UserError if the disk cannot take the weights."""
    with torch.device("meta"):
        needed = 2 * sum(p.numel() for p in UniModel(c).parameters()) / 1e9 + 0.2
    free = shutil.disk_usage(folder).free / 1e9
    if free < needed:
        raise UserError(f"--folder {folder}: the weights take {needed:.0f} GB, and its disk has {free:.0f} GB free; "
                        "name a folder on another disk, or take fewer --layers")


def check_memory(o: Options, c: Config, needed: float):
    """Raises UserError if a CPU's memory cannot hold the plan."""
    free, each = available_memory() - 1, needed / c.num_hidden_layers
    if pick_device(o.device).type == "cpu" and needed > free:
        layers = c.num_hidden_layers - math.ceil((needed - free) / each)
        raise UserError(f"--layers: the plan needs {needed:.1f} GB and {free:.1f} GB are free; "
                        f"{layers} layers would fit")


def describe(o: Options) -> Config:
    """The sizes of the folder. They are written first if it has none."""
    folder = Path(o.folder)
    if not (folder / "llm_config.json").exists():
        write_description(folder, replace(BAGEL_7B, num_hidden_layers=o.layers or BAGEL_7B.num_hidden_layers))
    c = described(folder, 0).config
    if o.layers not in (0, c.num_hidden_layers):
        raise UserError(f"--layers {o.layers}: {folder} has {c.num_hidden_layers}; name another --folder")
    return c


def rehearse(o: Options, folder: Path):
    """Plans, writes, makes both stages' steps, and prints the table."""
    precision = pick_precision(pick_device(o.device))
    start = ["--precision", precision, *shlex.split(o.both), "--char", o.char, "--device", o.device,
             "--model", str(folder)]
    first = parse_options(plan.SftOptions, "", start + shlex.split(o.sft))
    second = parse_options(plan.GrpoOptions, "", start + shlex.split(o.grpo))
    plans = apart(plan.plan_sft, first), apart(plan.plan_grpo, second)
    c = describe(o)
    check_memory(o, c, max(found.peak for found in plans) / 2**30)
    if not has_weights(folder):
        check_room(folder, c)
        apart(write_weights, folder, c)
    out = folder / "stage-1"
    measured = [apart(rehearse_sft, first, str(out))]
    if second.lora:
        second.model = str(out)
    measured.append(apart(rehearse_grpo, second))
    rate = matmul_rate(pick_device(o.device), matmul_type(first.precision))
    print(f"{c.num_hidden_layers} layers, {torch.get_num_threads()} threads, "
          f"best matrix product {rate / 1e9:.0f} GFLOP/s")
    print(f"{'':35} {'measured':>12} {'planned':>12} {'ratio':>6}")
    report("stage 1", ["optimizer step"], measured[0], plans[0], rate)
    report("stage 2", ["rollout", "rewards", "update"], measured[1], plans[1], rate)


def report(stage: str, steps: list[str], found: Measured, planned: plan.Plan, rate: float):
    """Two rows of the table: what a stage took, beside its plan. `rate` is in FLOP/s."""
    peak = planned.peak / 2**30
    print(f"{stage + ', peak memory':35} {found.peak:9.2f} GB {peak:9.2f} GB {found.peak / peak:6.2f}   "
          f"(measured: with {found.before:.2f} GB of Python and its packages)")
    seconds = sum(found.seconds[name] for name in steps)
    expected = planned.step / (plan.UTILISATION * rate)
    print(f"{stage + ', ' + ' + '.join(steps):35} {seconds:9.1f} s  {expected:9.1f} s  {seconds / expected:6.2f}   "
          f"(planned: {planned.step / 1e12:.3g} TFLOP)")


def main(argv=None):
    o = parse_options(Options, __doc__, argv)
    folder = Path(o.folder)
    describe(o)
    own = not has_weights(folder)
    parts = re.compile(r"(ae|model-\d{5})\.safetensors(\.new)?")           # what a killed rehearsal may have left
    foreign = [path.name for path in folder.glob("*.safetensors*") if not parts.fullmatch(path.name)]
    if own and foreign:                                     # half a download, which must not be removed in the end
        raise UserError(f"{folder}: holds {foreign[0]}, but not all weights; finish the download, or name another --folder")
    try:
        rehearse(o, folder)
    finally:
        if own and not o.keep:
            for path in folder.glob("*.safetensors*"):
                path.unlink()


if __name__ == "__main__":
    run_script(main)
