"""Folders of weights: how they are read and written. One function reads, one writes, and all weights are safetensors.

    load(folder)     1. a checkpoint of ours   config.json, model.safetensors, ae.safetensors, the tokenizer
                     2. adapters of ours       adapter_config.json and adapter_model.safetensors in the layout of the
                                               `peft` package, and a config.json that names their base
                     3. BAGEL as published     llm_config.json, vit_config.json, ae.safetensors, the tokenizer, and
                                               ema.safetensors or model.safetensors.index.json with its shards
    save(model)      writes 1 or 2

Loading is strict. Before a number is read, the headers of all files are compared with the model on the meta device, and
every missing, unexpected or misshapen tensor is named. Then each tensor goes to its place, in the type and on the
device where it will stay. So two copies of a 7B model are never in memory.
"""
import json
import os
import tempfile
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn as nn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer

from backbone.lora import Int8Linear, adapters, add_adapters, quantize
from model import SPECIAL, AutoEncoder, Config, PositionTable, UniModel
from runtime.cli import UserError
from runtime.files import write_beside
from runtime.processes import full, is_main, pick_device

TABLES = ("latent_pos_embed", "vit_pos_embed")             # computed, never stored. BAGEL stores and ignores them
AFTER_STAGE_1 = "grpo", "forward-rl"                       # stages whose checkpoints began with one of stage 1
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


# ---- files -----------------------------------------------------------------------------------------------------------

class StoredTensor(NamedTuple):
    """Where a tensor lies in a file."""
    path: Path
    name: str                                              # in the file
    shape: tuple[int, ...]
    dtype: torch.dtype


def locate(name: str | Path) -> str:
    """A folder seen from here if there is one, else one of this repository, else the name itself: perhaps a hub's."""
    ours = Path(__file__).resolve().parent.parent / name
    return str(ours) if ours.is_dir() and not Path(name).is_dir() else str(name)


def read_config(path: Path) -> dict:
    """A JSON file that holds an object. Raises UserError."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {about_folder(path.parent)}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); fetch or make the file again") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}: holds no JSON object; fetch or make the file again")
    return record


def about_folder(folder: Path) -> str:
    """What to do about a folder that is no checkpoint, by what it seems to be."""
    snapshots = sorted((folder / "snapshots").glob("*"))
    if snapshots:
        return f"the folder is a cache of the hub; give {snapshots[-1]}"
    if (folder / "model_index.json").exists():
        return "the folder holds a pipeline of the diffusers package, which cannot be read here; give BAGEL's"
    if (folder / "adapter_config.json").exists():
        return "the folder holds adapters without their base; give one that sft.py or grpo.py made"
    return "give a checkpoint folder such as runs/coco/sft, or BAGEL's as published"


def has_weights(folder: Path) -> bool:
    """Whole ones: what a killed rehearsal left (runtime/rehearse.py) has no index yet."""
    names = "model.safetensors", "ema.safetensors", "model.safetensors.index.json"
    return (folder / "ae.safetensors").exists() and any((folder / name).exists() for name in names)


def weight_files(folder: Path) -> dict[Path, str]:
    """The files that hold a model's weights, each with the prefix that its names get here. Raises UserError if one is
    missing."""
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if (folder / "ema.safetensors").exists():
        names = ["ema.safetensors"]
    elif index.exists():
        names = shards(index)
    for name in (*names, "ae.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: is missing; fetch or make the file again")
    prefixes = {folder / name: "" for name in names}
    return prefixes | {folder / "ae.safetensors": "vae."}


def shards(index: Path) -> list[str]:
    """The names of the files that an index lists. Raises UserError."""
    weight_map = read_config(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise UserError(f"{index}: its weight_map lists no files; fetch the file again")
    return sorted(set(weight_map.values()))


def headers(files: dict[Path, str]) -> dict[str, StoredTensor]:
    """Files with a prefix for their names -> where each tensor lies, by its name here. No number is read."""
    found = {}
    for path, prefix in files.items():
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    about = file.get_slice(name)
                    if about.get_dtype() not in TYPES:
                        raise UserError(f"{path}: {name} is stored as {about.get_dtype()}; fetch weights in bfloat16, "
                                        "and let --weights int8 quantize them")
                    shape, dtype = tuple(about.get_shape()), TYPES[about.get_dtype()]
                    found[prefix + name] = StoredTensor(path, name, shape, dtype)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: cannot be read ({error}); {about_weights(path)}") from None
    return {name: tensor for name, tensor in found.items() if not name.startswith(TABLES)}


def read_tensor(tensor: StoredTensor) -> torch.Tensor:
    """Reads one tensor into memory of its own. (safetensors would map its file into memory. What was read of a file
    then counts as ours until it is closed: 1 GB more at the peak, with BAGEL's embeddings.)"""
    with open(tensor.path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")    # of the header, which is JSON
        start, _ = json.loads(file.read(length))[tensor.name]["data_offsets"]
        file.seek(8 + length + start)
        value = torch.empty(tensor.shape, dtype=tensor.dtype)
        file.readinto(value.flatten().view(torch.uint8).numpy())
    return value


def about_weights(path: Path) -> str:
    """What to do about a file of weights that cannot be read."""
    with open(path, "rb") as file:
        is_pointer = file.read(32).startswith(b"version https://git-lfs")
    return "it is a pointer of Git LFS: run git lfs pull" if is_pointer else "fetch or make the file again"


# ---- what a folder says about its model ------------------------------------------------------------------------------

def own_config(folder: Path) -> tuple[Config, dict]:
    """Of a checkpoint of ours: the sizes, and the whole record. Raises UserError."""
    record = read_config(folder / "config.json")
    kind = record.get("model_type")
    if "model" not in record and kind:
        raise UserError(f"{folder}/config.json: is of a {kind}, not of a unified model; a Qwen2-family language model "
                        "goes behind --backbone of sft.py")
    try:
        return Config(**{field.name: record["model"][field.name] for field in fields(Config)}), record
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}/config.json: not a model configuration ({error}); "
                        "make the checkpoint again") from None


