"""Stage 2, Character-GRPO: reinforcement of the drawing side, so that the character does what the prompt says.

    python grpo.py --char coco                 about three minutes on two CPU cores, after sft.py -> runs/coco/grpo

The method (arXiv 2605.08129, section on Character-GRPO; SDE sampling from Flow-GRPO, arXiv 2505.05470), per iteration:

    P prompts x G pictures each            rollout(): the flow's ODE, but an SDE in a window of w of the K steps
    sigma_t = a sqrt(t / (1 - t))          the noise of an SDE step, and log p of what it made            sde_step()
    rewards r_i, (P, G)                    rewards.py: 0.3 VQA + 0.45 CLIP-T + 0.2 diversity + 0.6 identity band
    A_i = (r_i - mean of its group) / (std of its group + delta), clipped to +-5                        advantages()
    ratio_t = exp(log p_theta(x_{t+dt} | x_t) - log p_old)                                            clipped_loss()
    J = mean over i, t of min(ratio A_i, clip(ratio, 1 - eps, 1 + eps) A_i);  loss = -J, beta = 0     clipped_loss()

Each noisy step is an action of the policy. A step of the ODE is none, for it has no probability; so t in J runs over
the w steps of the window.

Only the gen expert and the image head learn, so the voice cannot be harmed. beta = 0 means no KL term, so no reference
policy is held in memory. (The VQA judge is a second copy of the base, unless adapters are trained.)

Reading the log. On policy the ratio is 1 and the loss about 0, and it still learns, for grad ratio = ratio grad log p:
there the gradient of J is that of the mean of A log p, the plain policy gradient. So look at `total`, the weighted
sum of the raw terms, and at its spread inside groups; at grad_norm, max_ratio_change (the largest |ratio - 1|) and
clip_fraction; never at the loss. (What is climbed has each term at unit spread [6]: in every group its mean is 0, so it
would tell nothing.) A group whose pictures are all alike has no spread and teaches nothing: `skipped` counts such groups.

Where the published code differs, each marked [n] at its line, here or in rewards.py:
1. Its diversity reward is one number for all pictures of a prompt on a GPU, which a group mean cancels: rewards.py.
2. Its window start is re-seeded by rank at every sample, so it never moves. Ours is chosen afresh at each iteration.
3. Its VQA reward is an exact string match, never met by open answers: rewards.py.
4. A reference picture that cannot be read silently turns its identity term off: rewards.py.
5. It embeds the reference pictures again at every call: rewards.py.
6. It adds the terms as they come, and the one with the widest spread decides alone. Ours are normalized twice: each
   term to unit spread in its group, so that a weight says how much its term counts (GDPO, arXiv 2601.05242), and then
   their sum once more, into the advantage. A spread below the judge's own noise is not blown up to one. Weighted so,
   the guards, diversity and identity, need more than the paper gives them. As the paper: --no-normalize-terms
   --w-diversity 0.1 --w-identity 0.15.
7. Its checkpoint is the last iteration's. Ours averages the weights over the last iterations, as Flow-GRPO's code does:
   what the noise of single iterations did to the picture cancels. Rollouts use the weights themselves. --ema 0: off.
8. All its prompts name the character, and its identity term pays for being the character. So the policy learns to draw
   nobody else, whoever is asked for. Here three prompts of ten name somebody else. Such a prompt is asked about the
   scene as any other, and its identity term is a ceiling: more likeness to the character than stage 1 gave it is
   punished. Paying for being unlike the character is a trap: a smeared face is unlike it, too, and what is learned
   there reaches its own pictures. With no looks paid for, or without such prompts, strangers become the character
   (docs/choices.md, "What to pay for others in stage 2"). --others 0: as published.

Groups are the unit of everything: (P, G) from rollout to loss. --micro-batch cuts a group in the update, for memory
alone, so any --group goes with --micro-batch 1.
"""
import runtime  # noqa: F401     # first: before torch is loaded, see there
import random
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from backbone.folders import AFTER_STAGE_1, base_of, load, locate
from backbone.lora import FitOptions, adapters, compile_layers
from characters.others import words_of
from data import Prompt, load_character, run_folder, without_name
from model import SAMPLING_SHIFT, Context, euler
from rewards import RewardOptions, Rewards, spread
from runtime.cli import UserError, command, parse_options, run_script
from runtime.processes import deal_groups, gradient_norm, own_share, start
from runtime.runs import Means, Run, check_character, read_checkpoint_record
from sft import grid_prompts, is_generation_weight, subjects, trainable_parameters, walk


