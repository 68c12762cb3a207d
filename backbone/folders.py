"""Folders and models: everything that reads or writes weights. One path in, one path out, safetensors only.

    load(folder)     1. a checkpoint of ours   config.json, model.safetensors, ae.safetensors, the tokenizer
                     2. an adapter of ours     the same config.json naming its base, and LoRA weights in peft's layout
                     3. BAGEL as published     llm_config.json, vit_config.json, ae.safetensors, and ema.safetensors
                                               or model.safetensors.index.json with its shards
    save(model)      writes 1 or 2

Loading is strict: the headers of all files are compared with the model on the meta device before a number is read, and
every missing, unexpected or misshapen tensor is named. Then tensor after tensor goes to its place, in the type and on
the device where it will stay, so that two copies of a 7B model never meet.
"""
import json
from dataclasses import asdict, fields
from pathlib import Path

import torch
import torch.nn as nn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer

from backbone.lora import Int8Linear, adapters, add_adapters, quantize
from model import SPECIAL, Config, PositionTable, UniModel
from runtime.cli import UserError
from runtime.files import write_beside
from runtime.processes import full, is_main, pick_device

TABLES = ("latent_pos_embed", "vit_pos_embed")             # computed, never stored (BAGEL stores them and ignores them)
FLUX = {"scale_factor": 0.3611, "shift_factor": 0.1159}    # of the autoencoder that BAGEL ships


# ---- files ----------------------------------------------------------------------------------------------------------

def read_config(path: Path) -> dict:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}; give a checkpoint folder such as runs/coco/sft, "
                         "or BAGEL's as published") from None
    except ValueError as e:
        raise UserError(f"{path}: not JSON ({e}); fetch or make the file again") from None


def headers(files: dict[Path, str]) -> dict[str, tuple[Path, str, tuple]]:
    """Files with a prefix for their names -> {name here: (file, name there, shape)}; no number is read."""
    found = {}
    for path, prefix in files.items():
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    found[prefix + name] = path, name, tuple(file.get_slice(name).get_shape())
        except (OSError, SafetensorError) as e:
            raise UserError(f"{path}: cannot be read ({e}); fetch or make the file again") from None
    return {name: entry for name, entry in found.items() if not name.startswith(TABLES)}


def weight_files(folder: Path) -> dict[Path, str]:
    """The files that hold a model's weights, each with the prefix that its names get here."""
    index = folder / "model.safetensors.index.json"
    if (folder / "ema.safetensors").exists():
        main = ["ema.safetensors"]
    elif index.exists():
        main = sorted(set(read_config(index)["weight_map"].values()))
    else:
        main = ["model.safetensors"]
    for name in (*main, "ae.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: is missing; fetch or make the file again")
    return {folder / name: "" for name in main} | {folder / "ae.safetensors": "vae."}


# ---- what a folder promises -----------------------------------------------------------------------------------------