def published_config(folder: Path, shapes: dict[str, tuple], image_size: int) -> Config:
    """The sizes of a folder as BAGEL is published: from its two configuration files, and, for the autoencoder, which
    none describes, from the shapes of its weights. Raises UserError."""
    llm, vit = read_config(folder / "llm_config.json"), read_config(folder / "vit_config.json")
    try:
        sizes = decoder_sizes(llm) | vision_encoder_sizes(vit) | autoencoder_sizes(shapes)
        patch = round((shapes["vae2llm.weight"][1] / sizes["z_channels"]) ** 0.5)
        return Config(**sizes, latent_patch_size=patch, max_latent_size=64, image_size=image_size or 1024, square=False,
                      timestep_shift=1.0, guidance=4.0)
    except KeyError as error:
        raise UserError(f"{folder}: {error.args[0]} is in neither configuration nor weights; fetch the folder again, "
                        "all of it") from None
    except (TypeError, ZeroDivisionError) as error:
        raise UserError(f"{folder}: a configuration holds a wrong value ({error}); fetch the folder again") from None


def decoder_sizes(llm: dict) -> dict:
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "rope_theta", "rms_norm_eps")
    more = {"head_dim": llm.get("head_dim") or 0, "qk_norm": llm.get("qk_norm", True)}
    return {name: llm[name] for name in names} | more


def vision_encoder_sizes(vit: dict) -> dict:
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "patch_size")
    layers = vit["num_hidden_layers"] - 1                  # BAGEL's code takes the last layer but one
    side = vit["image_size"] // vit["patch_size"]
    return {"vit_" + name: vit[name] for name in names} | {"vit_num_hidden_layers": layers, "vit_max_patches": side}