@dataclass
class Options(FitOptions, RewardOptions):    # sizes and adapters (backbone/lora.py), weights and judges, too
    char: str = "coco"             # a name under characters/, or a folder
    model: str = ""                # what stage 1 made; empty = runs/<char>/sft
    out: str = ""                  # the run's folder; empty = runs/<char>/grpo
    iterations: int = 20           # rollouts (paper: 101 epochs). Twenty were better than ten (docs/choices.md); after
    #                                twenty, edges at the latent grid grew (Hester, two prompts in eight for others)
    prompts: int = 10              # P, per iteration (paper: 48)
    others: float = 0.3            # share of them that names somebody else (paper: none)
    group: int = 8                 # G, pictures per prompt
    updates: int = 2               # optimizer steps per rollout; the P groups are divided among them
    micro_batch: int = 8           # pictures of a group per backward pass
    steps: int = 10                # K, sampling steps in rollouts (paper: 14)
    shift: float = SAMPLING_SHIFT  # of the sampling times (model.py, "time and guidance")
    window: int = 3                # w, steps that are noisy and trained
    window_end: int = 6            # the window lies somewhere in the first so many steps (paper: 7 of 14)
    noise: float = 1.3             # a in sigma_t = a sqrt(t / (1 - t)), as the paper. At 2, pictures from the ODE, which
    #                                draws in the end, became less diverse
    guidance: float = 1.0          # guidance inside the policy; 1 = none, which halves the cost (paper: 4)
    lr: float = 1.5e-4             # AdamW (paper: 1e-5)
    clip_range: float = 1e-4       # eps. log p is a mean over N x token_dim numbers, so of 4096 numbers 1 + 1e-4 is a
    #                                true ratio of 1.5 (paper: 1e-5, of 262144 numbers)
    clip_advantage: float = 5.0    # largest advantage
    clip: float = 1.0              # largest gradient norm (the published code never applies its own)
    normalize_terms: bool = True   # give every reward term unit spread in its group before weighting (paper: no)
    ema: float = 0.9               # the checkpoint averages the weights of about 1 / (1 - ema) iterations (paper: no)
    seed: int = 0                  # of prompts, windows and pictures
    eval_every: int = 10           # iterations between held-out scores and sample grids
    save_every: int = 10           # iterations between saves
    fresh: bool = False            # forget a run that is already there


# ---- the mathematics: three pure functions --------------------------------------------------------------------------

