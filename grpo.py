"""Stage 2, Character-GRPO: reinforcement of the drawing side, so that the character does what the prompt says.

    python grpo.py --char coco                 about seven minutes on two CPU cores, after sft.py -> runs/coco/grpo

The method (arXiv 2605.08129 section on Character-GRPO; SDE sampling from Flow-GRPO, arXiv 2505.05470), per iteration:

    P prompts x G pictures each            rollout(): the flow's ODE, but an SDE in a window of w of the K steps
    rewards r_i, (P, G)                    rewards.py: 0.3 VQA + 0.45 CLIP-T + 0.6 diversity + 0.4 identity band
    A_i = (r_i - mean of its group) / (std of its group + delta), clipped to +-5                        advantages()
    ratio_t = exp(log p_theta(x_t+dt | x_t) - log p_old)                                                  sde_step()
    J = mean over i, t of min(ratio A_i, clip(ratio, 1 - eps, 1 + eps) A_i);  loss = -J, beta = 0     clipped_loss()

Only the gen expert and the image head learn: the voice cannot be harmed, and no reference model is held in memory.

Reading the log. On policy the ratio is 1 and the loss about 0, and it still learns: the GRADIENT of the ratio is not 0.
So look at the reward and its spread inside groups, at grad_norm, at max_ratio and clip_fraction; never at the loss.
A group whose pictures are all alike has no spread and teaches nothing: `skipped` counts such groups.

Where the published code differs, each marked [n] at the line:
1. Its diversity reward is one number for all pictures of a prompt on a GPU, which a group mean cancels. Ours is per
   picture.
2. Its window start is re-seeded by rank at every sample, so it never moves. Ours is drawn afresh at each iteration.
3. Its VQA reward is an exact string match, never met by open answers. Ours is the probability of the expected answer.
4. An unreadable reference picture silently turns its identity term off. Here it is an error (data.py, rewards.py).
5. It embeds the reference pictures again at every call. Ours once, when Rewards is made.
6. It adds the terms as they come, and the one with the widest spread decides alone. Ours have unit spread in a group
   before they are weighted (GDPO, arXiv 2601.05242); weighted so, the guards, diversity and identity, need more
   than the paper gives them. As the paper: --no-normalize-terms --w-diversity 0.1 --w-identity 0.15.
7. Its checkpoint is the last iteration's. Ours averages the weights over the last iterations, as Flow-GRPO's code does:
   what the noise of single iterations did to the picture cancels. Rollouts use the weights themselves. --ema 0: off.

Groups are the unit of everything: (P, G) from rollout to loss. --micro-batch cuts a group in the update, for memory
alone, so any --group goes with --micro-batch 1.
"""
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from backbone.folders import base_of, load, locate
from backbone.lora import GEN_PROJECTIONS, FitOptions, adapters
from data import load_character, run_folder
from model import Context, euler
from rewards import RewardOptions, Rewards, spread
from runtime import counting, plan, processes
from runtime.cli import UserError, parse_options, run_script
from runtime.runs import Means, Run
from sft import draws, learners


@dataclass
class Options(FitOptions, RewardOptions):    # sizes and adapters (backbone/lora.py), weights and judges, too
    char: str = "coco"             # a name under characters/, or a folder
    model: str = ""                # what stage 1 made; empty = runs/<char>/sft
    out: str = ""                  # the run's folder; empty = runs/<char>/grpo
    iterations: int = 40           # rollouts (paper: 101 epochs)
    prompts: int = 8               # P, per iteration (paper: 48)
    group: int = 8                 # G, pictures per prompt
    updates: int = 2               # optimizer steps per rollout; P is divided among them
    micro_batch: int = 8           # pictures of a group per backward pass
    steps: int = 10                # K, sampling steps in rollouts (paper: 14)
    shift: float = 3.0             # of the sampling times
    window: int = 3                # w, steps that are noisy and trained
    window_end: int = 6            # the window lies somewhere in the first so many steps (paper: 7 of 14)
    noise: float = 1.3             # a in sigma_t, as the paper: with 2 the ODE, which draws in the end, lost diversity
    share_start: bool = False      # a group shares its noise and its steps before the window: cheaper, less spread
    guidance: float = 1.0          # CFG inside the policy; 1 = off, which halves the cost (paper: 4)
    lr: float = 1.5e-4             # AdamW (paper: 1e-5)
    clip_range: float = 1e-4       # eps. log p is a mean over D = N x token_dim numbers, so a true ratio r shows as
    #                                r^(1/D): with D = 4096, 1 + 1e-4 is a true ratio of 1.5 (paper: 1e-5, D = 262144)
    clip_advantage: float = 5.0
    clip: float = 1.0              # largest gradient norm (the published code never applies its own)
    normalize_terms: bool = True   # give every reward term unit spread in its group before weighting (paper: no)
    ema: float = 0.9               # the checkpoint averages the weights of about 1 / (1 - ema) iterations (paper: no)
    seed: int = 0
    eval_every: int = 10           # iterations between held-out scores
    save_every: int = 10
    fresh: bool = False            # forget a run that is already there

    @property
    def sample_every(self) -> int:
        return self.eval_every


