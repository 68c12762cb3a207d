"""One process or several: torch's own means to train on more than one GPU, and the device that a script runs on.

    torchrun --nproc-per-node 8 sft.py --model path/to/BAGEL-7B-MoT ...

With one process, every function here is a no-op: nothing is divided, gathered, or filled up.

torchrun starts one process for every GPU. FSDP2 (`fully_shard`) divides weights, gradients and optimizer state among
them, and collects the weights of a layer only while that layer runs. Three rules follow for every training step:

1. All processes call the same sharded modules equally often and in the same order. A process that skipped a call would
   leave the others waiting for ever.
2. In every backward pass every process reaches every weight that learns.
3. FSDP takes the MEAN of the gradients over the W processes. We divide each loss by the count of all tokens or pictures
   of the whole batch, so the SUM is wanted: each loss is multiplied by W.

`deal` and `deal_groups` keep these rules for the loops. They deal out the work of a step as pairs (item, weight): every
process gets equally many, what only fills up teaches nothing, and the factor W is in the weights.
"""
import os
import shutil
import sys

import torch
import torch.distributed as dist

from runtime.cli import UserError, say

# ---- start -----------------------------------------------------------------------------------------------------------


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes a GPU if there is one. Raises UserError."""
    if name == "auto" and torch.cuda.is_available():
        name = "cuda"
    elif name == "auto" and torch.backends.mps.is_available():
        name = "mps"
    elif name == "auto":
        name = "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: not on this machine ({reason}); use auto, cpu, cuda or mps") from None


def pick_precision(device: torch.device, name: str = "auto") -> str:
    """"bf16" or "fp32"; "auto" takes bf16 where the hardware multiplies it. Other CPUs, among them most laptops', only
    imitate it: with AVX2 alone a product then takes forty times as long as in fp32. Raises UserError."""
    if name not in ("auto", "bf16", "fp32"):
        raise UserError(f"--precision {name}: choose auto, bf16 or fp32")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    has = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"


def start(device: str, precision: str = "") -> str:
    """Joins the processes that torchrun has started, if it has, and gives each its own GPU. Says on what it runs.
    -> the precision of its products, if one is asked for. Raises UserError for one that is not known."""
    if "TORCHELASTIC_RUN_ID" in os.environ and not dist.is_initialized():
        on_gpu = device in ("auto", "cuda") and torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if on_gpu else "gloo")
    if precision:
        precision = pick_precision(pick_device(device), precision)
    if is_main():
        say(describe_device(pick_device(device), precision), sys.stderr)
    return precision


def leave():
    """The end of what `start` began: none of the processes ends while another still waits for it."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def describe_device(device: torch.device, precision: str = "") -> str:
    """"device: cpu, bf16, 2 threads", with a hint where a GPU stands idle."""
    parts = [str(device)]
    if device.type == "cuda":
        parts[0] += f" ({torch.cuda.get_device_name(device)})"
    if precision:
        parts.append(precision)
    parts.append(f"{torch.get_num_threads()} threads")
    if world_size() > 1:
        parts.append(f"{world_size()} processes")
    line = "device: " + ", ".join(parts)
    return line if device.type != "cpu" else line + idle_gpu_hint()


def idle_gpu_hint() -> str:
    """Why this torch does not use the NVIDIA or AMD GPU of this machine; "" if it has none, or can use it."""
    nvidia = shutil.which("nvidia-smi") or os.path.exists("/proc/driver/nvidia/version")
    amd = os.path.exists("/dev/kfd")
    if torch.cuda.is_available() or not (nvidia or amd):
        return ""
    if torch.version.cuda or torch.version.hip:
        return ". A GPU is here, but torch cannot use it: its driver may be too old for this torch"
    return ". A GPU is here, but this torch was built for CPUs: install another from https://pytorch.org/get-started"


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """W, the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that prints and writes files."""
    return rank() == 0


# ---- sharded weights -------------------------------------------------------------------------------------------------

