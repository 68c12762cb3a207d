"""A language model of the Qwen2 family becomes a unified model: its weights are the und expert, and a copy of them
starts the gen expert, as BAGEL began. Vision encoder and autoencoder come from another folder; the image head is new.

    python sft.py --backbone Qwen/Qwen2.5-0.5B
"""
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from backbone.folders import load
from model import EXPERTS, SPECIAL, Config, UniModel
from runtime.cli import UserError
from runtime.processes import pick_device


def wrap(backbone, lender, device: str = "auto", image_size: int = 0) -> UniModel:
    """`backbone` is a Qwen2, Qwen2.5 or Qwen3 language model, a folder or a name on the hub. `lender` is the folder
    that lends vision encoder and autoencoder. Raises UserError."""
    try:
        llm = AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(backbone)
    except (OSError, ValueError) as error:
        raise UserError(f"--backbone {backbone}: {str(error).splitlines()[0]}") from None
    kind = llm.config.model_type
    if kind not in ("qwen2", "qwen3") or getattr(llm.config, "use_sliding_window", False):
        raise UserError(f"--backbone {backbone}: a {kind} is not of the Qwen2 family, or slides its window")
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})           # adds only what is missing
    if len(tokenizer) > llm.config.vocab_size:
        llm.resize_token_embeddings(len(tokenizer))                                      # new rows around the mean
    lent = load(lender, "cpu", "fp32", image_size)
    model = UniModel(joined_sizes(llm.config, lent.config), tokenizer)
    model.init_weights()
    model.vit_model.load_state_dict(lent.vit_model.state_dict())
    model.vae.load_state_dict(lent.vae.state_dict())
    missing = copy_into_both_experts(llm.state_dict(), model)
    if missing:
        raise UserError(f"--backbone {backbone}: no weights for {', '.join(missing[:4])}")
    model.run, model.folder = {"backbone": str(backbone)}, Path(lender)
    return model.to(pick_device(device)).eval()


def joined_sizes(llm, lent: Config) -> Config:
    """The sizes of the language model, given by its own configuration, and of all else by the lender's."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "rms_norm_eps")
    sizes = {name: getattr(llm, name) for name in names}
    sizes["rope_theta"] = (getattr(llm, "rope_parameters", None) or {}).get("rope_theta") or llm.rope_theta
    sizes["head_dim"] = getattr(llm, "head_dim", None) or 0
    sizes["qk_norm"] = llm.model_type == "qwen3"
    return Config(**asdict(lent) | sizes)


def copy_into_both_experts(theirs: dict[str, torch.Tensor], model: UniModel) -> list[str]:
    """Copies each weight of a language model into the und and into the gen expert -> names that found no weight."""
    theirs = dict(theirs)
    theirs.setdefault("lm_head.weight", theirs["model.embed_tokens.weight"])             # tied in the small ones
    missing = []
    for name, p in model.language_model.named_parameters():
        und_name = name.replace(EXPERTS[1], "")
        if und_name in theirs:
            p.data.copy_(theirs[und_name])
        elif und_name.endswith("proj.bias"):                                             # Qwen3 has none
            p.data.zero_()
        else:
            missing.append(name)
    return missing