def sde_step(x, v, t, t_next, noise: float, t_second=None, x_next=None, z=None):
    """One Euler-Maruyama step of the flow's SDE and its log-probability, in float32. Rollout and update share it.

    Why an SDE. The ODE dx = v dt draws one picture from one noise: it has no probabilities, and so no policy gradient.
    We want random steps that still draw from the same distribution p_t at every t. Three lines give them:

      1. Add noise and pay for it. Going down in t, dt < 0, the SDE
             dx = (v - sigma^2/2 s) dt + sigma sqrt(-dt) z,          s = grad log p_t(x),  z standard normal
         has the same p_t as the ODE for ANY sigma. In its Fokker-Planck equation the noise adds sigma^2/2 lap p, the
         drift adds -sigma^2/2 div(s p), and s p = grad p, so the two cancel.
      2. The score s comes from the velocity. Given x_0, x_t = (1 - t) x_0 + t n is Gaussian with standard deviation t,
         and its score is -n / t. The score of p_t is the mean of these over what x_0 may have been, given x_t:
         s = -E[n | x_t] / t. And v = E[n - x_0 | x_t] with x_t = (1 - t) E[x_0 | x_t] + t E[n | x_t] gives
             E[n | x_t] = x_t + (1 - t) v,        s = -(x_t + (1 - t) v) / t.
      3. Put 2 into 1:
             dx = (v + sigma^2/(2 t) (x_t + (1 - t) v)) dt + sigma sqrt(-dt) z.

    `mean` below is x_t + drift dt, sorted by x and v. sigma_t = a sqrt(t / (1 - t)) (Flow-GRPO; a is `noise`) is large
    where the picture is still undecided, and vanishes where it is finished. At t = 1 it would be infinite, so there the
    denominator takes `t_second`, the second time of the schedule: sigma = a sqrt(1 / (1 - t_second)).

    All this is exact as dt goes to 0. Rollouts take ten steps, and the first of them are long and noisy. For standard
    normal x_0, a = 1.3 and a window of 3 at t = 1, the standard deviation is up to 1.5 times that of p_t inside the
    window, and 1.27 times behind it. Euler's steps err the other way (without noise 0.83 times at the end), so 1.06
    times is left. The policy gradient does not mind: log p is that of the step that was really taken.

    Why log p is a mean. The step is Gaussian with variance sigma^2 |dt| in each of N token_dim dimensions. A sum over
    thousands of dimensions would make every ratio 0 or infinite after one update. The mean turns a true ratio r into
    r^(1/(N token_dim)), a number near 1 that can be clipped. The gradient shrinks by the same factor, which AdamW makes
    good, as it scales every gradient by its size. Constants are left out: they cancel in the ratio.

    x, v, and standard normal z (B, N, token_dim); t, t_next, t_second scalars. With `x_next` given instead of `z`, only
    its log p is computed. -> x_next (B, N, token_dim), log p (B,).
    """
    x, v, dt = x.float(), v.float(), t_next - t
    sigma = noise * torch.sqrt(t / (1 - (t if t < 1 else t_second)))
    mean = x * (1 + sigma**2 / (2 * t) * dt) + v * (1 + sigma**2 * (1 - t) / (2 * t)) * dt
    if x_next is None:
        x_next = mean + sigma * torch.sqrt(-dt) * z
    log_p = -((x_next - mean) ** 2 / (2 * sigma**2 * -dt)).flatten(1).mean(1)
    return x_next, log_p


def advantages(rewards, limit: float = 5.0, delta: float = 1e-4):
    """rewards (P, G) -> advantages (P, G), and (P,) whether a group has any spread to learn from.

    Whatever is added to all rewards of one prompt cancels: an easy prompt is worth no more than a hard one."""
    mean = rewards.mean(1, keepdim=True)
    std = rewards.std(1, keepdim=True, correction=0)
    return ((rewards - mean) / (std + delta)).clamp(-limit, limit), std[:, 0] > 1e-6


def clipped_loss(log_p, log_p_old, advantage, clip_range: float):
    """-J for a batch of pictures at one time step, all (B,); and what to watch: max |ratio - 1|, share clipped.

    The minimum is pessimistic: it lets a ratio leave [1 - eps, 1 + eps] only where that makes J smaller. So a good
    picture (A > 0) stops pushing once its ratio is above 1 + eps, a bad one (A < 0) once it is below 1 - eps."""
    ratio = torch.exp(log_p - log_p_old)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    objective = torch.minimum(ratio * advantage, clipped * advantage)
    with torch.no_grad():
        stopped = (clipped * advantage < ratio * advantage).float().mean()
        watch = {"max_ratio_change": (ratio - 1).abs().max().item(), "clip_fraction": stopped.item()}
    return -objective.mean(), watch


# ---- rollout --------------------------------------------------------------------------------------------------------

class NoisyStep(NamedTuple):
    """One SDE step of G pictures. Latents stay in float32: a ratio is made of small differences."""
    t: torch.Tensor                # ()
    t_next: torch.Tensor           # ()
    x: torch.Tensor                # (G, N, token_dim)
    x_next: torch.Tensor           # (G, N, token_dim)
    log_p: torch.Tensor            # (G,), under the policy that drew


@dataclass
class Group:
    """G pictures of one prompt, and the w noisy steps that made them."""
    context: Context               # of the prompt, one row
    images: list                   # G pictures
    trajectory: list[NoisyStep]    # w of them
    t_second: torch.Tensor         # the second time of the schedule, for sde_step