def shard(model, half: bool):
    """Divides every layer of a UniModel, and every other part that is called as one, among the processes. The
    autoencoder and the computed position tables stay whole. `half`: weights are collected in bfloat16.

    Inputs are never cast, since rotary angles and times must stay in float32."""
    if world_size() == 1:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard    # missing in some builds of torch
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32,
                                  cast_forward_inputs=False)
    decoder = model.language_model["model"]
    vision_encoder = model.vit_model["vision_model"]
    parts = [decoder.embed_tokens, *decoder.layers, decoder.norm, decoder.norm_moe_gen,
             model.language_model["lm_head"], *vision_encoder.encoder["layers"], vision_encoder,
             model.connector, model.time_embedder, model.vae2llm, model.llm2vae]
    for part in parts:
        fully_shard(part, mp_policy=policy)


def is_sharded(x: torch.Tensor) -> bool:
    if world_size() == 1:
        return False
    from torch.distributed.tensor import DTensor
    return isinstance(x, DTensor)


def full(x: torch.Tensor) -> torch.Tensor:
    """A sharded tensor in one piece, on every process; any other tensor as it is."""
    return x.full_tensor() if is_sharded(x) else x


def sharded_like(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The way back: the full tensor `x`, divided and placed as `like` is."""
    x = x.to(like.device)
    if not is_sharded(like):
        return x
    from torch.distributed.tensor import distribute_tensor
    return distribute_tensor(x, like.device_mesh, like.placements)


def local(x: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor: its own shard of a sharded one, all of any other."""
    return x.to_local() if is_sharded(x) else x


def gradient_norm(parameters, limit: float) -> float:
    """Clips the gradients of all `parameters` together to the norm `limit`, and returns the norm before clipping."""
    norm = torch.nn.utils.clip_grad_norm_(list(parameters), limit)
    return full(norm).item()


# ---- what the processes tell each other ------------------------------------------------------------------------------

def gather(item) -> list:
    """[the item of process 0, of process 1, ...], on every process. The item may be anything that can be pickled."""
    if world_size() == 1:
        return [item]
    items = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


def sum_over_processes(value: float) -> float:
    return sum(gather(value))


# ---- dealing out work ------------------------------------------------------------------------------------------------

def deal(parts: list[list], filler) -> list[tuple[list, float]]:
    """The micro-batches of this process in a step of stage 1: pairs (part, weight of its loss).

    The parts are dealt out in turn. With several processes each gets `filler` behind its rows: a row that teaches
    nothing, but reaches every weight of the model (rule 2). A process that got one part less takes the filler alone."""
    if world_size() == 1:
        return [(part, 1.0) for part in parts]
    rounds = -(-len(parts) // world_size())                           # rounded up
    mine = parts[rank()::world_size()]
    mine = mine + [[]] * (rounds - len(mine))
    return [([*part, filler], float(world_size())) for part in mine]


def own_share(items: list) -> list:
    """The items of this process among those that all make together, such as the groups of a rollout: the first of W
    processes has the first W-th of them. Raises UserError if they cannot be divided evenly."""
    count, rest = divmod(len(items), world_size())
    if rest:
        raise UserError(f"--prompts {len(items)}: cannot be dealt out to {world_size()} processes evenly; "
                        f"take a multiple of {world_size()}")
    return items[rank() * count:(rank() + 1) * count]


def deal_groups(active: torch.Tensor, updates: int) -> list[list[tuple[int, float]]]:
    """The work of this process in the optimizer steps of stage 2: for each step a list of pairs (p, weight).

    active (P,): which of the P groups that this process holds (`own_share`) have something to learn from. The active
    groups of all processes, in order, are divided into at most `updates` steps. p counts the groups of this process.
    The weights make the mean over the groups of a step. A process that holds fewer groups of a step than another fills
    up with its group 0, of weight 0. Without any active group there is no step."""
    P = len(active)
    every_active = torch.cat(gather(active.cpu()))                    # (W P,)
    steps = []
    for part in split_evenly(every_active.nonzero()[:, 0].tolist(), updates):
        of_process = [[] for _ in range(world_size())]
        for index in part:
            of_process[index // P].append(index % P)
        mine = [(p, world_size() / len(part)) for p in of_process[rank()]]
        longest = max(len(groups) for groups in of_process)
        steps.append(mine + [(0, 0.0)] * (longest - len(mine)))
    return steps


def split_evenly(items: list, parts: int) -> list[list]:
    """At most `parts` lists of the same length, the last perhaps shorter; none of an empty list."""
    length = -(-len(items) // parts)                                  # rounded up
    return [items[at:at + length] for at in range(0, len(items), length)] if items else []