# ---- the mathematics: three pure functions -------------------------------------------------------------------------

def sde_step(x, v, t, t_next, noise: float, t_first=None, x_next=None, eps=None):
    """One Euler-Maruyama step of the flow's SDE and its log-probability, in float32; rollout and update share it.

    x, v, and standard normal eps (B, N, d); t, t_next scalars, dt = t_next - t < 0. With `x_next` given instead of
    `eps`, only its log p is computed.
    `t_first` is the schedule's second time: it stands in for t = 1 inside the root, where 1 - t would be 0.
    -> x_next (B, N, d), log p (B,), without constants and averaged over the D = N d dimensions.
    """
    x, v, dt = x.float(), v.float(), t_next - t
    sigma = noise * torch.sqrt(t / (1 - (t if t < 1 else t_first)))
    mean = x * (1 + sigma**2 / (2 * t) * dt) + v * (1 + sigma**2 * (1 - t) / (2 * t)) * dt
    if x_next is None:
        x_next = mean + sigma * torch.sqrt(-dt) * eps
    log_p = -((x_next - mean) ** 2 / (2 * sigma**2 * -dt)).flatten(1).mean(1)
    return x_next, log_p


def advantages(rewards, limit: float = 5.0, delta: float = 1e-4):
    """rewards (P, G) -> advantages (P, G), and (P,) whether a group has any spread to learn from.

    Whatever is added to all rewards of one prompt cancels: an easy prompt is worth no more than a hard one."""
    mean, std = rewards.mean(1, keepdim=True), rewards.std(1, keepdim=True, correction=0)
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
        watch = {"max_ratio": (ratio - 1).abs().max().item(), "clip_fraction": stopped.item()}
    return -objective.mean(), watch


# ---- rollout -------------------------------------------------------------------------------------------------------

@dataclass
class Group:
    """G pictures of one prompt, and the w noisy steps that made them. Latents stay in float32: a ratio is made of small
    differences."""
    context: Context               # of the prompt, one row
    images: list                   # G pictures
    steps: list                    # w tuples (t, t_next, x (G, N, d), x_next, log p (G,))
    t_first: torch.Tensor          # the schedule's second time


@torch.no_grad()
def rollout(model, prompts: list[str], options: Options, begin: int, generators: list) -> list[Group]:
    """P groups, each drawn by itself with a generator of its own: to the bit, a group does not depend on what is drawn
    beside it, nor on which GPU; and memory is that of one group."""
    return [draw_group(model, *group, options, begin) for group in zip(prompts, generators, strict=True)]


def draw_group(model, prompt: str, generator, options: Options, begin: int) -> Group:
    """G pictures of a prompt: by an SDE step inside the window [begin, begin + w), by an ODE step elsewhere."""
    context, times, taken = model.context([prompt]), model.timesteps(options.steps, options.shift), []
    window = {float(t) for t in times[begin:begin + options.window]}

    def normal(count: int):                                                                # (count, N, d)
        shape = count, model.latent_count, model.config.token_dim
        return torch.randn(shape, generator=generator).to(model.device)

    def step(x, v, t, t_next):
        if float(t) not in window:
            return euler(x, v, t, t_next)
        x_next, log_p = sde_step(x, v, t, t_next, options.noise, times[1], eps=normal(len(x)))
        taken.append((t, t_next, x, x_next, log_p))
        return x_next

    how, G = (options.steps, options.shift, options.guidance, (0.0, 1.0), step), options.group
    x, begun = normal(1 if options.share_start else G), 0
    if options.share_start:
        x, begun = model.flow(x, context, *how, end=begin).repeat_interleave(G, 0), begin
    x = model.flow(x, context.repeat(G), *how, begin=begun)
    return Group(context, model.decode(x), taken, times[1])