@torch.no_grad()
def rollout(model, prompts: list[str], options: Options, first_step: int, generators: list) -> list[Group]:
    """P groups. Each is drawn by itself, with a generator of its own. So, to the bit, a group depends neither on what
    is drawn beside it nor on which GPU draws it; and memory is that of one group."""
    groups = []
    for prompt, generator in zip(prompts, generators, strict=True):
        with model.autocast(options.precision):
            groups.append(sample_group(model, prompt, generator, options, first_step))
    return groups


def sample_group(model, prompt: str, generator, options: Options, first_step: int) -> Group:
    """G pictures of a prompt: by SDE steps inside the window [first_step, first_step + w), by ODE steps elsewhere."""
    context = model.context([model.worded(prompt, "draw")])
    times = model.timesteps(options.steps, options.shift)
    window = {float(t) for t in times[first_step:first_step + options.window]}
    shape = options.group, model.latent_count, model.config.token_dim
    trajectory = []

    def normal():
        return torch.randn(shape, generator=generator).to(model.device)                   # (G, N, token_dim)

    def step(x, v, t, t_next):
        if float(t) not in window:
            return euler(x, v, t, t_next)
        x_next, log_p = sde_step(x, v, t, t_next, options.noise, times[1], z=normal())
        trajectory.append(NoisyStep(t, t_next, x, x_next, log_p))
        return x_next

    everywhere = (0.0, 1.0)        # guidance at all times, so that every trained step has the same policy
    x = model.flow(normal(), context.repeat(options.group), options.steps, options.shift, options.guidance,
                   everywhere, step)
    return Group(context, model.decode(x), trajectory, times[1])


# ---- update ---------------------------------------------------------------------------------------------------------

def update(model, groups: list, advantage, active, options: Options, optimizer, means: Means, backward=None):
    """`updates` optimizer steps, each over its share of the active groups: clipped policy gradients over their pictures
    and w noisy steps. advantage (P, G); active (P,): whether a group has any spread to learn from. Another method
    gives its own `backward`.

    A backward pass never crosses groups. So, while micro_batch >= G, an update computes what the rollout computed in
    the same shapes, and before the first optimizer step the ratio is 1 to float32's last bit, in bf16 too. Cut
    otherwise, bf16 alone moves it by half of eps."""
    parameters, backward = optimizer.param_groups[0]["params"], backward or backward_pictures
    for share in deal_groups(active, options.updates):     # of one optimizer step: groups, and their weight in its mean
        for p, weight in share:
            for rows in torch.arange(options.group).split(options.micro_batch):
                part = weight * len(rows) / options.group
                backward(model, groups[p], rows, advantage[p], part, options, means)
        means("grad_norm", gradient_norm(parameters, options.clip))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def backward_pictures(model, group: Group, rows, advantage, weight: float, options: Options, means: Means):
    """Sends the loss of some pictures of a group backwards, noisy step by noisy step. rows (b,): which of the G pictures;
    advantage (G,); weight: the part of these pictures in the mean of the update."""
    A = advantage[rows].to(model.device)
    context = group.context.repeat(len(rows))
    with torch.no_grad():                                  # what is read does not learn in this stage
        unconditional = model.context([None] * len(rows)) if options.guidance > 1 else None
    for step in group.trajectory:
        with model.autocast(options.precision):
            v = model.velocity(step.x[rows], step.t, context, unconditional, options.guidance)
        _, log_p = sde_step(step.x[rows], v, step.t, step.t_next, options.noise, group.t_second, step.x_next[rows])
        loss, watch = clipped_loss(log_p, step.log_p[rows], A, options.clip_range)
        if weight:                                         # 0: a process that only keeps step with the others
            means("loss", loss.item(), len(rows))
            means("clip_fraction", watch["clip_fraction"], len(rows))
            means.largest("max_ratio_change", watch["max_ratio_change"])
        (loss * weight / len(group.trajectory)).backward()


