"""Stage 2 by another method: DiffusionNFT (arXiv 2509.16117), on the same rewards, groups and budget as grpo.py.

    python experiments/forward_rl.py --char coco                        after sft.py -> runs/coco/forward-rl
    python eval.py --char coco --also runs/coco/forward-rl              beside SFT and SFT + GRPO

Character-GRPO follows the REVERSE process: it makes sampling random, so that a picture has a probability, and pushes
that up or down. Here learning is on the FORWARD process. Finished pictures are noised again, as in stage 1, and the
velocity is regressed. So sampling stays the plain ODE: no SDE, no window, no ratio, no clip.

An old policy v_old draws G pictures of a prompt. Each gets r in [0, 1], the probability that it is a good one, from its
advantage: r = 1/2 + A / (2 limit). With x_t = (1 - t) x_0 + t n and the target u = n - x_0, the loss is

    v_plus  = v_old + beta (v - v_old)       trained on good pictures
    v_minus = v_old - beta (v - v_old)       its mirror image, trained on bad ones
    L = (r |v_plus - u|^2 + (1 - r) |v_minus - u|^2) / beta

Why it improves. Write d = v - v_old and a = 2r - 1, which lies in [-1, 1]. Multiply out, and

    beta L = |beta d - a (u - v_old)|^2 + a term without v,    so the best is    d = E[a (u - v_old) | x_t] / beta

Had old pictures all the same reward, a = 0 and d = 0: nothing is learned. Otherwise let p = E[r | x_t] and u_good the
mean of u over good pictures, weighted by r. If v_old is exact, E[u | x_t] = v_old, and the best is

    v = v_old + (2 p / beta) (u_good - v_old)

a step from the old policy towards its own good pictures: guidance, learned into the weights. The smaller beta, the
longer the step. v_old is a moving average of v (--ema, the paper's eta). The nearer it follows v, the faster, and the
less steady, is learning. Here the same average is the checkpoint.

Where it differs from the paper: v_old is computed when its pictures are drawn, so no second model is held. There is no
KL term to stage 1 (there 1e-4). As there, an error is divided by its own size (`nft_loss`).

Same budget: P x G pictures of K steps an iteration, and --window noise levels of each trained (and once more computed,
for v_old). Of grpo.py's options --window-end, --noise, --guidance and --clip-range have no meaning here.
"""
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import runtime  # noqa: E402, F401     # first: before torch is loaded, see there

import torch  # noqa: E402

import grpo  # noqa: E402
from model import Context  # noqa: E402
from runtime.cli import parse_options, run_script  # noqa: E402
from runtime.runs import Means  # noqa: E402


@dataclass
class Options(grpo.Options):
    out: str = ""                 # the run's folder; empty = runs/<char>/forward-rl
    beta: float = 1.0             # of v_plus and v_minus (paper: 1, or 0.1)
    ema: float = 0.5              # how much of the old policy stays at an iteration (paper: rises to 0.5)


def nft_loss(v, v_old, target, t, r, beta: float):
    """v, v_old, target (B, N, token_dim); t scalar; r (B,) in [0, 1] -> the loss, a scalar. Divided by beta, its gradient
    at v = v_old does not depend on beta.

    x_t - t v estimates x_0, and its error is t times that of v. Divided by its mean size, which is held fixed, it
    weighs no noise level more than another."""
    def error(estimate):                                                                            # (B,)
        apart = t * (estimate - target)
        size = apart.detach().abs().mean((1, 2), keepdim=True).clamp(min=1e-5)
        return (apart ** 2 / size).mean((1, 2))
    step = beta * (v - v_old)
    return (r * error(v_old + step) + (1 - r) * error(v_old - step)).mean() / beta


class Noised(NamedTuple):
    """G finished pictures, noised to one time. All (G, N, token_dim) but t."""
    t: torch.Tensor
    x_t: torch.Tensor
    target: torch.Tensor           # noise - x_0
    v_old: torch.Tensor


@dataclass
class Group:
    """G pictures of one prompt, and their latents at w times."""
    context: Context               # of the prompt, one row
    images: list                   # G pictures
    noised: list[Noised]           # w of them


@torch.no_grad()
def rollout(model, prompts: list[str], options: Options, _, generators: list) -> list[Group]:
    """In the place of grpo.rollout. The old policy's weights are in the model."""
    with model.autocast(options.precision):
        return [sample_group(model, *pair, options) for pair in zip(prompts, generators, strict=True)]


def sample_group(model, prompt: str, generator, options: Options) -> Group:
    """Draws by the ODE, and noises what was drawn to w of the times at which it was drawn."""
    context = model.context([model.worded(prompt, "draw")])
    repeated = context.repeat(options.group)
    shape = options.group, model.latent_count, model.config.token_dim

    def normal():
        return torch.randn(shape, generator=generator).to(model.device)                             # (G, N, token_dim)
    x_0 = model.flow(normal(), repeated, options.steps, options.shift)
    times = model.timesteps(options.steps, options.shift)
    noised = []
    for k in torch.randperm(options.steps, generator=generator)[:options.window]:
        t, noise = times[k], normal()
        x_t = (1 - t) * x_0 + t * noise
        noised.append(Noised(t, x_t, noise - x_0, model.velocity(x_t, t, repeated)))
    return Group(context, model.decode(x_0), noised)


def backward(model, group: Group, rows, advantage, weight: float, options: Options, means: Means):
    """In the place of grpo.backward_pictures."""
    r = (0.5 + advantage[rows] / (2 * options.clip_advantage)).to(model.device)
    context = group.context.repeat(len(rows))
    for part in group.noised:
        with model.autocast(options.precision):
            v = model.velocity(part.x_t[rows], part.t, context)
        loss = nft_loss(v, part.v_old[rows], part.target[rows], part.t, r, options.beta)
        if weight:
            means("loss", loss.item(), len(rows))
            means("from_old", (v - part.v_old[rows]).square().mean().item(), len(rows))
        (loss * weight / len(group.noised)).backward()


def main(argv=None):
    options = parse_options(Options, __doc__, argv)
    run = grpo.train(options, grpo.Method("forward-rl", rollout, backward, averaged=True))
    run.finish("eval.py", "--char", options.char, "--also", run.folder)


if __name__ == "__main__":
    run_script(main)