def autoencoder_sizes(shapes: dict[str, tuple]) -> dict:
    """From the shapes of its weights. The scale and the shift of its latents are those of FLUX's autoencoder."""
    def channels(level):
        return shapes[f"vae.encoder.down.{level}.block.0.conv1.weight"][0]
    ch = shapes["vae.encoder.conv_in.weight"][0]
    levels = [k for k in range(9) if f"vae.encoder.down.{k}.block.0.conv1.weight" in shapes]
    blocks = [k for k in range(9) if f"vae.encoder.down.0.block.{k}.conv1.weight" in shapes]
    return {"ae_ch": ch, "ae_ch_mult": [channels(level) // ch for level in levels], "ae_num_res_blocks": len(blocks),
            "ae_norm_groups": 32, "z_channels": shapes["vae.encoder.conv_out.weight"][0] // 2,
            "scale_factor": 0.3611, "shift_factor": 0.1159}


def blueprint(folder: Path, image_size: int = 0) -> tuple[UniModel, dict[str, StoredTensor], dict]:
    """-> the model on the meta device, where each of its tensors lies, and the record that the folder keeps of its run.
    Raises UserError if they do not fit each other."""
    record = {}
    if (folder / "llm_config.json").exists():
        found = headers(weight_files(folder))
        shapes = {name: tensor.shape for name, tensor in found.items()}
        config = published_config(folder, shapes, image_size)
    else:
        config, record = own_config(folder)
        found = headers(weight_files(folder))
        config.image_size = image_size or config.image_size
    try:
        with torch.device("meta"):
            model = UniModel(config)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"{folder}: its configuration makes no model ({error})") from None
    compare(model, found, folder)
    return model, found, record


def compare(model: UniModel, found: dict[str, StoredTensor], folder: Path):
    """Raises UserError, with the first names of each kind, if the files hold other tensors than the model needs."""
    expected = {name: tuple(value.shape) for name, value in checkpoint_tensors(model).items()}
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    misshapen = [f"{name} {found[name].shape} instead of {shape}" for name, shape in expected.items()
                 if name in found and found[name].shape != shape]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    wrong = [f"{len(names)} {kind}: {', '.join(names[:4])}" for kind, names in kinds.items() if names]
    if wrong:
        raise UserError(f"{folder}: weights and configuration disagree; {'; '.join(wrong)}; make or fetch it again")


def check_size(c: Config, folder):
    """Raises UserError if the model cannot draw pictures of its image size."""
    largest = c.stride * c.max_latent_size
    if c.image_size % c.stride or not 0 < c.image_size <= largest:
        raise UserError(f"--image-size {c.image_size}: {folder} draws multiples of {c.stride} up to {largest} pixels")


def base_of(folder) -> str:
    """The model that stage 1 of this checkpoint began with; the folder itself, if it is no checkpoint of a stage."""
    file = Path(locate(folder)) / "config.json"
    record = read_config(file) if file.is_file() else {}
    run = record.get("run") or {}
    if run.get("stage") in AFTER_STAGE_1:
        return base_of(run["model"])
    return locate(record.get("base") or run.get("model") or folder)


# ---- reading ---------------------------------------------------------------------------------------------------------

def load(folder, device: str = "auto", weights: str = "auto", image_size: int = 0) -> UniModel:
    """The model of a folder, of any of the three kinds. `weights` is the type of the decoder's frozen numbers,
    `image_size` the side of the pictures that it draws (0: the folder's own). Raises UserError."""
    folder = Path(locate(folder))
    if (folder / "adapter_config.json").exists():
        return load_adapter(folder, device, weights, image_size)
    model, found, record = blueprint(folder, image_size)
    check_size(model.config, folder)
    tokenizer = read_tokenizer(folder, model.config.vocab_size)
    dtype = resting_type(model, weights)
    if weights == "int8":
        quantize(model)
    fill(model, found, pick_device(device), dtype)
    model.set_tokenizer(tokenizer)
    model.run, model.folder = record.get("run") or {}, folder
    model.wording = record.get("wording") or {}
    return model.eval()


def load_autoencoder(folder) -> tuple[AutoEncoder, Config]:
    """The autoencoder of a folder alone, in float32 on the CPU, and the sizes of its model. Raises UserError."""
    model, found, _ = blueprint(Path(locate(folder)))
    for name, tensor in found.items():
        if name.startswith("vae."):
            place(model, name, read_tensor(tensor).float())
    return model.vae.eval(), model.config