# ---- update --------------------------------------------------------------------------------------------------------

def update(model, groups: list[Group], advantage, active, options: Options, optimizer, params, means: Means):
    """`updates` optimizer steps over the active groups: clipped policy gradients over their pictures and w steps.

    groups, advantage (P, G): of this process; active: of all processes, who keep in step (see runtime/processes.py).
    A backward pass never crosses groups. So, while micro_batch >= G, an update computes what the rollout did in the
    same shapes, and before the first optimizer step the ratio is 1 to float32's last bit, in bf16 too: cut otherwise,
    bf16 alone moves it by half of eps."""
    (P, G), W = advantage.shape, processes.world_size()
    chosen = active.nonzero()[:, 0]
    for part in chosen.chunk(options.updates) if len(chosen) else ():
        owner = part // P                                                               # the process of each group
        mine = (part[owner == processes.rank()] % P).tolist()
        for i in range(int(torch.bincount(owner, minlength=W).max())):
            p, weight = (mine[i], W / len(part)) if i < len(mine) else (0, 0.0)         # 0: only keeps step
            for rows in torch.arange(G).split(options.micro_batch):
                push(model, groups[p], rows, advantage[p], weight * len(rows) / G, options, means)
        norm = torch.nn.utils.clip_grad_norm_(params, options.clip)
        means("grad_norm", processes.whole(norm).item())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def push(model, group: Group, rows, advantage, share: float, options: Options, means: Means):
    """Sends the loss of some pictures of a group backwards, noisy step by noisy step, in its `share` of the update."""
    context, A = group.context.repeat(len(rows)), advantage[rows].to(model.device)
    unconditional = model.context([None] * len(rows)) if options.guidance > 1 else None
    for t, t_next, x, x_next, log_p_old in group.steps:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            v = model.velocity(x[rows], t, context, unconditional, options.guidance)
        _, log_p = sde_step(x[rows], v, t, t_next, options.noise, group.t_first, x_next[rows])
        loss, watch = clipped_loss(log_p, log_p_old[rows], A, options.clip_range)
        (loss * share / len(group.steps)).backward()
        if share:
            means("loss", loss.item(), len(rows))
            means("clip_fraction", watch["clip_fraction"], len(rows))
            means.largest("max_ratio", watch["max_ratio"])


# ---- the loop ------------------------------------------------------------------------------------------------------

def vqa_judge(model, source: Path, options: Options):
    """The frozen base that stage 1 began with: with adapters that is the policy itself, its adapters switched off."""
    base = Path(locate(options.base or base_of(source)))
    if adapters(model) and base.resolve() == model.folder.resolve():
        return model
    return load(base, options.device, options.weights)


def held_out_scores(model, judge: Rewards, prompts: list, options: Options) -> dict[str, float]:
    """Held-out prompts, two fixed seeds each, by the ODE: the reward that is trained beside the reader's, which never
    is."""
    twice, images = [p for p in prompts for _ in range(2)], []
    for at in range(0, len(twice), options.group):          # no more at once than in a rollout, for memory
        some = twice[at:at + options.group]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            images += model.sample_images([p.text for p in some], range(at, at + len(some)), options.steps,
                                          options.guidance, options.shift)
    scores = {f"held_out/{name}": term.mean().item() for name, term in judge(images, prompts).items()}
    if judge.reader:
        scores["held_out/reader"] = judge.reader.score(images, twice).nanmean().item()
    return {name: round(value, 7) for name, value in scores.items() if value == value}


def check(options: Options):
    """What must fit together. Raises UserError."""
    if not 0 <= options.ema < 1:
        raise UserError(f"--ema {options.ema}: must be at least 0 and below 1")
    if options.window > options.window_end or options.window_end > options.steps:
        raise UserError(f"--window {options.window} --window-end {options.window_end} --steps {options.steps}: "
                        "each must not exceed the next")
    W = options.gpus if options.plan else processes.world_size()
    if W < 1 or options.prompts % W:
        raise UserError(f"--prompts {options.prompts}: cannot be dealt out to {W} processes evenly")