class WeightAverage:
    """The moving average of the weights that learn [7]. The first iterations weigh alike in it, so that it soon forgets
    where the run began. With decay 0 it is the weights themselves."""
    def __init__(self, trained: dict, decay: float):
        self.trained, self.decay = trained, decay
        self.mean = {name: p.detach().clone() for name, p in trained.items()} if decay else {}

    @torch.no_grad()
    def update(self, iteration: int):
        for name, mean in self.mean.items():
            mean.lerp_(self.trained[name].detach(), max(1 - self.decay, 1 / (iteration + 1)))

    @contextmanager
    def swapped(self):
        """Inside, the model has the averaged weights: those that are shown, scored and saved for other scripts."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self):
        for name, mean in self.mean.items():
            kept = self.trained[name].detach().clone()
            self.trained[name].copy_(mean)
            mean.copy_(kept)

    def state(self) -> dict[str, torch.Tensor]:
        return self.mean


# ---- the loop -------------------------------------------------------------------------------------------------------

class Method(NamedTuple):
    """What another method of stage 2 does in its own way (experiments/forward_rl.py). The rest of the loop is shared."""
    stage: str                     # the name of its run
    rollout: Callable              # as `rollout`
    backward: Callable             # as `backward_pictures`
    averaged: bool                 # whether the averaged weights draw, or the last


def main(argv=None):
    options = parse_options(Options, __doc__, argv)
    run = train(options, Method("grpo", rollout, backward_pictures, averaged=False))
    if options.updates > 1:
        run.say(about_clipping(run.rows("clip_fraction"), options.updates))
    run.finish("eval.py", "--char", options.char)


def train(options: Options, method: Method) -> Run:
    """All iterations of a method -> the run, which `finish` ends. Raises UserError before any work is done."""
    options.precision = start(options.device, options.precision)
    check(options)
    character = load_character(options.char)
    options.model = stage_one(options)
    check_character(Path(options.model), character)
    references = [scene["image"] for scene in character.scenes]
    held_out = character.test["prompts"][:16] or character.prompts[:8]
    held_out = held_out + stranger_prompts(held_out[:8], character.name, "held out")
    begins_with = {"model": [Path(locate(options.model)), Path(base_of(options.model))],
                   "char": [character.prompts, references]}
    folder = Path(options.out) if options.out else run_folder(options.char, method.stage)
    run = Run(folder, method.stage, options, options.iterations, character, begins_with)

    model = load(options.model, options.device, options.weights, options.image_size)
    judge = Rewards(options, references, vqa_judge(model, options))
    judge_noise = judge.measure_noise(references, character.prompts)                       # [6]
    warn_of_unfinished(run)
    if not character.test["prompts"]:
        run.say("no test prompts: what the log calls held out are prompts of the training")
    run.say(f"the judges' own noise: {', '.join(f'{name} {value:.3f}' for name, value in judge_noise.items())}")
    strangers = stranger_prompts(character.prompts, character.name, "strangers")           # [8]
    if others_of(options):
        strangers = with_ceilings(model, judge, strangers, options)
    if options.others and not others_of(options):
        run.say(f"warning: the only prompt names {character.name}, so everybody may become {character.name}; "
                "take --prompts 2 or more")
    trained = trainable_parameters(model, options, is_generation_weight)
    if options.compile:
        compile_layers(model)
    optimizer = torch.optim.AdamW(trained.values(), lr=options.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4,
                                  fused=True)
    average = WeightAverage(trained, options.ema)
    run.restore(model, trained, optimizer, average)
    shown = grid_prompts(character)
    if run.step == 0:
        report(run, judge, held_out, shown)

    for iteration in run.steps(show=("total", "spread/total")):
        means = Means(iteration)
        prompts = own_share(prompts_of(character.prompts, strangers, options, iteration))
        generators = own_share(picture_generators(options, iteration))
        first_step = window_start(options, iteration)
        with average.swapped() if method.averaged else nullcontext():
            groups = method.rollout(model, [prompt.text for prompt in prompts], options, first_step, generators)
        terms = judge([image for group in groups for image in group.images], prompts)
        reward = judge.total(terms, options.normalize_terms)                               # [6]
        advantage, active = advantages(reward, options.clip_advantage)
        update(model, groups, advantage, active, options, optimizer, means, method.backward)
        average.update(iteration)                                                          # [7]
        record(prompts, terms, active, means)
        run.log({"window": first_step, **means.result()})
        if run.due(options.eval_every):
            report(run, judge, held_out, shown)
    return run


def stranger_prompts(prompts: list[Prompt], name: str, seed: str) -> list[Prompt]:
    """The character's prompts with somebody else in each [8]. Of their questions those stay whose answer stands in the
    text, and so holds for whoever is there. Others may ask for the character's own looks."""
    found = []
    for prompt, other in zip(prompts, subjects(len(prompts), random.Random(f"{name} {seed}"))):
        questions = [replace(question, question=without_name(question.question, name, other))
                     for question in prompt.questions if words_of([question.answer]) <= words_of([prompt.text])]
        found.append(Prompt(without_name(prompt.text, name, other), questions, stranger=True))
    return found