def checkpoint_tensors(model: UniModel) -> dict[str, torch.Tensor]:
    """What a checkpoint holds, by its names there: all but the computed tables and the adapters."""
    return {name.replace(".base.", "."): value for name, value in model.state_dict().items()
            if not name.startswith(TABLES) and ".lora_" not in name}


def resting_type(model: UniModel, weights: str) -> torch.dtype:
    """Of what the decoder keeps outside eight bits. Raises UserError if `weights` is no word for a type."""
    if weights not in ("auto", "fp32", "bf16", "int8"):
        raise UserError(f"--weights {weights}: take auto, fp32, bf16 or int8")
    is_large = sum(p.numel() for p in model.parameters()) > 1e9
    if weights == "fp32" or (weights == "auto" and not is_large):
        return torch.float32
    return torch.bfloat16


def fill(model: UniModel, found: dict[str, StoredTensor], device: torch.device, dtype: torch.dtype):
    """Reads every tensor once. The autoencoder stays in float32 whatever the rest is in."""
    for name, tensor in found.items():
        kind = torch.float32 if name.startswith("vae.") else dtype
        place(model, name, read_tensor(tensor).to(device, kind))
    c = model.config
    model.latent_pos_embed = PositionTable(c.hidden_size, c.max_latent_size).to(device)
    model.vit_pos_embed = PositionTable(c.hidden_size, c.vit_max_patches).to(device)


def place(model: UniModel, name: str, value: torch.Tensor):
    """Puts one tensor where its name says."""
    owner, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner)
    if isinstance(owner, Int8Linear) and leaf == "weight":
        owner.quantize(value)
    else:
        setattr(owner, leaf, nn.Parameter(value, requires_grad=not name.startswith("vae.")))


def read_tokenizer(folder: Path, vocabulary: int):
    """The tokenizer of a folder. Raises UserError if it lacks a special token, or gives it an id outside of the
    vocabulary."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{folder}: no tokenizer can be read here ({why}); put the tokenizer's files there") from None
    known = tokenizer.get_vocab()
    for token in SPECIAL:
        if known.get(token, vocabulary) >= vocabulary:
            raise UserError(f"{folder}: its tokenizer has no {token} below {vocabulary}; take the tokenizer files "
                             "that were published with the weights")
    # Marked as special, they are split like any other text where a user types them: see UniModel.text_ids.
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return tokenizer


# ---- writing ---------------------------------------------------------------------------------------------------------

def save(model: UniModel, folder, run: dict | None = None, dtype=None):
    """Writes a folder that `load` takes, with `run` as the record of how it was made. It holds all weights, as `dtype`
    if given; of a model with adapters it holds these alone, and where their base lies. Each file is written beside its
    old one and then renamed, so a kill leaves the old or the new file whole."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"model": asdict(model.config), "run": run or {}, "wording": model.wording}
    if adapters(model):
        save_adapter(model, folder)
        record["base"] = portable(model.folder)
    else:
        save_weights(model, folder, dtype)
    if is_main():
        save_tokenizer(model.tokenizer, folder)
    text = json.dumps(record, indent=1, default=str)
    write_beside(folder / "config.json", lambda path: path.write_text(text, "utf-8"))


def save_tokenizer(tokenizer, folder: Path):
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        tokenizer.save_pretrained(beside)
        for file in Path(beside).iterdir():
            os.replace(file, folder / file.name)


def save_weights(model: UniModel, folder: Path, dtype=None):
    weights, autoencoder = {}, {}
    for name, value in checkpoint_tensors(model).items():
        value = full(value.detach())
        value = value.to(dtype or value.dtype).contiguous()
        if name.startswith("vae."):
            autoencoder[name.removeprefix("vae.")] = value
        else:
            weights[name] = value
    write_beside(folder / "ae.safetensors", lambda path: save_file(autoencoder, path))
    write_beside(folder / "model.safetensors", lambda path: save_file(weights, path))