def published_config(folder: Path, found: dict, image_size: int) -> Config:
    """BAGEL's configuration files, and from the weights what no file says: the sizes of the autoencoder."""
    llm, vit = read_config(folder / "llm_config.json"), read_config(folder / "vit_config.json")
    shape = {name: entry[2] for name, entry in found.items()}
    try:
        ch = shape["vae.encoder.conv_in.weight"][0]
        downs = [k for k in range(9) if f"vae.encoder.down.{k}.block.0.conv1.weight" in shape]
        blocks = [k for k in range(9) if f"vae.encoder.down.0.block.{k}.conv1.weight" in shape]
        z = shape["vae.encoder.conv_out.weight"][0] // 2
        return Config(
            **{name: llm[name] for name in (
                "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                "num_key_value_heads", "rope_theta", "rms_norm_eps")},
            head_dim=llm.get("head_dim") or 0, qk_norm=llm.get("qk_norm", True),
            **{f"vit_{name}": vit[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads")},
            vit_num_hidden_layers=vit["num_hidden_layers"] - 1,         # its code takes the last layer but one
            vit_patch_size=vit["patch_size"], vit_max_patches=vit["image_size"] // vit["patch_size"],
            ae_ch=ch, ae_ch_mult=[shape[f"vae.encoder.down.{k}.block.0.conv1.weight"][0] // ch for k in downs],
            ae_num_res_blocks=len(blocks), ae_norm_groups=32, z_channels=z, **FLUX,
            latent_patch_size=round((shape["vae2llm.weight"][1] / z) ** 0.5), max_latent_size=64,
            image_size=image_size or 1024, square=False, timestep_shift=1.0, guidance=4.0)
    except KeyError as e:
        raise UserError(f"{folder}: {e.args[0]} is in neither configuration nor weights; fetch the folder again, "
                         "all of it") from None


def own_config(folder: Path) -> tuple[Config, dict]:
    record = read_config(folder / "config.json")
    try:
        return Config(**{f.name: record["model"][f.name] for f in fields(Config)}), record
    except (KeyError, TypeError) as e:
        raise UserError(f"{folder}/config.json: not a model configuration ({e}); make the checkpoint again") from None


def blueprint(folder: Path, image_size: int = 0) -> tuple[UniModel, dict, dict]:
    """-> the model on the meta device, {tensor: (file, name there, shape)} that fit it, and the record of its run."""
    record = {}
    if (folder / "llm_config.json").exists():
        found = headers(weight_files(folder))
        config = published_config(folder, found, image_size)
    else:
        config, record = own_config(folder)
        found = headers(weight_files(folder))
        config.image_size = image_size or config.image_size
    try:
        with torch.device("meta"):
            model = UniModel(config)
    except (ValueError, RuntimeError, ZeroDivisionError) as e:
        raise UserError(f"{folder}: its configuration makes no model ({e})") from None
    expected = {name: tuple(t.shape) for name, t in stored(model).items()}
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    misshapen = [f"{name} {found[name][2]} instead of {shape}" for name, shape in expected.items()
                 if name in found and found[name][2] != shape]
    wrong = [f"{len(names)} {word}: {', '.join(names[:4])}" for word, names in
             (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)) if names]
    if wrong:
        raise UserError(f"{folder}: weights and configuration disagree; {'; '.join(wrong)}; make or fetch it again")
    return model, found, record


def locate(name: str | Path) -> str:
    """A folder from here if there is one, else that of this repository, else the name as it is: perhaps a hub name."""
    ours = Path(__file__).resolve().parent.parent / name
    return str(ours) if ours.is_dir() and not Path(name).is_dir() else str(name)


# ---- loading --------------------------------------------------------------------------------------------------------

def stored(model: UniModel) -> dict[str, torch.Tensor]:
    """What a checkpoint holds, under its names there: all but the computed tables and the adapters."""
    return {name.replace(".base.", "."): value for name, value in model.state_dict().items()
            if not name.startswith(TABLES) and ".lora_" not in name}


def resting_type(model: UniModel, weights: str) -> torch.dtype:
    """Of the decoder's frozen numbers; raises UserError for a word that is none."""
    if weights not in ("auto", "fp32", "bf16", "int8"):
        raise UserError(f"--weights {weights}: take auto, fp32, bf16 or int8")
    large = sum(p.numel() for p in model.parameters()) > 1e9
    return torch.float32 if weights == "fp32" or weights == "auto" and not large else torch.bfloat16


def place(model: UniModel, name: str, value: torch.Tensor):
    """Puts one tensor where its name says."""
    owner, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner)
    if isinstance(owner, Int8Linear) and leaf == "weight":
        owner.quantize(value)
    else:
        setattr(owner, leaf, nn.Parameter(value, requires_grad=not name.startswith("vae.")))


def fill(model: UniModel, found: dict, device: torch.device, dtype: torch.dtype):
    """Reads every tensor once. The autoencoder stays in float32 whatever the rest is in.

    A file is opened anew for each tensor, and what is read is copied: else a tensor that needs no other type would
    remain a view of its file, and keep all of that file in memory for as long as the model lives."""
    for name, (path, there, _) in found.items():
        with safe_open(path, "pt") as file:
            value = file.get_tensor(there)
            kind = torch.float32 if name.startswith("vae.") else dtype
            place(model, name, value.to(device, kind, copy=True))
            del value
    c = model.config
    model.latent_pos_embed = PositionTable(c.hidden_size, c.max_latent_size).to(device)
    model.vit_pos_embed = PositionTable(c.hidden_size, c.vit_max_patches).to(device)


def read_tokenizer(folder: Path, vocabulary: int):
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as e:
        why = str(e).splitlines()[0]
        raise UserError(f"{folder}: no tokenizer can be read here ({why}); put the tokenizer's files there") from None
    known = tokenizer.get_vocab()
    for token in SPECIAL:
        if known.get(token, vocabulary) >= vocabulary:
            raise UserError(f"{folder}: its tokenizer has no {token} below {vocabulary}; take the tokenizer files "
                             "that were published with the weights")
    return tokenizer


def load(folder, device: str = "auto", weights: str = "auto", image_size: int = 0) -> UniModel:
    """Reads a folder, strictly: see the head of this file. Raises UserError, in one line."""
    folder = Path(locate(folder))
    if (folder / "adapter_config.json").exists():
        return load_adapter(folder, device, weights, image_size)
    model, found, record = blueprint(folder, image_size)
    check_size(model.config, folder)
    tokenizer, dtype = read_tokenizer(folder, model.config.vocab_size), resting_type(model, weights)
    if weights == "int8":
        quantize(model)
    fill(model, found, pick_device(device), dtype)
    model.set_tokenizer(tokenizer)
    model.run, model.folder = record.get("run", {}), folder
    return model.eval()


def check_size(c: Config, folder):
    if c.image_size % c.stride or not 0 < c.image_size <= c.stride * c.max_latent_size:
        raise UserError(f"--image-size {c.image_size}: {folder} draws multiples of {c.stride} "
                         f"up to {c.stride * c.max_latent_size} pixels")


def base_of(folder) -> str:
    """The model that stage 1 of this checkpoint began with; the folder itself, if it is no checkpoint of a stage."""
    file = Path(locate(folder)) / "config.json"
    record = read_config(file) if file.is_file() else {}
    run = record.get("run") or {}
    if run.get("stage") == "grpo":
        return base_of(run["model"])
    return record.get("base") or run.get("model") or str(folder)


# ---- saving, and adapters -------------------------------------------------------------------------------------------

def save(model: UniModel, folder, run: dict | None = None, dtype=None):
    """A folder that `load` takes: all weights, or, with adapters, those and the name of the base that they belong to.
    Every file is written beside its old one first, then renamed over it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"model": asdict(model.config), "run": run or {}}
    if adapters(model):
        save_adapter(model, folder)
        record["base"] = str(Path(model.folder).resolve())
    else:
        weights = {k: full(v.detach()).to(dtype or v.dtype).contiguous() for k, v in stored(model).items()}
        parts = {"ae.safetensors": {k[4:]: v for k, v in weights.items() if k.startswith("vae.")},
                 "model.safetensors": {k: v for k, v in weights.items() if not k.startswith("vae.")}}
        for name, part in parts.items():
            write_beside(folder / name, lambda path: save_file(part, path))
    text = json.dumps(record, indent=1, default=str)
    write_beside(folder / "config.json", lambda path: path.write_text(text))
    if is_main():
        model.tokenizer.save_pretrained(folder)


def adapter_tensors(model: UniModel) -> dict[str, torch.Tensor]:
    """A and B of every adapter, under the names that `peft` gives them."""
    return {f"base_model.model.{name}.lora_{x}.weight": getattr(module, f"lora_{x}").weight
            for name, module in adapters(model).items() for x in "AB"}


def save_adapter(model: UniModel, folder: Path):
    """The layout of the `peft` package."""
    found, tensors = adapters(model), {name: full(p.detach()) for name, p in adapter_tensors(model).items()}
    write_beside(folder / "adapter_model.safetensors", lambda path: save_file(tensors, path, {"format": "pt"}))
    one = next(iter(found.values()))
    about = {"peft_type": "LORA", "task_type": None, "base_model_name_or_path": str(Path(model.folder).resolve()),
             "r": one.r, "lora_alpha": one.alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
             "target_modules": sorted({suffix(name) for name in found}), "exclude_modules": "vit_model.*",
             "inference_mode": True}
    write_beside(folder / "adapter_config.json", lambda path: path.write_text(json.dumps(about, indent=1)))


def suffix(name: str) -> str:
    """language_model.model.layers.3.self_attn.q_proj -> q_proj; of the mlp, whose expert is in its name, two words."""
    words = name.split(".")
    return ".".join(words[-2:]) if words[-2].startswith("mlp") else words[-1]


def load_adapter(folder: Path, device: str, weights: str, image_size: int) -> UniModel:
    """The base, then its adapters on top, not merged: they can be trained on, and the base may be int8."""
    base = Path(base_of(folder))
    if not base.is_dir():
        raise UserError(f"{folder}/config.json: its base {base} is not here; put it there or change the path")
    drawn = read_config(folder / "config.json")["model"]["image_size"]
    return put_adapter(load(base, device, weights, image_size or drawn), folder)


def put_adapter(model: UniModel, folder: Path) -> UniModel:
    """A folder's adapters round the layers of its base; lora.drop_adapters takes them away."""
    about, file = read_config(folder / "adapter_config.json"), folder / "adapter_model.safetensors"
    found = headers({file: ""})
    add_adapters(model, about["target_modules"], about["r"], about["lora_alpha"])
    expected = adapter_tensors(model)
    wrong = [name for name in sorted(expected.keys() | found.keys())
             if name not in found or name not in expected or found[name][2] != tuple(expected[name].shape)]
    if wrong:
        raise UserError(f"{file}: made for another shape; {len(wrong)} tensors do not fit {model.folder}, such as "
                         f"{wrong[0]}; give the base that it was trained on")
    with safe_open(file, "pt") as tensors, torch.no_grad():
        for name, p in expected.items():
            p.copy_(tensors.get_tensor(name))
    model.run = read_config(folder / "config.json").get("run", {})
    return model