@torch.no_grad()
def with_ceilings(model, judge: Rewards, strangers: list[Prompt], options: Options) -> list[Prompt]:
    """Each with the likeness to the character that stage 1 gives it: the mean of four pictures, drawn as in rollouts. So
    what the policy begins with is what the identity term holds it to [8]."""
    few, found = replace(options, group=4), []
    for i, prompt in enumerate(tqdm(strangers, "looking at others", leave=False)):
        generator = torch.Generator().manual_seed(10**7 + i)           # none of a rollout's
        with model.autocast(options.precision):
            group = sample_group(model, prompt.text, generator, few, first_step=0)
        found.append(replace(prompt, ceiling=judge.likeness(group.images).mean().item()))
    return found


def others_of(options: Options) -> int:
    """How many prompts of an iteration name somebody else: the share rounded, but where there is a share at least one;
    and at least one names the character."""
    if not options.others:
        return 0
    return min(max(1, round(options.others * options.prompts)), options.prompts - 1)


def prompts_of(own: list[Prompt], strangers: list[Prompt], options: Options, iteration: int) -> list[Prompt]:
    """The P prompts of an iteration. Each list is walked through by itself, so that nothing is left out."""
    others = others_of(options)
    chosen = walk(own, options.prompts - others, f"{options.seed} prompts", iteration)
    return chosen + walk(strangers, others, f"{options.seed} strangers", iteration)


def picture_generators(options: Options, iteration: int) -> list[torch.Generator]:
    """One generator for each group of an iteration."""
    first = (options.seed * 1_000_003 + iteration) * 1000
    return [torch.Generator().manual_seed(first + i) for i in range(options.prompts)]


def window_start(options: Options, iteration: int) -> int:
    """Where the noisy window begins: anywhere in the first `window_end` steps, afresh at every iteration [2]."""
    return random.Random(f"{options.seed} window {iteration}").randint(0, options.window_end - options.window)


def stage_one(options: Options) -> str:
    """The folder of the stage-1 checkpoint. Raises UserError if there is none yet."""
    source = Path(options.model) if options.model else run_folder(options.char, "sft")
    if not options.model and not (source / "config.json").exists():
        raise UserError(f"{source}: no checkpoint yet; first run: "
                        + command("sft.py", "--char", options.char))
    return str(source)


def warn_of_unfinished(run: Run):
    """Says if what stage 2 begins with is not the end of a stage 1."""
    made = read_checkpoint_record(Path(locate(run.options.model)))
    if made.get("stage") in AFTER_STAGE_1:
        run.say(f"warning: {run.options.model} has been through stage 2 before; what it gives others is their ceiling now")
    if made.get("stage") == "sft" and made["step"] < made["steps"]:
        run.say(f"warning: {run.options.model} was stopped at step {made['step']} of {made['steps']}; the same command "
                "of sft.py finishes it")


def vqa_judge(model, options: Options):
    """The frozen base that stage 1 began with. With adapters that is the policy itself, its adapters switched off."""
    base = Path(locate(options.base or base_of(options.model)))
    if not options.base and not base.is_dir():
        raise UserError(f"{options.model}: was made from {base}, which is not there; give --base, what stage 1 began with")
    if adapters(model) and base.resolve() == model.folder.resolve():
        return model
    return load(base, options.device, options.weights)