# ---- adapters --------------------------------------------------------------------------------------------------------

def adapter_tensors(model: UniModel) -> dict[str, torch.Tensor]:
    """A and B of every adapter, by the names that `peft` gives them."""
    tensors = {}
    for name, adapter in adapters(model).items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = adapter.lora_A.weight
        tensors[f"base_model.model.{name}.lora_B.weight"] = adapter.lora_B.weight
    return tensors


def save_adapter(model: UniModel, folder: Path):
    """In the layout of the `peft` package."""
    found = adapters(model)
    first = next(iter(found.values()))
    about = {"peft_type": "LORA", "task_type": None, "base_model_name_or_path": str(Path(model.folder).resolve()),
             "r": first.r, "lora_alpha": first.alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
             "target_modules": targets(model, found), "exclude_modules": "vit_model.*",
             "inference_mode": True}
    tensors = {name: full(p.detach()) for name, p in adapter_tensors(model).items()}
    text = json.dumps(about, indent=1)
    write_beside(folder / "adapter_model.safetensors", lambda path: save_file(tensors, path, {"format": "pt"}))
    write_beside(folder / "adapter_config.json", lambda path: path.write_text(text, "utf-8"))


def targets(model: UniModel, names) -> list[str]:
    """What peft calls the projections with these names: by their last words if every layer has them, and else one by
    one: language_model.model.layers.3.self_attn.q_proj -> q_proj, or 3.self_attn.q_proj."""
    paths = [name.partition(".layers.")[2] for name in names]
    everywhere = {last for last, count in Counter(map(last_words, paths)).items()
                  if count == model.config.num_hidden_layers}
    return sorted(everywhere | {path for path in paths if last_words(path) not in everywhere})


def last_words(path: str) -> str:
    """3.self_attn.q_proj -> q_proj. Of an mlp, whose expert is in the name of the mlp: mlp_moe_gen.up_proj."""
    words = path.split(".")
    return ".".join(words[-2:]) if words[-2].startswith("mlp") else words[-1]


def portable(folder: Path) -> str:
    """A folder of this repository by its path in it, so that an adapter works in every clone; any other in full."""
    repository, folder = Path(__file__).resolve().parent.parent, Path(folder).resolve()
    return str(folder.relative_to(repository) if folder.is_relative_to(repository) else folder)


def load_adapter(folder: Path, device: str, weights: str, image_size: int) -> UniModel:
    """The base, and its adapters on top. They are not merged: they can be trained on, and the base may be int8."""
    record = read_config(folder / "config.json")
    base = Path(locate(record.get("base") or ""))
    if not record.get("base") or not base.is_dir():
        raise UserError(f"{folder}/config.json: its base {base} is not here; put it there or change the path")
    own_size = own_config(folder)[0].image_size
    return put_adapter(load(base, device, weights, image_size or own_size), folder)


def put_adapter(model: UniModel, folder: Path) -> UniModel:
    """Puts the adapters of a folder round the layers of their base; lora.drop_adapters takes them away. Raises
    UserError."""
    about, file = read_config(folder / "adapter_config.json"), folder / "adapter_model.safetensors"
    try:
        add_adapters(model, about["target_modules"], about["r"], about["lora_alpha"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}/adapter_config.json: not an adapter's ({error}); "
                        "make the checkpoint again") from None
    found, expected = headers({file: ""}), adapter_tensors(model)
    wrong = [name for name in sorted(expected.keys() | found.keys())
             if name not in found or name not in expected or found[name].shape != tuple(expected[name].shape)]
    if wrong:
        raise UserError(f"{file}: made for another shape; {len(wrong)} tensors do not fit {model.folder}, such as "
                        f"{wrong[0]}; give the base that it was trained on")
    with torch.no_grad():
        for name, p in expected.items():
            p.copy_(read_tensor(found[name]))
    record = read_config(folder / "config.json")
    model.run, model.wording = record.get("run") or {}, record.get("wording") or {}
    return model