def main(argv=None):
    options = parse_options(Options, __doc__, argv)
    processes.start(options.device)
    character = load_character(options.char)
    folder = Path(options.out) if options.out else run_folder(options.char, "grpo")
    source = Path(options.model) if options.model else run_folder(options.char, "sft")
    if not options.model and not (source / "config.json").exists():
        raise UserError(f"{source}: no checkpoint yet; first run: python sft.py --char {options.char}")
    options.model = str(source)
    check(options)
    held_out = character.test["prompts"][:16] or character.prompts[:8]
    if options.plan:
        model = counting.imagine(options)
        trained = learners(model, options, GEN_PROJECTIONS, draws)
        return plan.show(plan.grpo(model, options, trained, character.prompts, len(held_out)), options)
    model = load(source, options.device, options.weights, options.image_size)
    references = [scene["image"] for scene in character.scenes]
    judge = Rewards(options, references, vqa_judge(model, source, options))                          # [1] [3] [4] [5]
    params = learners(model, options, GEN_PROJECTIONS, draws)
    optimizer = torch.optim.AdamW(params.values(), lr=options.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4,
                                  fused=True)
    run = Run(folder, "grpo", options, model, params, optimizer, options.ema)          # [7]
    progress = tqdm(total=options.iterations, initial=run.step, desc="grpo", disable=processes.rank() > 0)
    if run.step == 0:
        report(run, judge, held_out)
    while run.step < options.iterations and not run.stop():
        start, means = time.time(), Means()
        rng = random.Random(f"{options.seed} grpo {run.step}")
        batch = draw_prompts(character.prompts, options.prompts, options.seed, run.step)
        share, first = len(batch) // processes.world_size(), (options.seed * 1_000_003 + run.step) * 1000
        mine = range(share * processes.rank(), share * (processes.rank() + 1))             # a group is never split
        batch, generators = [batch[i] for i in mine], [torch.Generator().manual_seed(first + i) for i in mine]
        begin = rng.randint(0, options.window_end - options.window)                      # [2] afresh every iteration
        with torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            groups = rollout(model, [p.text for p in batch], options, begin, generators)
        terms = judge([image for group in groups for image in group.images], batch)
        reward = judge.total(terms, options.normalize_terms)                             # [6]
        advantage, active = advantages(reward, options.clip_advantage)
        active = torch.cat(processes.gathered(active))
        update(model, groups, advantage, active, options, optimizer, list(params.values()), means)
        run.advance()
        for name, value in [*terms.items(), *((f"spread/{k}", v) for k, v in spread(terms).items())]:
            means(name, float(torch.as_tensor(value).mean()))
        row, seconds = means.result(), round(time.time() - start, 2)
        run.log({"window": begin, "skipped": int((~active).sum()), **row, "seconds": seconds})
        progress.update()
        progress.set_postfix(reward=f"{row['total']:.3f}", spread=f"{row['spread/total']:.3f}")
        if run.step % options.eval_every == 0 or run.step == options.iterations:
            report(run, judge, held_out)
        if run.step % options.save_every == 0 or run.step == options.iterations:
            run.save()
    progress.close()
    if processes.rank() == 0 and options.updates > 1:
        print(about_clipping(run.rows("clip_fraction")))
    again = "python grpo.py " + " ".join(sys.argv[1:] if argv is None else argv)
    run.finish(f"python eval.py --char {options.char}", again)


def draw_prompts(prompts: list, count: int, seed: int, iteration: int) -> list:
    """The next `count` prompts of a list shuffled anew in every round."""
    chosen = []
    for at in range(iteration * count, (iteration + 1) * count):
        round_, i = divmod(at, len(prompts))
        chosen.append(random.Random(f"{seed} {round_}").sample(prompts, len(prompts))[i])
    return chosen


def about_clipping(shares: list[float]) -> str:
    """Whether eps suits, from the clip fractions of a run with more than one update per rollout. (The first update of a
    rollout is on policy: its ratio is 1, so nothing of it is ever clipped.)"""
    mean = sum(shares) / max(1, len(shares))
    remedy = ("; --clip-range does nothing here: lower it" if shares and not mean else
              "; most updates are cut off: raise --clip-range or lower --lr" if mean > 0.5 else "")
    return f"clip fraction: {mean:.3f} on average{remedy}"


def report(run: Run, judge: Rewards, held_out: list):
    """What the checkpoint would do: scores and a sheet."""
    with run.averaged():
        scores = held_out_scores(run.model, judge, held_out, run.options)
        run.log(scores)
        run.sample_grid([p.text for p in held_out[:8]])
    told = ", ".join(f"{k.split('/')[1]} {v:.3f}" for k, v in scores.items())
    tqdm.write(f"iteration {run.step}, held out: {told}", file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
