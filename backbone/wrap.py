"""A Qwen2-family language model becomes a unified model: its weights are the und expert, a copy starts the gen expert,
vision encoder and autoencoder come from another folder, and the image head is fresh.

    python sft.py --backbone Qwen/Qwen2.5-0.5B
"""
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from backbone.folders import load, pick_device
from model import EXPERTS, SPECIAL, Config, UniModel
from runtime.cli import UserError


def wrap(backbone, eyes, device: str = "auto", image_size: int = 0) -> UniModel:
    """A Qwen2, Qwen2.5 or Qwen3 language model (a folder or a hub name) becomes a unified model: und expert = its
    weights, gen expert = a copy, as BAGEL began; `eyes` is the folder that lends vision tower and autoencoder."""
    try:
        llm = AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(backbone)
    except (OSError, ValueError) as e:
        raise UserError(f"--backbone {backbone}: {str(e).splitlines()[0]}") from None
    c, lent = llm.config, load(eyes, "cpu", "fp32", image_size)
    if c.model_type not in ("qwen2", "qwen3") or getattr(c, "use_sliding_window", False):
        raise UserError(f"--backbone {backbone}: a {c.model_type} is not of the Qwen2 family, or slides its window")
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})           # adds only what is missing
    if len(tokenizer) > c.vocab_size:
        llm.resize_token_embeddings(len(tokenizer))                                      # new rows around the mean
    theta = (getattr(c, "rope_parameters", None) or {}).get("rope_theta") or c.rope_theta
    config = Config(**asdict(lent.config) | {name: getattr(c, name) for name in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "rms_norm_eps")} | {"rope_theta": theta, "qk_norm": c.model_type == "qwen3",
                                                   "head_dim": getattr(c, "head_dim", None) or 0})
    model = UniModel(config, tokenizer)
    model.init_weights()
    for part in ("vit_model", "vae"):
        getattr(model, part).load_state_dict(getattr(lent, part).state_dict())
    theirs = {name: value for name, value in llm.state_dict().items() if not name.endswith("inv_freq")}
    theirs.setdefault("lm_head.weight", theirs["model.embed_tokens.weight"])             # tied in the small ones
    missing = []
    for name, p in model.language_model.named_parameters():
        twin = name.replace(EXPERTS[1], "")
        if twin in theirs:
            p.data.copy_(theirs[twin])
        elif name.endswith("proj.bias") or name.endswith("proj_moe_gen.bias"):
            p.data.zero_()                                                               # Qwen3 has none
        else:
            missing.append(name)
    if missing:
        raise UserError(f"--backbone {backbone}: no weights for {', '.join(missing[:4])}")
    model.run, model.folder = {"backbone": str(backbone)}, Path(eyes)
    return model.to(pick_device(device)).eval()
