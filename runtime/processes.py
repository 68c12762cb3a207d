"""More than one GPU, by torch's own means. One process reads this file as a list of things that do nothing.

    torchrun --nproc-per-node 8 sft.py --model path/to/BAGEL-7B-MoT ...

torchrun starts a process for every GPU; FSDP2 (`fully_shard`) divides weights, gradients and optimizer among them and
collects each layer's weights only while that layer runs. So three rules hold wherever a step is made:
1. All processes call the same sharded modules equally often, in the same order: one that did not would leave the others
   waiting for ever.
2. In every backward pass every process reaches every weight that learns. What a process has too little of is filled up
   with work of weight zero.
3. FSDP takes the mean of the gradients over processes. A loss that is already divided by the count of ALL tokens or
   pictures is therefore multiplied by the number of processes, W.
"""
import os

import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """W, the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def start(device: str):
    """Joins the processes that torchrun has started, if it has; on GPUs each takes its own."""
    if "TORCHELASTIC_RUN_ID" in os.environ and not dist.is_initialized():
        gpu = device in ("auto", "cuda") and torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if gpu else "gloo")


def shard(model, half: bool):
    """Divides every layer and every part that is called as one; the canvas and the computed tables stay whole. `half`:
    weights are collected in bfloat16. Inputs are never cast: rotary angles and times must stay in float32."""
    if world_size() == 1:
        return
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32,
                                  cast_forward_inputs=False)
    decoder, eye = model.language_model["model"], model.vit_model["vision_model"]
    for part in (decoder.embed_tokens, *decoder.layers, decoder.norm, decoder.norm_moe_gen,
                 model.language_model["lm_head"], *eye.encoder["layers"], eye, model.connector, model.time_embedder,
                 model.vae2llm, model.llm2vae):
        fully_shard(part, mp_policy=policy)


def whole(x: torch.Tensor) -> torch.Tensor:
    """A divided tensor in one piece, on every process; others as they are."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def divided(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The way back: divided as `like` is."""
    x = x.to(like.device)
    return distribute_tensor(x, like.device_mesh, like.placements) if isinstance(like, DTensor) else x


def gathered(item) -> list:
    """[what each process holds], on all of them."""
    if world_size() == 1:
        return [item]
    items = [None] * world_size()
    dist.all_gather_object(items, item)
    return items