def check(options: Options):
    """What must fit together. Raises UserError."""
    if not 0 <= options.ema < 1:
        raise UserError(f"--ema {options.ema}: must be at least 0 and below 1")
    if not 0 <= options.others < 1:
        raise UserError(f"--others {options.others}: must be at least 0 and below 1")
    if options.window > options.window_end or options.window_end > options.steps:
        raise UserError(f"--window {options.window} --window-end {options.window_end} --steps {options.steps}: "
                        "each must not exceed the next")
    if options.noise <= 0 or options.guidance < 1:
        raise UserError(f"--noise {options.noise} --guidance {options.guidance}: a policy needs noise above 0 to have "
                        "probabilities, and a guidance of 1, which is none, or more")
    own_share(list(range(options.prompts)))                # P must be a multiple of the number of processes


def record(prompts: list[Prompt], terms: dict, active, means: Means):
    """For the log: the means, each term's spread inside the character's groups, and how many groups have none."""
    own = [i for i, prompt in enumerate(prompts) if not prompt.stranger]
    found = means_of(prompts, terms)
    if own:
        within = spread({name: value[own] for name, value in terms.items()})
        found |= {f"spread/{name}": value for name, value in within.items()}
    for name, value in found.items():                      # weighted, since processes hold different numbers of strangers
        behind = len(prompts) - len(own) if name == "likeness/strangers" else len(own)
        if behind:
            means(name, value, behind)
    means.add("skipped", int((~active).sum()))


def report(run: Run, judge: Rewards, held_out: list[Prompt], shown: list[str]):
    """What the checkpoint would do: scores of held-out prompts, drawn by the ODE in --steps with --guidance (inside
    GUIDANCE_INTERVAL), and a sample grid, drawn as everybody draws: in 20 steps with the model's own guidance."""
    with run.shown_weights():
        scores = held_out_scores(run.model, judge, held_out, run.options)
        run.sample_grid(shown)
    run.log(scores)
    told = ", ".join(f"{name.removeprefix('held_out/')} {value:.3f}" for name, value in scores.items())
    run.write(f"iteration {run.step}, held out: {told}")


def held_out_scores(model, judge: Rewards, prompts: list[Prompt], options: Options) -> dict[str, float]:
    """Held-out prompts, two fixed seeds each, by the ODE. The rewarded terms, as they come, stand beside the score
    of the attribute reader, which is never rewarded: where the two part, a reward is being hacked. Of strangers, their likeness."""
    twice = [prompt for prompt in prompts for _ in range(2)]
    images = draw(model, twice, options)
    scores = means_of(prompts, judge(images, prompts))
    if judge.reader:
        own = torch.tensor([not prompt.stranger for prompt in twice])
        scores["reader"] = judge.reader.score(images, twice)[own].nanmean().item()
    return {f"held_out/{name}": value for name, value in scores.items() if value == value}      # nan: nothing was asked


def draw(model, prompts: list[Prompt], options: Options) -> list:
    """A picture for each prompt, with a fixed seed, by the ODE; no more at once than in a rollout, for memory."""
    images = []
    for at in range(0, len(prompts), options.group):
        some = prompts[at:at + options.group]
        with model.autocast(options.precision):
            images += model.sample_images([prompt.text for prompt in some], range(at, at + len(some)), options.steps,
                                          options.guidance, options.shift)
    return images


def means_of(prompts: list[Prompt], terms: dict) -> dict[str, float]:
    """Of the character's prompts the mean of every term; of strangers the likeness. nan where there is none."""
    stranger = torch.tensor([prompt.stranger for prompt in prompts])
    means = {name: value[~stranger].float().mean().item() for name, value in terms.items()}
    return means | {"likeness/strangers": terms["likeness"][stranger].float().mean().item()}


def about_clipping(shares: list[float], updates: int) -> str:
    """Whether eps suits, from the clip fractions of a run with more than one update per rollout. The first update of a
    rollout is on policy: its ratio is 1, and nothing of it is ever clipped. So only the others can be cut off."""
    mean = sum(shares) / max(1, len(shares))
    found = f"clip fraction: {mean:.3f} on average"
    if shares and not mean:
        return f"{found}; --clip-range does nothing here: lower it"
    if mean > 0.5 * (1 - 1 / updates):
        return f"{found}; most updates are cut off: raise --clip-range or lower --lr"
    return found


if __name__ == "__main__":
    run_script(main)
