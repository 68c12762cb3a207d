"""Tests: equivalences against references and invariants, on small random models. Nothing is downloaded.

    OMP_NUM_THREADS=1 python -m pytest -q -n 2 test_all.py      all, on two CPU cores (-n needs pytest-xdist)
    python -m pytest -q test_all.py -k rung                     the sanity ladder of Character-GRPO, rung by rung

Whoever changes stage 2 climbs the ladder first. Each rung is worth nothing if one below it does not hold.

The parts of this file, in order (look for the title between dashes):

    stage 2: the sanity ladder
    the model against references
    the model and stage 2 against the published code's numbers
    the model against itself
    folders
    data
    stage 1
    rewards and evaluation
    chat
    the machine's side: runs, files, processes, messages
    web
    the command lines, end to end and killed
    BAGEL's folder, adapters, eight bits, other backbones
    the plan: counted before anything is loaded
    the rehearsal of the paper's size
    several processes
    asking a language model
    building a character
    a browser
    the baselines
    the study: many rows
    the blind study
    the embedded base and its world
"""
import ast
import base64
import errno
import importlib.util
import email.utils
import functools
import contextlib
import gc
import http.client
import io
import json
import math
import os
import random
import re
import runpy
import shlex
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

os.environ["HF_HUB_OFFLINE"] = "1"                          # before the next imports: nothing is asked of the network

import runtime  # noqa: F401     # before torch: threads that sleep, see there

import numpy as np
import pytest
import torch
import transformers
from PIL import Image, ImageCms, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, Dinov2Config, Dinov2Model, Qwen2Config,
    Qwen2ForCausalLM, Qwen2Tokenizer, SiglipVisionConfig, SiglipVisionModel, ViTConfig, ViTForImageClassification,
    ViTImageProcessor)

import chat
import data
import eval as evaluation
import grpo
import rewards
import sft
from backbone import folders, lora, muon, wrap
from backbone.folders import base_of, load, save
from backbone.vision import as_drawn, fit, fitted_size, to_images, to_pixels
from characters import build, cards, others, schema, sieve
from data import (
    Prompt, Question, Sample, as_typed, draw_prompt, find_character, load_character, load_picture, plan_text,
    reply_prompt, think_prompt, training_samples)
from experiments import blind, dreambooth, forward_rl, lines, prompt_only, study, unictokens
from model import (
    PAD, SPECIAL, Config, Example, UniModel, attend, euler, guide, patchify, shared_beginning, shift_time,
    sincos_table, unpatchify)
from rewards import (
    AttributeReader, ClipJudge, IdentityJudge, RewardOptions, Rewards, answer_log_p, calibrate_band, diversity,
    grid_energy, identity_band, nearest, nearest_other, oddness, spread, vqa_reward)
from runtime import (
    batching, bench, cli, counting, curves, endpoint, files, judging, nearness, picture_measures, plan, processes, recall,
    rehearse, report, runs, talks, terminal, word_measures)
from runtime.cli import UserError
from runtime.endpoint import Endpoint
from runtime.grids import picture_grid
from runtime.picture_measures import kernel_distance, sharpness
from tiny import build as making, language, originals, world
from tiny.language.english import tidy
from tiny.training.drawing import times, velocity_error
from tiny.training.judges import begin_with
from tiny.training.pictures import Pictures
from tiny.training.trainer import Trainer
from tiny.world import pen
from tiny.world.changes import changed
from web import page_api
from web import server as web_server
from web.labels import CHARTS

HERE = Path(__file__).resolve().parent
ORIGINALS = sorted(path.stem for path in (HERE / "tiny" / "originals").glob("*.json"))
GOLDEN = HERE.parent / "shared" / "golden"                 # numbers of the published code, if they are there
PUBLISHED = Path(os.environ.get("ROLESCAPE", HERE.parent / "shared" / "rolescape"))      # the dataset, if it is there
SCRIPTS = {module.__name__: module for module in (data, sft, grpo, evaluation, chat)}
SMALL = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             head_dim=0, vit_hidden_size=48, vit_intermediate_size=64, vit_num_hidden_layers=2,
             vit_num_attention_heads=2, vit_max_patches=2, ae_ch=8, image_size=32, max_latent_size=2)


# ---- what the tests share --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(HERE / "tiny" / "base")


def small_model(tokenizer, **changes) -> UniModel:
    """Random weights that do not vanish anywhere: a zero image head would make half of these tests empty."""
    torch.manual_seed(0)
    model = UniModel(Config(**{**SMALL, "vocab_size": len(tokenizer), **changes}), tokenizer)
    model.init_weights()
    torch.nn.init.normal_(model.llm2vae.weight, std=0.05)
    for name, p in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(p, 1.0 if name.endswith("weight") else 0.0, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def small(tokenizer):
    return small_model(tokenizer)


def picture(seed=0, size=(32, 32)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def smooth(seed: int, side: int = 64) -> Image.Image:
    """Blobs of random colors: no two alike, none with a grid."""
    return picture(seed, (6, 6)).resize((side, side), Image.Resampling.BICUBIC)


def apart(a: Image.Image, b: Image.Image) -> int:
    """The largest difference between the pixels of two pictures."""
    return int(np.abs(np.subtract(a, b, dtype=int)).max())


def mixed_samples() -> list[Sample]:
    return [Sample("t2i", "A bear waves.", target=picture(1)),
            Sample("reply", "User: Hello!\nAnswer as Pip.", "Good day to you."),
            Sample("vqa", "What color?", "red", image=picture(2)),
            Sample("t2i_dialogue", "Pip: I am here. Draw this moment.", target=picture(3))]


def write_character(folder: Path, record, count: int = 2) -> Path:
    """A folder with pictures 0.png, 1.png, ... and character.json: `record` as JSON, or as it is when text or bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        smooth(i).crop((0, 0, 64, 48)).save(folder / f"{i}.png")
    raw = record if isinstance(record, bytes) else (record if isinstance(record, str) else json.dumps(record)).encode()
    (folder / "character.json").write_bytes(raw)
    return folder


def stranger(folder: Path, bare: bool = False) -> Path:
    """A character that nothing here was made for, with all that training and evaluation can use; or, bare, no test."""
    def scene(i: int) -> dict:
        return {"image": f"{i}.png", "draw": f"Pip holds ball {i}.", "also": [f"Ball {i} and Pip."], "user": f"Hello {i}",
                "reply": f"I am Pip, friend number {i}!", "thinking": "Pip is here.",
                "instruction": f"Pip with ball {i}", "vqa": [{"question": "Who is it?", "answer": "Pip"}]}

    def prompt(color: str) -> dict:
        return {"text": f"A happy Pip holds a {color} ball on the beach.",
                "questions": [{"question": "What color is the ball?", "answer": color, "category": "held_color"},
                              {"question": "What does Pip hold?", "answer": "ball", "category": "held"}]}
    ask = {"question": "What color is the hat?", "options": ["red", "blue", "a long green one"], "answer": "blue"}
    record = {"name": "Pip", "description": "Pip is a small cat who waves.", "profile": "Pip likes the beach.",
              "scenes": [scene(i) for i in range(3)]}
    if not bare:
        record |= {"dialogues": [{"user": "Who are you?", "reply": "I am Pip."}],
                   "knowledge": [{"question": "What animal is Pip?", "answer": "a cat"}],
                   "prompts": [prompt(color) for color in ("pink", "yellow", "gray")],
                   "test": {"scenes": [scene(3), scene(4)], "vqa": [ask | {"image": "5.png"}], "knowledge": [ask] * 3,
                            "dialogues": [{"user": "Where do you live?", "reply": "On the beach, of course."}],
                            "prompts": [prompt("red") | {"questions": []}, prompt("blue"), prompt("green")]}}
    return write_character(folder, record, 6)


def mistake(capsys, main, *arguments) -> str:
    """The one line that a script prints at a user's mistake before it ends with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.run_script(lambda: main([str(argument) for argument in arguments]))
    return only_line(ended.value.code, capsys.readouterr().err)


def only_line(code: int, errors: str) -> str:
    """Above it may stand what a script had to tell before: its options, a progress bar."""
    rows = errors.splitlines()
    assert code == 2 and ["error: " in row for row in rows].index(True) == len(rows) - 1, errors
    return rows[-1]


def script(name: str, *arguments, cwd) -> subprocess.Popen:
    env = {**os.environ, "PYTHONUTF8": "1"}
    return subprocess.Popen([sys.executable, str(HERE / f"{name}.py"), *map(str, arguments)], cwd=cwd, env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")


# ---- stage 2: the sanity ladder --------------------------------------------------------------------------------------

def dice(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def drawing(model) -> dict:
    """What stage 2 trains."""
    return sft.trainable_parameters(model, grpo.Options(), grpo.is_generation_weight)


def grpo_options(**changes) -> grpo.Options:
    options = grpo.Options(precision="fp32", steps=4, window=2, window_end=3, group=2, prompts=2, micro_batch=3)
    return replace(options, **changes)


def test_the_window_and_the_noise_are_new_in_every_iteration():
    options = grpo.Options(window=3, window_end=6)
    starts = [grpo.window_start(options, iteration) for iteration in range(40)]
    assert set(starts) == {0, 1, 2, 3}                     # all that fit in the first six steps, and no other
    first = [torch.rand(1, generator=g).item() for i in range(4) for g in grpo.picture_generators(options, i)]
    assert len(set(first)) == len(first) == 4 * options.prompts


def test_the_step_at_t_1_stands_in_the_schedules_second_time(small):
    """A window that begins at pure noise: log p is recomputed with the schedule's own second time, and no other."""
    options = grpo_options()
    group = grpo.rollout(small, ["A bear."], options, 0, dice(0))[0]
    times = small.timesteps(options.steps, options.shift)
    assert torch.equal(group.t_second, times[1]) and group.trajectory[0].t == 1
    step, context = group.trajectory[0], group.context.repeat(options.group)
    with torch.no_grad():
        v = small.velocity(step.x, step.t, context)
    for t_second, same in ((times[1], True), (times[2], False)):
        log_p = grpo.sde_step(step.x, v, step.t, step.t_next, options.noise, t_second, step.x_next)[1]
        assert torch.allclose(log_p, step.log_p, atol=1e-6) == same
    x = torch.zeros(1, 1, 1)
    noisy = [float(grpo.sde_step(x, x, times[0], times[1], 1.0, t_second, z=x + 1)[0]) for t_second in times[1:3]]
    assert noisy[0] > noisy[1] > 0                         # later times are less noisy


def test_guidance_reaches_the_policy(small):
    """With a scale above 1 rollouts and updates are guided alike, at every time: the ratio before an update is 1."""
    options = grpo_options(guidance=3.0)
    plain, guided = (grpo.rollout(small, ["A bear."], replace(options, guidance=scale), 2, dice(0))[0]
                     for scale in (1.0, 3.0))
    assert not torch.equal(plain.trajectory[0].x, guided.trajectory[0].x)
    means = sft.Means(0)
    grpo.backward_pictures(small, guided, torch.arange(2), torch.ones(2), 1.0, options, means)
    small.zero_grad()
    assert means.result()["max_ratio_change"] < 1e-5


def test_rung_01_noise_zero_is_the_ode():
    x, v = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    for t, t_next in ((1.0, 0.8), (0.8, 0.5), (0.3, 0.0)):
        t, t_next = torch.tensor(t), torch.tensor(t_next)
        stepped = grpo.sde_step(x, v, t, t_next, 0.0, torch.tensor(0.8), z=torch.randn(2, 3, 4))[0]
        torch.testing.assert_close(stepped, euler(x, v, t, t_next))


@pytest.mark.parametrize("noise", [0.0, 0.7, 1.3])
def test_rung_02_the_sde_keeps_the_marginals_of_the_flow(noise):
    """Data of one Gaussian, x_0 ~ N(m, s^2): then x_t ~ N((1 - t) m, (1 - t)^2 s^2 + t^2), and the true velocity is
    known in closed form. From noise to data in many small steps, at any noise, the pictures must be the data's."""
    m, s, steps = 2.0, 0.5, 400
    generator = torch.Generator().manual_seed(0)

    def velocity(x, t):                    # E[n - x_0 | x_t]: regression of n - x_0 on x_t, both Gaussian
        covariance, variance = t - (1 - t) * s ** 2, (1 - t) ** 2 * s ** 2 + t ** 2
        return -m + covariance / variance * (x - (1 - t) * m)

    times = torch.linspace(1, 0, steps + 1)
    x = torch.randn(1, 20_000, 1, generator=generator)
    for t, t_next in zip(times, times[1:]):
        x, _ = grpo.sde_step(x, velocity(x, t), t, t_next, noise, times[1], z=torch.randn(x.shape, generator=generator))
        spread = float(((1 - t_next) ** 2 * s ** 2 + t_next ** 2) ** 0.5)
        if round(float(t_next), 4) in (0.75, 0.5, 0.25, 0.0):
            assert abs(float(x.mean()) - (1 - float(t_next)) * m) < 0.02 and abs(float(x.std()) - spread) < 0.02


def test_rung_03_log_p_is_that_of_its_gaussian():
    """Against torch.distributions, up to the constant that a ratio cancels. Mean and deviation are those of the step
    itself, from eps = 0 and eps = 1; whether they are the right ones, the next test asks."""
    torch.manual_seed(0)
    x, v, t, t_next = torch.randn(1, 50, 64), torch.randn(1, 50, 64), torch.tensor(0.7), torch.tensor(0.6)
    mean = grpo.sde_step(x, v, t, t_next, 2.0, z=torch.zeros(1, 50, 64))[0]
    scale = grpo.sde_step(x, v, t, t_next, 2.0, z=torch.ones(1, 50, 64))[0] - mean
    normal = torch.distributions.Normal(mean, scale)
    x_next, log_p = grpo.sde_step(x, v, t, t_next, 2.0, z=torch.randn(1, 50, 64))
    constant = normal.log_prob(mean).mean()
    torch.testing.assert_close(log_p[0], normal.log_prob(x_next).mean() - constant, atol=1e-5, rtol=1e-4)
    again = grpo.sde_step(x, v, t, t_next, 2.0, x_next=x_next)[1]
    assert torch.equal(again, log_p)


def test_rung_04_the_ratio_is_one_before_the_first_update(small):
    options = grpo_options()
    groups = grpo.rollout(small, ["A bear.", "A robot in the rain."], options, 1, dice(0, 1))
    assert [(len(group.trajectory), len(group.images)) for group in groups] == [(2, 2)] * 2
    means, params = sft.Means(0), list(drawing(small).values())
    before = [p.clone() for p in params]
    advantage, active = torch.tensor([[1.0, -1.0], [0.5, -0.5]]), torch.tensor([True, True])
    optimizer = torch.optim.SGD(params, lr=1e-3)
    grpo.update(small, groups, advantage, active, replace(options, updates=1), optimizer, means)
    result = means.result()
    assert result["max_ratio_change"] < 1e-6 and result["clip_fraction"] < 1e-6 and abs(result["loss"]) < 1e-6
    assert result["grad_norm"] > 1e-4 and any(not torch.equal(p, q) for p, q in zip(before, params))   # and it learns
    with torch.no_grad():
        for p, q in zip(params, before):
            p.copy_(q)
    small.requires_grad_(True)
    small.vae.requires_grad_(False)


def test_rung_05_the_ratio_is_one_in_half_precision_too():
    """bf16 products in rollout and update are the same products: the real base, the real options, long and short."""
    model = load(HERE / "tiny" / "base", "cpu").eval()
    params, means = drawing(model), sft.Means(0)
    options = grpo.Options(group=2, prompts=2, updates=1, precision="bf16")
    prompts = ["A bear in the meadow, under a cloudy sky, holding a red kite and laughing.", "A gray cat."]
    with torch.autocast("cpu", torch.bfloat16):
        groups = grpo.rollout(model, prompts, options, 2, dice(0, 1))
    advantage, active = torch.tensor([[1.0, -1.0]] * 2), torch.tensor([True, True])
    optimizer = torch.optim.SGD(params.values(), lr=0.0)
    grpo.update(model, groups, advantage, active, options, optimizer, means)
    assert means.result()["max_ratio_change"] < 1e-6


@pytest.mark.parametrize("ratio, advantage, learns", [
    (1.2, 1.0, False), (0.8, 1.0, True), (1.2, -1.0, True), (0.8, -1.0, False)])
def test_rung_06_the_four_cases_of_the_clip(ratio, advantage, learns):
    """Clipped only where the ratio has already gone the way that the advantage wants."""
    log_p = torch.tensor([math.log(ratio)], requires_grad=True)
    loss, watch = grpo.clipped_loss(log_p, torch.zeros(1), torch.tensor([advantage]), 0.1)
    loss.backward()
    assert (log_p.grad.abs().item() > 0) == learns and watch["clip_fraction"] == float(not learns)
    expected = -min(ratio * advantage, min(max(ratio, 0.9), 1.1) * advantage)
    assert math.isclose(loss.item(), expected, rel_tol=1e-5)


def test_rung_07_a_constant_per_prompt_changes_nothing():
    rewards = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [0.0, 0.0, 1.0]])
    a, active = grpo.advantages(rewards)
    shifted = grpo.advantages(rewards + torch.tensor([[10.0], [-3.0], [0.5]]))[0]
    torch.testing.assert_close(a, shifted, atol=1e-5, rtol=1e-5)        # a constant per prompt changes nothing
    assert active.tolist() == [True, False, True] and torch.all(a[1] == 0)
    torch.testing.assert_close(a[0], torch.tensor([-1.5 ** 0.5, 0, 1.5 ** 0.5]), atol=1e-3, rtol=1e-3)
    spike = torch.zeros(1, 100)
    spike[0, 0] = 1
    assert grpo.advantages(spike)[0].max() == 5.0                       # clipped


@pytest.mark.parametrize("begin", [0, 1, 2])
@torch.no_grad()
def test_rung_08_only_the_window_is_noisy(small, begin):
    """Before the window and behind it, a rollout goes the sampler's own way."""
    options, context = grpo_options(), small.context(["A bear."] * 2)
    group = grpo.rollout(small, ["A bear."], options, begin, dice(0))[0]
    (t, _, first, _, _), (_, t_end, _, last, _) = group.trajectory
    times = small.timesteps(4, options.shift)
    assert torch.equal(torch.stack((t, t_end)), times[[begin, begin + 2]])
    x = torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    for k in range(begin):
        x = euler(x, small.velocity(x, times[k], context), times[k], times[k + 1])
    torch.testing.assert_close(first, x, atol=1e-5, rtol=1e-5)
    for k in range(begin + 2, 4):
        last = euler(last, small.velocity(last, times[k], context), times[k], times[k + 1])
    assert all(apart(a, b) <= 1 for a, b in zip(group.images, small.decode(last), strict=True))


def test_rung_09_only_the_gen_expert_and_the_image_head_learn(small):
    names = set(drawing(small))
    heads = ("vae2llm", "llm2vae", "time_embedder")
    assert names and all("moe_gen" in n or n.split(".")[0] in heads for n in names)
    assert not [n for n, p in small.named_parameters() if p.requires_grad and n not in names]
    small.requires_grad_(True)
    small.vae.requires_grad_(False)


def test_rung_10_redness_as_reward_rises():
    """The ladder's last rung but one: with red less the other colors as reward, a few updates make pictures redder."""
    model = load(HERE / "tiny" / "base", "cpu").eval()
    params = drawing(model)
    options = grpo.Options(steps=6, window=2, window_end=4, group=6, prompts=2, micro_batch=12, updates=1)
    optimizer = torch.optim.AdamW(params.values(), lr=3e-4)

    def redness(images):
        x = torch.stack([to_pixels(i) for i in images])
        return (x[:, 0] - x[:, 1:].mean(1)).mean((1, 2))
    means, prompts = [], ["A bear in the meadow.", "A gray cat at home."]
    for i in range(6):
        with torch.autocast("cpu", torch.bfloat16):
            groups = grpo.rollout(model, prompts, options, i % 3, dice(2 * i, 2 * i + 1))
        reward = torch.stack([redness(group.images) for group in groups])
        means.append(float(reward.mean()))
        advantage, active = grpo.advantages(reward)
        grpo.update(model, groups, advantage, active, options, optimizer, sft.Means(0))
    assert sum(means[-2:]) / 2 > sum(means[:2]) / 2 + 0.01, means


def test_rung_11_every_real_reward_varies_in_a_group():
    character = load_character("coco")
    model = load(HERE / "tiny" / "base", "cpu").eval()
    judge = Rewards(RewardOptions(), [scene["image"] for scene in character.scenes], model)
    prompts = character.prompts[:2]
    images = model.sample_images([p.text for p in prompts for _ in range(4)], list(range(8)), steps=6)
    terms = judge(images, prompts)
    varied = spread(terms)
    assert all(varied[name] > 1e-4 for name in ("vqa", "clip_t", "diversity", "total")), varied
    assert terms["diversity"].shape == (2, 4)


# ---- the model against references ------------------------------------------------------------------------------------

def test_text_path_is_qwen2(tokenizer):
    """Same weights in ours and in transformers' Qwen2: same logits, same greedy tokens."""
    ours = small_model(tokenizer, qk_norm=False)
    c = ours.config
    theirs = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=c.vocab_size, hidden_size=c.hidden_size, intermediate_size=c.intermediate_size,
        num_hidden_layers=c.num_hidden_layers, num_attention_heads=c.num_attention_heads,
        num_key_value_heads=c.num_key_value_heads, rms_norm_eps=c.rms_norm_eps, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta})).eval()
    weights = {k: v for k, v in ours.language_model.state_dict().items() if "moe_gen" not in k}
    theirs.load_state_dict(weights, strict=True)
    ids = torch.randint(0, c.vocab_size, (2, 17), generator=torch.Generator().manual_seed(1))
    und = ours.language_model.model.embed_tokens(ids)
    hidden = ours.language_model.model(und, und[:, :0], torch.arange(17).expand(2, 17))[0]
    torch.testing.assert_close(ours.language_model.lm_head(hidden), theirs(ids).logits, atol=2e-5, rtol=1e-5)
    prompt = [ours.bos, *tokenizer.encode("Hello there"), ours.eos, ours.bos]
    expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=ours.eos,
                               pad_token_id=ours.eos)[0, len(prompt):].tolist()
    said = ours.generate_text(["Hello there"], max_tokens=8)[0]
    assert said == tokenizer.decode([i for i in expected if i != ours.eos]).strip()


def test_attention_written_out_is_torchs():
    """The CPU's path against the one of a GPU, padding and gradients included."""
    dice = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, n, 16, generator=dice, requires_grad=True) for n in (5, 9, 9))
    mask = torch.zeros(2, 1, 5, 9).masked_fill(torch.rand(2, 1, 5, 9, generator=dice) < 0.5, -torch.inf)
    mask[..., 0] = 0
    ours, theirs = attend(q, k, v, mask), torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (ours, theirs))):
        torch.testing.assert_close(a, b)


def test_vision_tower_is_siglip(small):
    c = small.config
    theirs = SiglipVisionModel(SiglipVisionConfig(
        hidden_size=c.vit_hidden_size, intermediate_size=c.vit_intermediate_size,
        num_hidden_layers=c.vit_num_hidden_layers, num_attention_heads=c.vit_num_attention_heads, image_size=32,
        patch_size=16, vision_use_head=False)).eval()
    weights = dict(small.vit_model["vision_model"].state_dict())
    linear = weights["embeddings.patch_embedding.weight"]              # (C, p p rgb) -> their conv's (C, rgb, p, p)
    weights["embeddings.patch_embedding.weight"] = linear.reshape(-1, 16, 16, 3).permute(0, 3, 1, 2).contiguous()
    inner = getattr(theirs, "vision_model", theirs)
    missing = inner.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys and all("head" in k or "position_ids" in k for k in missing.missing_keys)
    pixels = to_pixels(picture(4))[None]
    places = torch.arange(4)[None]
    ours = small.vit_model["vision_model"](patchify(pixels, 16), places)
    torch.testing.assert_close(ours, theirs(pixel_values=pixels).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_patchify_and_position_table():
    x = torch.randn(2, 5, 6, 8)
    torch.testing.assert_close(unpatchify(patchify(x, 2), 2, 3, 4), x, rtol=0, atol=0)
    second = x[0, :, 0:2, 2:4].permute(1, 2, 0).flatten()               # cell of the first row, channel fastest
    assert torch.equal(patchify(x, 2)[0, 1], second)
    column, row = sincos_table(16, 3).reshape(3, 3, 16).split(8, -1)    # first half, second half
    assert torch.equal(column[0, 2], column[2, 2]) and not torch.equal(column[2, 0], column[2, 2])
    assert torch.equal(row[2, 0], row[2, 2]) and not torch.equal(row[0, 2], row[2, 2])


def test_seven_billion_names_and_sizes():
    """The published sizes give the published parameters, by name where the list is at hand, and always by count."""
    with torch.device("meta"):
        big = UniModel(Config(
            vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
            num_key_value_heads=4, head_dim=128, vit_hidden_size=1152, vit_intermediate_size=4304,
            vit_num_hidden_layers=26, vit_num_attention_heads=16, vit_patch_size=14, vit_max_patches=70, ae_ch=128,
            ae_num_res_blocks=2, ae_norm_groups=32, max_latent_size=64))
    state = {k: v for k, v in big.state_dict().items() if not k.startswith("vae.")}
    assert len(state) == 1223 and sum(v.numel() for v in state.values()) == 14_607_260_128
    vae = big.vae.state_dict()
    assert len(vae) == 244 and sum(v.numel() for v in vae.values()) == 83_819_683
    listed = HERE.parent / "shared" / "golden" / "names_7b.txt"
    if listed.exists():
        lines = (line.split("  ") for line in listed.read_text().splitlines() if "  [" in line)
        published = {name.replace("{i}", str(i)): json.loads(shape) for name, shape, *times in lines
                     for i in range(int(times[0][1:]) if times else 1)}
        assert published == {k.removeprefix("vae."): list(v.shape) for k, v in big.state_dict().items()}


# ---- the model and stage 2 against the published code's numbers ------------------------------------------------------
# All cases but c5d_edit and c6b_edit, as no part of the method edits pictures, and the "cps" SDE, which nobody uses.

@pytest.fixture
def golden():
    """The model that the numbers are of, its `decoder` and `head`, numbers, and take(case) -> tensors by name."""
    if not (GOLDEN / "golden.safetensors").exists():
        pytest.skip(f"no {GOLDEN}")
    record, tensors = json.loads((GOLDEN / "golden.json").read_text()), load_file(GOLDEN / "golden.safetensors")
    llm, vit, ae, bagel = (record[name] for name in ("llm_config", "vit_config", "ae_params", "bagel_config"))
    sizes = "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size"
    published = llm | {"vit_" + k: vit[k] for k in sizes} | {"ae_" + k: v for k, v in ae.items()} | ae | bagel
    config = Config(**{k: v for k, v in published.items() if k in Config.__dataclass_fields__}, square=False,
                    head_dim=0, image_size=16, vit_max_patches=bagel["vit_max_num_patch_per_side"], ae_norm_groups=32)
    special = [record["special_ids"][k] for k in ("bos_token_id", "eos_token_id", "start_of_image", "end_of_image")]
    model = UniModel(config, SimpleNamespace(              # a tokenizer whose words are token ids
        encode=lambda text, **_: [int(word) for word in text.split()],
        decode=lambda ids: " ".join(map(str, ids)), convert_tokens_to_ids=lambda tokens: special)).eval()
    weights = {k.removeprefix("w/").replace("ae/", "vae."): v for k, v in tensors.items() if k[:2] in ("w/", "ae")}
    for name in ("latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed"):                # computed, never loaded
        torch.testing.assert_close(model.state_dict()[name], weights[name], atol=5e-4, rtol=0, check_dtype=False)
        weights[name] = model.state_dict()[name]
    model.load_state_dict(weights)
    decoder, head = (model.language_model[name] for name in ("model", "lm_head"))
    return SimpleNamespace(model=model, decoder=decoder, head=head, numbers=record["numbers"], take=lambda case: {
        k.split("/", 2)[2]: v for k, v in tensors.items() if k.startswith(case + "/")})


def close(ours, theirs, bound=2e-5):
    """The largest error is at most `bound` of the largest golden value: 1e-4 would let a wrong eps in a norm pass."""
    ours, theirs = torch.as_tensor(ours).detach().double(), torch.as_tensor(theirs).double()
    error, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    assert ours.shape == theirs.shape and error <= bound * largest, f"error {error:.2e}, largest value {largest:.2e}"


def close_gradients(grads: dict, norms: dict, g: dict):
    """Each norm to 1e-4 of itself (two are zero in exact arithmetic: hence the floor), and the tensors there are."""
    for name, norm in norms.items():
        assert grads[name].norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-8), name
    for name in g.keys() & {f"grad/{name}" for name in grads}:
        close(grads[name.removeprefix("grad/")], g[name])


def numerals(ids) -> str:
    return " ".join(map(str, ids.tolist()))


def unnormalized(x) -> Image.Image:
    """The picture that (3, h, w) in [-1, 1] came from."""
    return Image.fromarray((x.permute(1, 2, 0) * 127.5 + 127.5).round().to(torch.uint8).numpy())


def listen(module) -> list:
    """Whatever the module is given and gives from now on."""
    heard = []
    module.register_forward_hook(lambda module, inputs, output: heard.append((inputs, output)))
    return heard


@pytest.mark.parametrize("case", ["c1_text", "c1b_system_text", "c2a_sq", "c2b_ns", "c2c_text_img_text"])
@torch.no_grad()
def test_golden_reading_and_writing(golden, case):
    g, model, heard, context, length = golden.take(case), golden.model, listen(golden.decoder), None, 0
    parts = [name for name in sorted(g) if name.endswith(("text_ids", "vit_image"))]
    texts = {name: numerals(g[name]) for name in parts if name.endswith("ids")}
    looks = {name: unnormalized(g[name]) for name in parts if name.endswith("image")}
    for name in parts:                                     # each read behind what was read before
        context = model.context([texts.get(name)], [looks.get(name)], context)
        position = g[name[:5] + "_position_ids"]
        assert torch.equal(context.position[context.position < PAD][length:], position)
        close(golden.head(heard[-1][1][0][0, :len(position)]), g[name[:5] + "_logits"])
        length += len(position)
    assert context.next == g["next_rope"] and length == g["kv_len"]
    if case == "c1_text":
        close(context.kv[0][0][0, :, :length].transpose(0, 1), g["key_cache_layer0"])
        close(context.kv[1][1][0, :, :length].transpose(0, 1), g["value_cache_layer1"])
    for token, logits in zip(g["generated_ids"], g["generated_logits"], strict=True):
        hidden, context = model.extend(context, token.view(1, 1))
        close(golden.head(hidden[0, 0]), logits)
    if len(texts) == 1:                                    # [look][prompt], as our samples are
        assert model.generate_text([*texts.values()], [*looks.values()], 5) == [numerals(g["generated_ids"][1:])]


@torch.no_grad()
def test_golden_pictures(golden):
    model, heard = golden.model, listen(golden.model.vit_model["vision_model"])
    for g in golden.take("c2_vit_sq"), golden.take("c2_vit_ns"):
        picture = Image.fromarray(g["raw_uint8"].numpy())
        patches, places = model.patches(picture)
        x, _ = model.embed_und(model.readings([None], [picture]))
        assert torch.equal(places, g["vit_position_ids"])
        close(patches, g["patches"], 1e-6)
        close(heard[-1][1][0], g["vit_features"], 5e-6)    # an even smaller one: LayerNorm's eps
        close(x[0, 1:1 + len(places)], g["llm_tokens"], 5e-6)
    g, table = golden.take("c8_transform"), golden.numbers["c8_resize_table"]
    raw = Image.fromarray(g["raw_uint8"].numpy())
    assert np.array_equal(fit(raw, model.config, 56, 14, 28), unnormalized(g["image"]))
    for name in table.keys() - {"format"}:
        longest, shortest, stride = (int(x) for x in name.split("_") if x.isdigit())
        area = (2007040 if "mp2007040" in name else 14 * 14 * 9 * 1024) / int(name[-1])
        for w, h, *size in table[name]:
            assert fitted_size(w, h, longest, shortest, stride, area) == tuple(size)


@pytest.mark.parametrize("case", ["c3a_ns", "c3b_sq_t1", "c3c_think"])
@torch.no_grad()
def test_golden_velocity(golden, case):
    g, model, heard = golden.take(case), golden.model, listen(golden.decoder)
    model.grid = tuple((g["image_size_hw"] // 4).tolist())
    free = model.context([numerals(g["system_ids"]) if "system_ids" in g else None])
    context = model.context([numerals(g["prompt_ids"])], before=free)
    context = model.context([numerals(g["think_ids"])], before=context) if "think_ids" in g else context
    assert (context.next == g["position_ids"]).all() and (free.next == g["position_ids_uncond"]).all()
    cond, uncond = (model.velocity(g["x_t"][None], g["t"], c) for c in (context, free))
    und, gen = heard[-1][0][:2]
    close(torch.cat((und[0, :1], gen[0], und[0, 1:])), g["llm_input"])
    close(cond[0], g["v_cond"])
    close(uncond[0], g["v_uncond"])
    close(model.velocity(g["x_t"][None], g["t"], context, free, 4.0)[0], g["v_cfg_global"])
    by_token = cond.transpose(0, 1), uncond.transpose(0, 1)      # renorm by channel: every token a picture of its own
    close(guide(*by_token, 4.0)[:, 0], g["v_cfg_channel"])


@pytest.mark.parametrize("case", ["c4_ode", "c4b_interval"])
@torch.no_grad()
def test_golden_sampling(golden, case):
    g, model, seen = golden.take(case), golden.model, []
    model.grid = 4, 6

    def step(x, v, t, t_next):
        seen.append((x[0], v[0], t))
        return euler(x, v, t, t_next)
    context = model.context([numerals(g["prompt_ids"])])
    x = model.flow(g["noise"][None], context, 5, 3.0, 4.0, g["cfg_interval"].tolist(), step)
    for ours, name in zip(zip(*seen), ("x_ts", "v_ts", "timesteps"), strict=True):
        close(torch.stack(ours), g[name])
    close(x[0], g["final_latent_tokens"])
    if case == "c4_ode":
        close(latent := unpatchify(x, 2, 4, 6), g["final_latent_map"])
        close(model.vae.decode(latent), g["image_float"])
        assert np.array_equal(model.decode(x)[0], g["image_uint8"])


def unpacked(model, g: dict, numbers: dict) -> list[Example]:
    """The samples of a golden pack, each as a row of its own, made by `prepare`; a dialogue of two turns as it is."""
    lengths, examples, nothing = numbers["sample_lens"], [], torch.zeros(0, dtype=torch.long)
    ids, labels, und = (torch.full((sum(lengths),), value) for value in (0, -100, True))
    ids[g["packed_text_indexes"]] = g["packed_text_ids"]
    labels[g.get("ce_loss_indexes", nothing)] = g.get("packed_label_ids", nothing)
    und[g.get("packed_vae_token_indexes", nothing)] = False     # our rows hold only the marks round the latents
    latents = iter(zip(g.get("padded_latent", []), numbers.get("patchified_vae_latent_shapes", [])))
    for i, (keep, *row) in enumerate(zip(*(x.split(lengths) for x in (und, ids, labels, g["packed_position_ids"])))):
        row, latent = [x[keep] for x in row], None
        texts = [text.split(f" {model.eos}")[0] for text in numerals(row[0]).split(f"{model.bos} ")[1:]]
        sample = Sample("", *(texts + [None, None])[:2])
        if f"sample{i}_image0" in g:
            sample.image = unnormalized(g[f"sample{i}_image0"])
        if not keep.all():
            sample.target, (z, (h, w)) = Image.new("RGB", (1, 1)), next(latents)
            latent = torch.stack((z[:, :2 * h, :2 * w], torch.zeros(16, 2 * h, 2 * w)))
        examples.append(e := model.prepare(sample, latent) if len(texts) < 3 else Example(*row))
        assert all(map(torch.equal, row, (e.ids, e.labels, e.position)))
    return examples


@pytest.mark.parametrize("case", ["c5a_t2i", "c5a2_t2i_shift3", "c5b_und", "c5c_mixed"])
def test_golden_training(golden, case):
    g, model = golden.take(case), golden.model
    numbers = {k.split("/")[1]: v for k, v in golden.numbers.items() if k.startswith(case + "/")}
    examples = unpacked(model, g, numbers)
    at = g["packed_position_ids"].split(numbers["sample_lens"])
    mask = torch.block_diag(*(seen <= seen[:, None] for seen in at))                      # the rule at model.py's head
    assert torch.equal(mask, g["attention_mask"].bool())
    counts = [0 if e.latent is None else e.latent[0, 0].numel() // 4 for e in examples]
    raw, noise = (g.get(name, torch.zeros(0, 64)).split(counts) for name in ("packed_timesteps", "noise"))
    t = torch.stack([torch.sigmoid(r.flatten()[0]) if len(r) else torch.tensor(0.0) for r in raw])
    v, logits = listen(model.llm2vae), listen(golden.head)
    losses = model(examples, t=shift_time(t, numbers["timestep_shift"]), noise=list(noise))
    total = (0.25 * losses.ce.sum() / losses.ce_tokens.sum().clamp(min=1)
             + losses.mse.sum() / losses.mse_tokens.sum().clamp(min=1))
    close(total, g["loss"])
    if "ce" in g:
        close(logits[0][1][:len(g["ce"])], g["ce_logits"])
        close(losses.ce, torch.stack([ce.sum() for ce in g["ce"].split(losses.ce_tokens.tolist())]))
    if "mse" in g:
        close(torch.cat([row[:n] for row, n in zip(v[0][1], counts)]), g["v_pred"])
        close(losses.mse, torch.stack([mse.sum() for mse in g["mse_per_token"].split(counts)]))
    if "grad_l2_norm" in numbers:
        total.backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert grads.keys() == numbers["grad_l2_norm"].keys()
        close_gradients(grads, numbers["grad_l2_norm"], g)


@pytest.mark.parametrize("noise", [0.7, 1.3])
def test_golden_sde_step(golden, noise):
    g, times = golden.take("c7_sde"), golden.model.timesteps(14, 3.0)
    close(times, g["schedule"], 1e-6)
    theirs = zip(*(g[f"nl{noise}_{name}"] for name in ("mean", "prev_sample", "log_prob", "log_prob_v2")))
    for i, v, x, eps, (mean, x_next, *log_p) in zip(g["step_index"], g["v"], g["x_t"], g["variance_noise"], theirs):
        where = times[i], times[i + 1], noise, times[1]
        middle, _ = grpo.sde_step(x[None], v[None], *where, z=0 * eps[None])
        ours, ours_log_p = grpo.sde_step(x[None], v[None], *where, z=eps[None])
        _, other_log_p = grpo.sde_step(x[None], (v + 0.05 * x)[None], *where, x_next[None])
        close(middle[0], mean)
        close(ours[0], x_next)
        close(torch.cat((ours_log_p, other_log_p)), torch.stack(log_p))


@pytest.mark.parametrize("case", ["c7c_learn_same", "c7c_learn_off"])
def test_golden_rollout_and_update(golden, monkeypatch, case):
    path, g, s = golden.take("c7b_grpo"), golden.take(case), golden.numbers["c7b_grpo/settings"]
    options = grpo.Options(
        steps=s["num_timesteps"] - 1, shift=s["timestep_shift"], noise=s["noise_level"], window=s["window_size"],
        guidance=s["cfg_text_scale"], group=1, updates=1, clip_range=1e-5, clip=1e9, precision="fp32")
    model, begin, final, grads, means = golden.model, s["window_begin"], [], {}, sft.Means(0)
    model.grid, model.decode, params = (4, 6), lambda x: final.append(x) or [], drawing(model)
    dice = iter((path["init_noise"], *path["variance_noises"][begin:begin + options.window]))
    monkeypatch.setattr(torch, "randn", lambda shape, generator: next(dice)[None])
    group = grpo.rollout(model, [numerals(path["prompt_ids"])], options, begin, [None])[0]
    t, _, before, after, log_p = (torch.stack(x) for x in zip(*group.trajectory))
    close(t, path["timesteps"])
    close(torch.cat((before[:1], after))[:, 0], path["latents"])
    close(log_p[:, 0], path["log_probs"])
    close(final[0][0], path["final_latent_tokens"])
    old = g["old_log_probs"][:, None]
    group.trajectory = [step._replace(log_p=log_p) for step, log_p in zip(group.trajectory, old)]
    optimizer = SimpleNamespace(zero_grad=lambda set_to_none: None,    # theirs is the sum of the steps, ours their mean
                                param_groups=[{"params": list(params.values())}],
                                step=lambda: grads.update({k: options.window * p.grad for k, p in params.items()}))
    advantage, active = g["advantage"][:, None], torch.tensor([True])
    grpo.update(model, [group], advantage, active, options, optimizer, means)
    assert {k for k in params if "moe_gen" in k} == set(golden.numbers["grpo/trained_parameters"])
    close_gradients(grads, golden.numbers[case + "/grad_l2_norm"], g)
    watched, side = means.result(), 1 if g["advantage"] > 0 else 2
    close(watched["loss"], g["policy_loss"])
    close(watched["clip_fraction"], g["clipfrac"][side])   # they count both sides, we the one that stops a gradient


@torch.no_grad()
def test_golden_parts(golden):
    vae, embedder, g = golden.model.vae, golden.model.time_embedder, golden.take("c6_ae")
    close(vae.encoder(g["image"]), g["moments"])
    close(vae.encode(g["image"])[0], g["latent_mean"])
    close(vae.decode(g["latent_mean"]), g["decoded"])
    g, heard = golden.take("c9_parts"), listen(embedder.mlp)
    close(embedder(g["t"]), g["timestep_embed"])
    close(heard[0][0][0], g["timestep_sinusoid"])
    for ours, name in zip(golden.decoder.rope(torch.tensor([[0, 1, 2, 7, 100]])), ("rope_cos", "rope_sin")):
        close(ours[0, :, 0], g[name])
    g = golden.take("c7d_adv")                             # two prompts that alternate
    close(grpo.advantages(g["rewards"].view(4, 2).T)[0], g["advantages"].view(4, 2).T)


# ---- the model against itself ----------------------------------------------------------------------------------------

def log_likelihood(model, prompts, responses, looks=None):
    """log p(response, end | look, prompt) in one pass: sums (B,) in nats, and numbers of tokens (B,)."""
    losses = model(model.readings(prompts, looks, responses))
    return -losses.ce, losses.ce_tokens


def test_cache_is_no_cache(small):
    """Reading a prompt first and the response behind it gives what one pass over both gives."""
    samples = [Sample("reply", "What is it?", "It is a red kite."),
               Sample("vqa", "What color is this thing?", "blue", image=picture(5))]
    whole = [log_likelihood(small, [s.prompt], [s.response], [s.image])[0] for s in samples]
    for s, expected in zip(samples, whole):
        context = small.context([s.prompt], [s.image])
        ids = [small.bos, *small.text_ids(s.response), small.eos]
        total = torch.zeros(1)
        for token, following in zip(ids, ids[1:]):                      # one token at a time
            hidden, context = small.extend(context, torch.tensor([[token]]))
            total = total + small.language_model.lm_head(hidden[:, -1]).log_softmax(-1)[:, following]
        torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-5)


def test_batched_is_one_by_one(small):
    prompts, seeds = ["A bear.", "A much longer description of a blue robot at the harbor."], [3, 4]
    together = small.flow(small.noise(seeds), small.context(prompts), 4, scale=3.0)
    alone = torch.cat([small.flow(small.noise([s]), small.context([p]), 4, scale=3.0) for p, s in zip(prompts, seeds)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    looks, answers = [None, picture(6)], ["yes", "no, it is not"]
    together = log_likelihood(small, prompts, answers, looks)[0]
    alone = torch.cat([log_likelihood(small, [p], [a], [i])[0] for p, a, i in zip(prompts, answers, looks)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-5)
    said = small.generate_text(prompts, looks, 6)
    assert said == [small.generate_text([p], [i], 6)[0] for p, i in zip(prompts, looks)]


def test_replies_that_have_ended_are_not_computed_on(monkeypatch):
    """They leave the batch, and the others go on as if alone: the real base, replies of several lengths."""
    model, rows, extend = load(HERE / "tiny" / "base", "cpu").eval(), [], UniModel.extend
    prompts = [reply_prompt("Edda", "Edda is a girl who bakes bread. Her dog is called Nut.", "", line)
               for line in ("What is your dog called?", "Tell me a story about the sea.", "Hello!")]
    alone = [model.generate_text([prompt], max_tokens=40)[0] for prompt in prompts]
    monkeypatch.setattr(UniModel, "extend", lambda *a: [rows.append(len(a[2])), extend(*a)][1])
    assert model.generate_text(prompts, max_tokens=40) == alone
    lengths = sorted(len(model.text_ids(text)) for text in alone)
    assert lengths[0] < lengths[-1] < 40 and rows[0] == 3 and rows[-1] == 1
    assert sum(rows) == sum(lengths) + len(prompts)                   # a token each, and the ends


def test_training_sees_what_sampling_sees(small):
    """The velocity inside the training loss is the one that the sampler uses on a cached context."""
    prompts, t = ["A bear waves.", "A robot sits in the long, long rain."], torch.tensor(0.6)
    noise = small.noise([1, 2])
    zeros = torch.zeros(2, 16, *[2 * small.config.max_latent_size] * 2)
    examples = [small.prepare(Sample("t2i", p, target=picture()), zeros) for p in prompts]     # x_0 = 0, so x_t = t noise
    losses = small(examples, t=t.expand(2), noise=list(noise))
    v = small.velocity(t * noise, t, small.context(prompts))
    torch.testing.assert_close(losses.mse, (v - noise).square().mean(-1).sum(1), atol=1e-4, rtol=1e-5)


def test_repeated_context_serves_a_group(small):
    context, x = small.context(["A bear.", "A robot in the rain."]), small.noise([1, 2, 3, 4])
    grouped = small.velocity(x, torch.tensor(0.5), context.repeat(2))
    single = small.velocity(x, torch.tensor(0.5), small.context(["A bear."] * 2 + ["A robot in the rain."] * 2))
    torch.testing.assert_close(grouped, single, atol=1e-5, rtol=1e-5)


def test_checkpointing_changes_nothing(small):
    examples = [small.prepare(s) for s in mixed_samples()]

    def gradients(checkpointing):
        small.language_model.model.gradient_checkpointing = checkpointing
        small.zero_grad()
        losses = small(examples, range(4))
        (losses.ce.sum() + losses.mse.sum()).backward()
        small.language_model.model.gradient_checkpointing = False
        return {n: p.grad.clone() for n, p in small.named_parameters() if p.grad is not None}
    plain, saved = gradients(False), gradients(True)
    assert plain.keys() == saved.keys() and len(plain) > 100
    for name in plain:
        torch.testing.assert_close(plain[name], saved[name], msg=name)
    small.zero_grad()


def test_guidance():
    torch.manual_seed(0)
    cond, free = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    guided = guide(cond, free, 3.0).flatten(1)
    plain = (free + 3 * (cond - free)).flatten(1)
    assert torch.all(guided.norm(dim=1) <= cond.flatten(1).norm(dim=1) * (1 + 1e-5))        # never longer ...
    torch.testing.assert_close(torch.cosine_similarity(guided, plain), torch.ones(2))       # ... in the same direction
    torch.testing.assert_close(guide(cond, cond, 5.0), cond)


def test_tokenizer_encodes_everything(tokenizer):
    for text in ("Coco & café – 猫 🦦 \t tabs\n", "x" * 50, "<|im_end|>"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


# ---- folders ---------------------------------------------------------------------------------------------------------

def test_save_and_load(small, tmp_path):
    save(small, tmp_path / "a", {"note": 1})
    again = load(tmp_path / "a", "cpu")
    assert again.run == {"note": 1}
    for (name, p), (_, q) in zip(small.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(p, q), name


@pytest.mark.parametrize("harm, words", [
    ("no config", "config.json"), ("broken config", "config.json"), ("cut weights", "model.safetensors"),
    ("other sizes", "another shape"), ("no ae", "ae.safetensors")])
def test_broken_checkpoints_are_refused(small, tmp_path, harm, words):
    save(small, tmp_path)
    if harm == "no config":
        (tmp_path / "config.json").unlink()
    if harm == "broken config":
        (tmp_path / "config.json").write_text("{")
    if harm == "cut weights":
        with open(tmp_path / "model.safetensors", "r+b") as f:
            f.truncate(5000)
    if harm == "other sizes":
        record = json.loads((tmp_path / "config.json").read_text())
        record["model"]["intermediate_size"] = 96
        (tmp_path / "config.json").write_text(json.dumps(record))
    if harm == "no ae":
        (tmp_path / "ae.safetensors").unlink()
    with pytest.raises(UserError, match=words) as caught:
        load(tmp_path, "cpu")
    assert "\n" not in str(caught.value)


def test_a_cache_of_the_hub_and_leftovers_of_a_kill_are_read(small, tmp_path):
    """A hub's cache holds links into a store. A kill while saving leaves a file that nobody reads."""
    cache = tmp_path / "models--us--tiny"
    snapshot = cache / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    save(small, cache / "blobs")
    for i, file in enumerate(sorted((cache / "blobs").iterdir())):
        stored = file.rename(file.with_name(f"blob{i}"))
        (snapshot / file.name).symlink_to(Path("../../blobs") / stored.name)
    (snapshot / "model.safetensors.new").write_bytes(b"half of")
    again = load(snapshot, "cpu")
    assert all(torch.equal(p, again.state_dict()[name]) for name, p in small.state_dict().items())
    with pytest.raises(UserError, match=f"cache of the hub; give {re.escape(str(snapshot))}"):
        load(cache, "cpu")
    (snapshot / "ae.safetensors").resolve().unlink()                                      # its download never ended
    with pytest.raises(UserError, match="ae.safetensors: is missing"):
        load(snapshot, "cpu")


@pytest.mark.parametrize("content, words", [
    ({"config.json": {"model_type": "qwen2"}}, "is of a qwen2, not of a unified model"),
    ({"config.json": {"model_type": "llama"}, "model.safetensors": "x"}, "is of a llama"),
    ({"model_index.json": {}}, "a pipeline of the diffusers package"),
    ({"adapter_config.json": {"r": 8}}, "holds adapters without their base"),
    ({"adapter_config.json": {"r": 8}, "config.json": {"model": {}}}, "config.json: its base"),
    ({"config.json": [1]}, "holds no JSON object"), ({"config.json": {"model": {"hidden_size": 64}}}, "not a model con"),
    ({"model.safetensors.new": "half"}, "give a checkpoint folder such as"), ({}, "give a checkpoint folder such as"),
    ({"llm_config.json": {}, "model.safetensors.index.json": {"weight_map": [1]}}, "its weight_map lists no files"),
    ({"llm_config.json": {}, "model.safetensors.index.json": {"weight_map": {"a": "b"}}}, "b: is missing")])
def test_folders_that_are_no_checkpoint_are_one_line(tmp_path, content, words):
    for name, value in content.items():
        (tmp_path / name).write_text(value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        load(tmp_path, "cpu")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_write_beside_keeps_the_old_file(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    def fails(path):
        path.write_text("half")
        raise OSError("disk full")
    with pytest.raises(OSError):
        files.write_beside(target, fails)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


# ---- data ------------------------------------------------------------------------------------------------------------

SCENE = {"image": "0.png", "draw": "Pip holds a red kite.", "also": ["A red kite in the hand of Pip."], "user": "What is that?", "reply": "My kite!",
         "thinking": "Pip is proud.", "instruction": "Pip, kite, sky.",
         "vqa": [{"question": "What is red?", "answer": "the kite"}]}
FULL = {
    "name": "Pip", "description": "Pip is a fox.", "opening": "Hello!", "profile": "Pip lives in a mill.",
    "scenes": [SCENE], "dialogues": [{"user": "Hi", "reply": "Hello, you."}],
    "knowledge": [{"question": "Who is Pip?", "answer": "a fox"}],
    "prompts": [{"text": "Pip sleeps.", "questions": [{"question": "Asleep?", "answer": "yes", "weight": 2}]}],
    "test": {"scenes": [SCENE | {"image": "1.png", "draw": "Pip flies a kite.", "user": "Is it windy?"}], "dialogues": [{"user": "Bye", "reply": "Come back."}],
             "knowledge": [{"question": "What is Pip?", "options": ["a fox", "a cat"], "answer": "a fox"}],
             "vqa": [{"image": "1.png", "question": "What color?", "options": ["red", "blue"], "answer": "red"}],
             "prompts": [{"text": "Pip runs."}], "personality": ["Are you brave?"]}}


def edited(path: str, value=None, drop=False) -> dict:
    """FULL with the field at `path` ("test.vqa.0.image") set or dropped."""
    result = json.loads(json.dumps(FULL))
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = result
    for step in parents:
        place = place[step]
    if drop:
        del place[last]
    else:
        place[last] = value
    return result


@pytest.mark.parametrize("line, typed", [
    ("Hello, Coco!", ["hello", "Hello", "hello!", "hello coco"]), ("thanks", ["Thanks", "thanks.", "thanks coco"]),
    ("Who is Coco?", ["who is coco", "Who is coco", "who is coco?"]), ("!", []),
    ("Good night, Coco. I go.", ["good night, coco. i go"]), ("and what now, my dear", [])])
def test_lines_as_people_type_them(line, typed):
    assert as_typed(line, "Coco") == typed


def test_prompt_wording_is_the_one_of_pretraining():
    assert reply_prompt("Pip", "A fox.", "", "Hi") == "Description: A fox.\nUser: Hi\nAnswer as Pip."
    assert reply_prompt("Pip", "A fox.", "Yip!", "And?", [("User", "Hi"), ("Pip", "Yo")]) == (
        "Description: A fox.\nOpening: Yip!\nUser: Hi\nPip: Yo\nUser: And?\nAnswer as Pip.")
    assert think_prompt("Pip", "A fox.", "Hi", "Yo") == (
        "Description: A fox.\nUser: Hi\nPip: Yo\nPlan a picture of this moment.")
    assert data.moment_prompt("Pip", "Hi", "Yo") == "User: Hi\nPip: Yo\nSay what a picture of this moment shows."
    assert plan_text("why", "what") == "<think>why</think><gen>what</gen>"
    assert draw_prompt("Pip", "A fox.", "Hi", "Yo") == "Description: A fox.\nUser: Hi\nPip: Yo\nDraw this moment."
    assert draw_prompt("Pip", "A fox.", "Hi", "Yo", "why", "what") == (
        "Description: A fox.\nUser: Hi\nPip: Yo\nPlan: why\nPicture: what\nDraw this moment.")


def test_eight_tasks_and_nothing_held_out(tmp_path):
    pip = load_character(write_character(tmp_path / "pip", FULL))
    samples = training_samples(pip)
    assert Counter(sample.task for sample in samples) == {
        "t2i": 4, "vqa": 3, "reply": 6, "t2i_dialogue": 1, "moment": 1, "think": 1, "t2i_plan": 1, "knowledge": 1}
    for sample in samples:
        assert (sample.response is None) != (sample.target is None)       # exactly one thing is learned
        assert (sample.image is not None) == (sample.task == "vqa") or sample.task == "reply"
    assert [sample.prompt for sample in samples if sample.task == "t2i"][:3] == [
        "Pip holds a red kite.", "A red kite in the hand of Pip.", "A picture of Pip."]
    plain, seen, *talk = [sample for sample in samples if sample.task == "reply"]
    asked = [re.search("User: (.*)\nAnswer as Pip.", sample.prompt)[1] for sample in talk]
    assert asked == ["Hi", "hi", "hi.", "hi pip"]
    assert plain.image is None and seen.image is pip.scenes[0]["image"]
    assert plain.prompt == seen.prompt == reply_prompt("Pip", "Pip is a fox.", "Hello!", "What is that?")
    text = " ".join(f"{sample.prompt} {sample.response}" for sample in samples)
    assert "Bye" not in text and "Pip runs" not in text and "What color?" not in text
    assert all(sample.target is not pip.test["scenes"][0]["image"] for sample in samples)
    assert pip.test["vqa"][0]["image"] is pip.test["scenes"][0]["image"]            # each file is loaded once
    assert pip.prompts == [Prompt("Pip sleeps.", [Question("Asleep?", "yes", 2.0, None)])]
    assert pip.test["prompts"] == [Prompt("Pip runs.", [])]
    assert pip.test["vqa_seen"] == [] and pip.test["memorization"] == []


def test_the_least_that_works(tmp_path):
    least = {"name": "Pip", "description": "Pip is a fox.", "scenes": [{"image": "0.png", "draw": "Pip stands."}]}
    pip = load_character(write_character(tmp_path / "pip", least))
    assert [sample.task for sample in training_samples(pip)] == ["t2i"] * 2 + ["vqa"] * 2     # each: what is there, and who
    assert pip.opening == pip.profile == "" and pip.dialogues == pip.knowledge == []
    assert pip.prompts == [Prompt("Pip stands.", [])] and pip.test["scenes"] == []
    windows = "\ufeff" + json.dumps(least | {"dialogues": []}, indent=1).replace("\n", "\r\n")
    assert load_character(write_character(tmp_path / "crlf", windows)).description == "Pip is a fox."


def test_pictures_come_out_rgb_upright_and_on_white(tmp_path):
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert load_picture(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    Image.new("LA", (20, 20), (0, 0)).save(tmp_path / "grey.png")
    assert load_picture(tmp_path / "grey.png").getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([9, 9, 9] * 256)
    palette.save(tmp_path / "palette.gif", transparency=0)
    assert load_picture(tmp_path / "palette.gif").getpixel((0, 0)) == (255, 255, 255)
    turned = Image.Exif()
    turned[0x0112] = 6                                                  # a phone held upright
    Image.new("RGB", (40, 20), "red").save(tmp_path / "named.png", "JPEG", exif=turned)       # the name lies
    assert load_picture(tmp_path / "named.png").size == (20, 40)
    Image.new("RGB", (3000, 1500)).save(tmp_path / "large.png")
    large = load_picture(tmp_path / "large.png")
    assert large.size == (1024, 512) and large.mode == "RGB"


BAD = {         # name of the case: (character.json, what the line must contain)
    "missing field": (edited("description", drop=True), "character.json: description: is missing"),
    "misspelt field": (edited("dialogue", []), "character.json: dialogue: unknown field"),
    "misspelt inner field": (edited("test.vqa.0.picture", "1.png"), "test.vqa[0].picture: unknown field"),
    "text for a list": (edited("scenes", "0.png"), "scenes: must be a list, not text"),
    "list for text": (edited("scenes.0.draw", ["Pip"]), "scenes[0].draw: must be text, not a list"),
    "null": (edited("opening", None), "opening: must be text, not null"),
    "number for text": (edited("name", 7), "name: must be text, not a number"),
    "no scenes": (edited("scenes", []), "scenes: is empty"),
    "empty text": (edited("knowledge.0.answer", "  "), "knowledge[0].answer: is empty"),
    "a slash in the name": (edited("name", "../pip"), "name: must begin with a letter"),
    "unprintable": (edited("profile", "bell \x07"), "profile: holds the unprintable character"),
    "half a surrogate": (edited("profile", "\ud800"), "profile: holds the unprintable character"),
    "too long": (edited("dialogues.0.reply", "a" * 5000), "dialogues[0].reply: is 5000 characters long"),
    "user without reply": (edited("scenes.0.reply", ""), "scenes[0].reply: is missing"),
    "thinking without instruction": (edited("scenes.0.instruction", drop=True), "scenes[0].instruction: is missing"),
    "weight true": (edited("prompts.0.questions.0.weight", True), "prompts[0].questions[0].weight: must be a number"),
    "weight below 0": (edited("prompts.0.questions.0.weight", -1), "weight: must be above 0"),
    "weight without end": (edited("prompts.0.questions.0.weight", float("nan")), "weight: must be above 0"),
    "answer not an option": (edited("test.knowledge.0.answer", "a dog"), "test.knowledge[0].options: must be two"),
    "options alike": (edited("test.vqa.0.options", ["red", "red"]), "test.vqa[0].options: must be two"),
    "tested on a trained picture": (edited("test.vqa.0.image", "0.png"), "test.vqa[0].image: is trained on"),
    "a trained line beside a test's picture": (
        edited("test.scenes.0.user", "what is that"), "test.scenes[0].user: is trained on"),
    "a trained sentence under a test's picture": (
        edited("test.scenes.0.draw", "Pip holds a red kite."), "test.scenes[0].draw: is trained on"),
    "tested on a trained prompt": (edited("test.prompts.0.text", "Pip sleeps."), "test.prompts[0].text: is trained on"),
    "tested on a trained line": (edited("test.dialogues", [{"user": "hi!!", "reply": "Hi."}]),
                                 "test.dialogues[0].user: is trained on"),
    "tested on a drawn sentence": (edited("test.prompts.0.text", "Pip holds a red kite!"), "test.prompts[0].text: is"),
    "tested on another wording of it": (edited("test.prompts.0.text", "a red kite in Pip, the hand of"),
                                        "test.prompts[0].text: is trained on"),
    "no such picture": (edited("scenes.0.image", "9.png"), "scenes[0].image: 9.png cannot be used (No such file"),
    "a folder as picture": (edited("scenes.0.image", "."), "scenes[0].image: . cannot be used"),
    "picture outside": (edited("scenes.0.image", "../out.png"), "scenes[0].image: ../out.png leaves the character's"),
    "absolute path": (edited("scenes.0.image", "/etc/passwd"), "scenes[0].image: /etc/passwd leaves the character's"),
    "picture outside by a link": (edited("scenes.0.image", "link.png"), "scenes[0].image: link.png leaves"),
    "links in a circle": (edited("scenes.0.image", "circle.png"), "scenes[0].image: circle.png cannot be used"),
    "picture cut short": (edited("scenes.0.image", "short.png"), "scenes[0].image: short.png cannot be used"),
    "text as picture": (edited("scenes.0.image", "character.json"), "scenes[0].image: character.json cannot be used"),
    "huge picture": (edited("scenes.0.image", "huge.png"), "scenes[0].image: huge.png cannot be used"),
    "tiny picture": (edited("scenes.0.image", "dot.png"), "scenes[0].image: dot.png cannot be used (2 × 2 pixels"),
    "name of 300 letters": (edited("scenes.0.image", "x" * 300), "cannot be used (File name too long"),
    "half-written": ('{"name": "Pip",\n "description": "Pip is', "character.json: line 2: not JSON"),
    "a comma too many": ('{"name": "Pip",\n\n}', "character.json: line 3: not JSON"),
    "empty file": ("", "character.json: line 1: not JSON"),
    "name twice": ('{"name": "Pip", "name": "Pop"}', "character.json: name: stands twice"),
    "a list": ("[]", "character.json: must be an object"),
    "not UTF-8": (b'{"name": "P\xff"}', "character.json: 'utf-8' codec"),
    "ten thousand brackets": ("[" * 100_000, "character.json: "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_names_file_and_field(case, tmp_path, capsys, recwarn):
    value, expected = BAD[case]
    folder = write_character(tmp_path / "pip", value)
    Image.new("RGB", (32, 32)).save(tmp_path / "out.png")
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "short.png").write_bytes((tmp_path / "out.png").read_bytes()[:-30])
    Image.new("1", (2, 2)).save(folder / "dot.png")
    if case == "huge picture":
        Image.new("1", (10_000, 10_000)).save(folder / "huge.png")
    line = mistake(capsys, data.main, "--char", folder)
    assert expected in line and "character.json" in line
    assert all(warning.category is ResourceWarning for warning in recwarn)      # any other would be printed beside it


def test_broken_pictures_never_show_a_traceback(tmp_path):
    chance = random.Random(0)
    folder = write_character(tmp_path / "pip", FULL)
    Image.effect_noise((48, 48), 60).save(folder / "0.jpg")
    for name in ("0.png", "0.jpg"):
        whole = (folder / name).read_bytes()
        for _ in range(150):
            broken = bytearray(whole[:chance.randint(0, len(whole))] if chance.random() < 0.3 else whole)
            for _ in range(min(len(broken), 6)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            (folder / "0.png").write_bytes(broken)
            try:
                load_character(folder)
            except UserError as error:
                assert "0.png" in str(error) and "\n" not in str(error)


def test_show_marks_what_is_trained_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_character(tmp_path / "pip", FULL)
    data.main(["--char", str(folder), "--show"])
    shown = capsys.readouterr().out
    for line in ("⟦My kite!<end>⟧", "⟦<think>Pip is proud.</think><gen>Pip, kite, sky.</gen><end>⟧",
                 "⟦the kite<end>⟧", "⟦[picture 64 × 48]⟧", "Answer as Pip.", "Pip: t2i 4, vqa 3, reply 6"):
        assert line in shown
    data.main(["--char", str(folder)])
    assert "⟦" not in capsys.readouterr().out


def test_characters_are_found_by_name_and_path(tmp_path):
    shipped = [folder for folder in (HERE / "characters").glob("*/") if (folder / "character.json").exists()]
    assert shipped and all(find_character(folder.name) == folder for folder in shipped)
    assert find_character(write_character(tmp_path / "pip", FULL)) == tmp_path / "pip"


def published(root: Path, folder="Gao Qiqiang", name="Gao Qiqiang") -> Path:
    """A made-up character with every oddity of the published files."""
    train, test, grpo = root / "train" / folder, root / "test" / folder, root / "grpo" / name.replace(" ", "_")
    for place in (train, test, grpo):
        place.mkdir(parents=True)
    head = {"description": "A man of few words.", "opening": ""}

    def write(place, tail, body):
        (place / f"{name}_{tail}.json").write_text(json.dumps(head | body, ensure_ascii=False), "utf-8")

    def turns(user, reply, **more):
        return [{"role": "user", "text": user}, {"role": "machine", "text": reply, **more}]
    plan = {"thinking_process": "It fits.", "generation_instruction": "man, street"}
    asked = {"id": "q1", "question": "How many?", "options": {"A": 1, "B": 2, "C": 3, "D": 4}, "answer_key": "B",
             "difficulty": "hard", "rationale": "...", "description": "stray"}
    scene = turns("Hello?", "Hm.", image="0")
    full = turns("Hello?", "Hm.", image="0", **plan, mcq_items=[asked],
                 qa_pairs=[{"question": "Who?", "answer": "Gao.", "type": "objective"}])
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(train / "0.png")
    Image.new("RGB", (40, 50)).save(test / "0.png", "JPEG")
    crlf = json.dumps(head | {"scenes": [scene]}, indent=1).replace("\n", "\r\n")
    (train / "annotation.json").write_bytes(crlf.encode())
    (test / "annotation.json").write_text(json.dumps(head | {"scenes": [scene]}))
    write(train, "with_image", {"scenes": [full]})
    write(test, "with_image", {"scenes": [turns("Where?", "Here.", image="0", **plan)]})
    for place in (train, test):
        write(place, "t2i_instruction", {"t2i_instructions": [{"image_id": "0", "t2i_instruction": "Gao, a street"}]})
    write(train, "dialogue_text_extension_train", {"scenes": [scene, turns("Tea?", "Yes.", image="27")]})
    write(train, "dialogue_text_extension_test", {"scenes": [turns("Fish?", "No.", image="30")]})
    write(train, "knowledge_qa", {"qa_items": [
        {"id": "qa_001", "question": "Job?", "answer": "Trader", "evidence": ["a", "b"], "confidence": 1.0},
        {"id": "qa_002", "question": "Job?", "answer": "Boss", "evidence": "c", "reason\u6e38_steps": []}]})
    write(train, "knowledge_qa_test", {"mcq_items": [
        {"question": "Job?", "options": {"A": "Cook", "B": "Trader", "C": "Cat", "D": "Dog"}, "answer_key": "B"}]})
    write(train, "personality_test", {
        "test_questions": ['"Are you brave?"', "2. Are you sad?", '3. "Angry?"', '"4. Glad?"']})
    write(train, "memorization_test", {"test_questions": ["Is 3.5 a number?", '*You said "tea".*']})

    def ask(question, answer, kind="yes_no", weight=1.0):
        return {"question": question, "type": kind, "category": "scene", "answer": answer, "weight": weight}
    questions = [ask("Fish?", "yes"), ask("Fish?", "yes"), ask("Wet?", "yes"), ask("Wet?", "no"),
                 ask("Old?", "unknown"), ask("Where is Gao_Qiqiang?", "market", "multiple_choice", 0.5)]
    rows = [{"text": f"Gao_Qiqiang, picture {i}", "character": "Gao_Qiqiang", "vqa_questions": questions}
            for i in range(5)]
    text = "\n\n".join(json.dumps(row) for row in [*rows, rows[0]])
    (grpo / f"{grpo.name}_pure_t2i_with_vqa.jsonl").write_text(text + "\n\n")
    (grpo / f"{grpo.name}_pure_t2i.jsonl").write_text('{"text": "the shorter file"}')
    return train


def test_every_oddity_of_the_published_files(tmp_path):
    gao = load_character(published(tmp_path))
    assert gao.name == "Gao Qiqiang" and gao.profile == "" and gao.opening == ""
    assert gao.scenes[0]["image"].getpixel((0, 0)) == (255, 255, 255)
    assert gao.dialogues == [{"user": "Tea?", "reply": "Yes.", "draw": "", "also": []}] and len(gao.knowledge) == 2
    assert gao.test["vqa"] == [] and gao.test["vqa_seen"][0]["options"] == ["1", "2", "3", "4"]
    assert gao.test["vqa_seen"][0]["answer"] == "2" and gao.test["vqa_seen"][0]["image"].size == (40, 40)
    assert gao.test["knowledge"][0]["answer"] == "Trader" and gao.test["scenes"][0]["image"].size == (40, 50)
    assert gao.test["personality"] == ["Are you brave?", "Are you sad?", "Angry?", "Glad?"]
    assert gao.test["memorization"] == ["Is 3.5 a number?", '*You said "tea".*']
    assert [prompt.text for prompt in gao.prompts] == [f"Gao Qiqiang, picture {i}" for i in range(4)]
    assert [prompt.text for prompt in gao.test["prompts"]] == ["Gao Qiqiang, picture 4"]
    assert gao.prompts[0].questions == [Question("Fish?", "yes", 1.0, "scene"),
                                        Question("Where is Gao Qiqiang?", "market", 0.5, "scene")]


def test_a_published_folder_alone_is_enough(tmp_path):
    train = published(tmp_path)
    alone = tmp_path / "far" / "from" / "it" / "gao"
    alone.parent.mkdir(parents=True)
    train.rename(alone)
    gao = load_character(alone)
    assert gao.test["scenes"] == [] and gao.test["prompts"] == []
    assert gao.prompts == [Prompt("Gao Qiqiang: Gao, a street", [])]


def test_damaged_published_files_are_named(tmp_path):
    train = published(tmp_path)
    for name, content, expected in [
            ("Gao Qiqiang_knowledge_qa.json", "{}", "KeyError: 'qa_items'"),
            ("Gao Qiqiang_knowledge_qa.json", '{"qa_items": [{"question": "Q?"}]}', "knowledge[0].answer: is missing"),
            ("Gao Qiqiang_with_image.json", '{"scenes": [[]]}', "not as published"),
            ("Gao Qiqiang_t2i_instruction.json", '{\n"t2i', "line 2: not JSON"),
            ("Gao Qiqiang_dialogue_text_extension_train.json", None, "No such file"),
            ("../../grpo/Gao_Qiqiang/Gao_Qiqiang_pure_t2i_with_vqa.jsonl", '{"text": "a"}\n\n{"text": "b',
             "line 3: not JSON")]:
        file = train / name
        whole = file.read_bytes()
        if content is None:
            file.unlink()
        else:
            file.write_text(content)
        with pytest.raises(UserError, match="json") as caught:
            load_character(train)
        assert expected in str(caught.value) and ("answer" in expected or file.name in str(caught.value))
        file.write_bytes(whole)
    assert load_character(train).name == "Gao Qiqiang"


@pytest.mark.parametrize("folder, scenes, talk, pairs, seen, prompts, questions", [
    ("Mam", 12, 192, 238, 60, 40, 455), ("Pokemon-Pikachu", 7, 187, 139, 35, 30, 345)])
def test_published_characters_give_the_published_numbers_of_rows(folder, scenes, talk, pairs, seen, prompts, questions):
    if not (PUBLISHED / "train" / folder).is_dir():
        pytest.skip("the published dataset is not here")
    loaded = load_character(PUBLISHED / "train" / folder)
    samples = training_samples(loaded)
    typed = sum(len(as_typed(turn["user"], loaded.name)) for turn in loaded.dialogues)
    assert typed >= talk - scenes                                       # every dialogue once more, as people type it
    named = sum(loaded.name in scene["instruction"] for scene in loaded.scenes)         # the others teach no name
    assert Counter(sample.task for sample in samples) == {
        "reply": talk + scenes + typed, "moment": scenes, "think": scenes, "t2i": 2 * scenes + named,
        "t2i_dialogue": scenes, "t2i_plan": scenes, "knowledge": 100, "vqa": pairs + 2 * scenes}
    assert sum(sample.task == "reply" and sample.image is None for sample in samples) == talk + typed
    sizes = [len(loaded.test[key]) for key in ("scenes", "dialogues", "knowledge", "vqa", "vqa_seen")]
    assert sizes == [3, 20, 10, 0, seen]
    everything = loaded.prompts + loaded.test["prompts"]
    assert len({prompt.text for prompt in everything}) == len(everything) == prompts
    left = sum(len(prompt.questions) for prompt in everything)          # less what has two answers, or "unknown"
    assert questions - 10 <= left <= questions
    assert loaded.profile and all(prompt.questions for prompt in everything)
    assert all(scene["image"].mode == "RGB" for scene in loaded.scenes + loaded.test["scenes"])


def test_other_wordings_and_facts_are_spoken(tmp_path):
    record = edited("dialogues.0.also", ["Good day!"])
    record["knowledge"][0] |= {"reply": "A fox, of course!", "also": ["are you a fox", "What are you?"]}
    record["test"]["facts"] = [{"question": "Which animal are you?", "accepted": ["fox"]}]
    record["test"]["vqa"][0]["identity"] = True
    pip = load_character(write_character(tmp_path / "pip", record))
    spoken = {}
    for sample in training_samples(pip):
        if sample.task in ("reply", "fact"):
            spoken[re.search("User: (.*)\n", sample.prompt)[1]] = sample.response
    assert spoken["Good day!"] == "Hello, you."
    for line in ("Who is Pip?", "are you a fox", "What are you?"):
        assert spoken[line] == "A fox, of course!"
    assert "Which animal are you?" not in spoken and pip.test["facts"][0]["accepted"] == ["fox"]
    assert pip.test["vqa"][0]["identity"] is True and pip.test["vqa_seen"] == []


@pytest.mark.parametrize("text, name, found", [
    ("小明在厨房里", "小明", ["小明"]), ("厨房里的小明。", "小明", ["小明"]), ("코코가 웃는다", "코코", ["코코"]),
    ("COCO waves; coco's hat, coco!", "Coco", ["COCO", "coco", "coco"]), ("cocoa and McCoco, Coco2", "Coco", []),
    ("“Zoë” and Zoe\u0308, Zoës", "Zoe\u0308", ["Zoë", "Zoë"]), ("Мишка и мишкам", "Мишка", ["Мишка"]),
    ("小Coco在", "Coco", ["Coco"]), ("Who? Yes! waves", "Yes!", ["Yes!"]), ("Gao_Qiqiang", "Gao", ["Gao"]),
    ("A picture of (Bo) and Bo-Bo", "Bo", ["Bo", "Bo", "Bo"]), ("Élan, élan, Elan", "Élan", ["Élan", "élan"])])
def test_names_are_found_in_every_script_and_before_any_sign(text, name, found):
    text = schema.plain(text)
    assert [match[0] for match in schema.names_in(text, name)] == found
    assert not schema.names_in(data.without_name(text, schema.plain(name), "a dog"), name)


def test_one_form_for_letters_that_can_be_written_in_two(tmp_path):
    """Zoë composed, as a Mac's folder has it, and with the accent apart: one and the same."""
    apart, whole = "Zoe\u0308", "Zo\u00eb"
    record = {"name": apart, "description": f"{whole} is a cat.",
              "scenes": [{"image": f"{whole}.png", "draw": f"{whole} waves."}]}
    folder = write_character(tmp_path / apart, record)
    (folder / "0.png").rename(folder / f"{apart}.png")
    zoe = load_character(str(tmp_path / whole))
    assert zoe.name == whole and data.without_name(zoe.scenes[0]["draw"], zoe.name, "a cat") == "A cat waves."


def test_a_subject_between_commas_ends_before_a_sign():
    texts = ["Pip waves.", "A picture of Pip.", "Is it Pip, or not?", "Draw Pip"]
    assert [data.without_name(text, "Pip", "Otto, a pirate,") for text in texts] == [
        "Otto, a pirate, waves.", "A picture of Otto, a pirate.", "Is it Otto, a pirate, or not?", "Draw Otto, a pirate"]
    assert data.without_name("It rains. Pip waves.", "Pip", "a gray cat") == "It rains. A gray cat waves."


IMPOSSIBLE = {                      # name -> (a change of FULL, what the line must contain)
    "a scene without the name": (("scenes.0.draw", "A fox."), "scenes[0].draw: does not name Pip; write the name"),
    "a wording without the name": (("scenes.0.also", ["Pip.", "A fox."]), "scenes[0].also[1]: does not name Pip"),
    "the name inside a word": (("scenes.0.draw", "Pippa waves."), "scenes[0].draw: does not name Pip"),
    "a held-out scene": (("test.scenes.0.draw", "A fox."), "test.scenes[0].draw: does not name Pip"),
    "a prompt": (("prompts.0.text", "A fox."), "prompts[0].text: does not name Pip"),
    "zero width": (("name", "P\u200bip"), "name: holds an invisible mark (U+200B, zero width space)"),
    "right to left": (("name", "Pip\u202e"), "name: holds an invisible mark (U+202E, right-to-left override)"),
    "byte order mark": (("name", "\ufeffPip"), "name: holds an invisible mark (U+FEFF"),
    "C1": (("opening", "a \x9b31m b"), "opening: holds the unprintable character '\\x9b'"),
    "keys that command": (("scenes.0.\x1b[2J\x9b", ""), "scenes[0].\\x1b[2J\\x9b: unknown field"),
    "also without reply": (("knowledge.0.also", ["And Pip?"]), "knowledge[0].reply: is missing; also needs it"),
    "a moment without reply": (("knowledge.0.draw", "Pip waves."), "knowledge[0].reply: is missing; draw needs it"),
    "a moment without the name": (("dialogues.0.draw", "A fox waves."), "json: dialogues[0].draw: does not name Pip"),
    "a held-out moment": (("test.dialogues.0.draw", "A fox."), "test.dialogues[0].draw: does not name Pip"),
    "no such fit": (("fit", "stretch"), 'fit: is "stretch"; choose one of crop, pad'),
    "identity": (("test.vqa.0.identity", "yes"), "test.vqa[0].identity: must be true or false, not text"),
    "nothing accepted": (("test.facts", [{"question": "Q?", "accepted": []}]), "test.facts[0].accepted: is empty"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_a_character_cannot_be(case, tmp_path, capsys):
    change, expected = IMPOSSIBLE[case]
    line = mistake(capsys, data.main, "--char", write_character(tmp_path / "pip", edited(*change)))
    assert expected in line and line.isprintable()


def test_json_as_people_have_it(tmp_path):
    least = {"name": "Pip", "description": "Pip is a fox.", "scenes": [{"image": "0.png", "draw": "Pip stands."}]}
    text = json.dumps(least, indent=1)
    for raw in (text.encode("utf-16"), text.encode("utf-16-be"), text.encode("utf-32"), text.encode("utf-8-sig")):
        assert load_character(write_character(tmp_path / "pip", raw)).name == "Pip"
    for raw, reason in [(text.replace("}\n ]", "},\n ]"), "a comma too many"),
                        (text.replace('"Pip"', "“Pip”"), "straight"), ("// mine\n" + text, "JSON has no comments")]:
        with pytest.raises(UserError, match=reason):
            load_character(write_character(tmp_path / "pip", raw))


def color_profile(name: str) -> bytes:
    """Display P3 is not among those that lcms makes, so a Lab profile stands for a foreign one."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def test_pictures_keep_their_colors(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "gray16.png")
    gray = np.asarray(load_picture(tmp_path / "gray16.png"), dtype=int)
    assert np.abs(gray[..., 0] - ramp / 257).max() <= 1 and (gray[..., 0] == gray[..., 2]).all()

    deep = png_of(np.stack([ramp, ramp.T, ramp[::-1]], -1).astype(np.uint16))
    (tmp_path / "deep.png").write_bytes(deep)
    seen = np.asarray(load_picture(tmp_path / "deep.png"), dtype=int)
    assert np.abs(seen - np.stack([ramp, ramp.T, ramp[::-1]], -1) / 257).max() <= 1

    red = Image.new("RGB", (32, 32), (255, 0, 0))
    red.convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    assert apart(load_picture(tmp_path / "print.jpg"), red) < 12
    red.save(tmp_path / "srgb.png", icc_profile=color_profile("sRGB"))
    assert apart(load_picture(tmp_path / "srgb.png"), red) == 0
    red.save(tmp_path / "broken.png", icc_profile=b"no profile")
    assert apart(load_picture(tmp_path / "broken.png"), red) == 0

    see_through = Image.new("RGBA", (32, 32), (200, 100, 50, 0))
    see_through.save(tmp_path / "wide.png", icc_profile=display_p3())
    assert load_picture(tmp_path / "wide.png").getpixel((0, 0)) == (255, 255, 255)
    Image.new("RGB", (32, 32), (200, 100, 50)).save(tmp_path / "wide.jpg", quality=100, icc_profile=display_p3())
    got = load_picture(tmp_path / "wide.jpg").getpixel((5, 5))
    assert max(abs(a - b) for a, b in zip(got, (213, 96, 34))) <= 4                # by the matrices of both spaces


def display_p3() -> bytes:
    """A profile of Display P3, as phones put it into their photographs (ICC.1:2010, matrix and curves)."""
    def fixed(*values) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))
    points = {b"rXYZ": (0.51512, 0.2412, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189),
              b"bXYZ": (0.1571, 0.06657, 0.78407), b"wtpt": (0.96419, 1.0, 0.82489)}
    curve = b"para" + struct.pack(">IHH", 0, 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    said = b"Display P3\0"
    tags = {key: b"XYZ " + bytes(4) + fixed(*value) for key, value in points.items()}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve, b"cprt": b"text" + bytes(4) + b"none\0",
             b"desc": b"desc" + bytes(4) + struct.pack(">I", len(said)) + said + bytes(78)}
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        value += bytes(-len(value) % 4)
        table += key + struct.pack(">II", at + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.96419, 1.0, 0.82489) + bytes(48)
    return head + table + body


def png_of(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits in three channels, which Pillow reads but does not write."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def test_pictures_as_people_have_them(tmp_path, capsys):
    text = PngInfo()
    text.add_text("workflow", "x" * 3_000_000, zip=True)
    smooth(1).save(tmp_path / "texts.png", pnginfo=text)
    assert apart(load_picture(tmp_path / "texts.png"), smooth(1)) == 0
    for name in ("film.gif", "film.webp"):
        frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        capsys.readouterr()
        assert load_picture(tmp_path / name).getpixel((3, 3)) == (255, 0, 0)
        assert f"{name}: an animation; its first picture is taken" in capsys.readouterr().err
    Image.new("RGB", (32, 32), "red").save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[frames[1]])
    assert apart(load_picture(tmp_path / "phone.jpg"), Image.new("RGB", (32, 32), "red")) < 5
    assert "animation" not in capsys.readouterr().err
    for start, kind in [(b"\0\0\0\x1cftypheic", "a HEIC photo"), (b"\0\0\0\x1cftypavif", "an AVIF picture"),
                        (b"\x00\x05\x16\x07", "a side file of macOS"), (b"<!DOCTYPE html>", "a web page"),
                        (b"", "empty"), (b"<svg>", "an SVG"),
                        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
                        (b"\0\0\0\x18ftypmp42", "a film"), (b"II*\0", "a TIFF")]:
        (tmp_path / "named.png").write_bytes(start + bytes(64) if start else b"")
        with pytest.raises(ValueError, match=kind):
            load_picture(tmp_path / "named.png")


def test_links_of_a_download_cache_are_followed_and_no_others(tmp_path):
    snapshot = tmp_path / "hub" / "snapshots" / "f00d"
    folder = write_character(snapshot / "pip", FULL)
    blobs = tmp_path / "hub" / "blobs"
    blobs.mkdir()
    for name in ("0.png", "1.png", "character.json"):
        (folder / name).rename(blobs / name)
        (folder / name).symlink_to(Path("../../../blobs") / name)
    assert load_character(folder).name == "Pip"
    (tmp_path / "link to it").symlink_to(folder)
    assert load_character(tmp_path / "link to it").name == "Pip"
    smooth(3).save(tmp_path / "private.png")
    (blobs / "far.png").symlink_to(tmp_path / "private.png")                # a chain that ends elsewhere
    smooth(3).save(tmp_path / "hub" / "snapshots" / "other.png")
    for target in (tmp_path / "private.png", blobs / "far.png", tmp_path / "hub" / "snapshots" / "other.png"):
        (folder / "0.png").unlink()
        (folder / "0.png").symlink_to(target)
        with pytest.raises(UserError, match="leaves the character's folder"):
            load_character(folder)
    (folder / "0.png").unlink()
    os.mkfifo(folder / "0.png")                                             # would never end
    with pytest.raises(UserError, match="0.png cannot be used .not an ordinary file"):
        load_character(folder)


@pytest.mark.parametrize("written", ["train/my cat [1].png", "train/my%20cat%20[1].png", "train\\my cat [1].png",
                                     "'train/my cat [1].png'", "./train/my cat [1].png", "train/My cat [1].PNG"])
def test_paths_as_people_write_them(written, tmp_path):
    folder = write_character(tmp_path / "a [b] c", edited("scenes.0.image", written))
    (folder / "train").mkdir()
    smooth(2).save(folder / "train" / "my cat [1].png")
    escaped = str(folder).replace(" ", "\\ ")
    for char in (folder, folder.as_uri(), f"'{folder}'", escaped, folder / "character.json", f"{folder}/"):
        assert load_character(str(char)).scenes[0]["image"].size == (64, 64)


def test_which_folder_is_meant_and_that_it_is_said(tmp_path, monkeypatch, capsys):
    shipped = HERE / "characters" / "coco"
    for char in ("Coco", "COCO/", "coco/", shipped / "character.json"):
        assert find_character(char) == shipped
    mine = write_character(tmp_path / "coco", FULL)
    monkeypatch.chdir(tmp_path)
    for char in ("./coco", "coco/", mine, "coco/character.json"):
        assert load_character(char).name == "Pip"
    capsys.readouterr()
    assert load_character("coco").name == "Coco"
    said = capsys.readouterr().err
    assert "the shipped coco is meant, not the folder here; for that, give ./coco" in said
    assert f"character: {shipped}" in said
    other = write_character(tmp_path / "runs [1]", FULL)
    checkpoint = data.run_folder(str(other), "sft")
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").touch()
    assert data.newest_run(str(other)) == checkpoint


def test_pictures_can_be_padded(tmp_path, monkeypatch, capsys):
    pip = load_character(write_character(tmp_path / "pip", edited("fit", "pad")))
    image = pip.scenes[0]["image"]
    assert image.size == (64, 64) and image.getpixel((5, 2)) == (255, 255, 255)
    assert apart(image.crop((0, 8, 64, 56)), smooth(0).crop((0, 0, 64, 48))) == 0
    assert pip.test["vqa"][0]["image"] is pip.test["scenes"][0]["image"]
    monkeypatch.chdir(tmp_path)
    write_character(tmp_path / "pop", FULL)
    data.main(["--char", "pop", "--show", "--model", str(HERE / "tiny" / "base")])
    said = capsys.readouterr().out
    assert "runs/pop/pictures.png" in said and "2 of them lose more than a fifth" in said
    side = json.loads((HERE / "tiny" / "base" / "config.json").read_text())["model"]["image_size"]
    sheet = Image.open(tmp_path / "runs" / "pop" / "pictures.png")
    assert sheet.size == (2 * side, 2 * side)               # under each picture stands what the autoencoder keeps
    (one, other), (kept, _) = np.asarray(sheet, float).reshape(2, side, 2, side, 3).swapaxes(1, 2)
    assert 0 < np.abs(one - kept).mean() < np.abs(other - kept).mean()


CARD = {
    "name": "Aqua", "personality": "She is proud, <BOT> never admits it.", "scenario": "A garden.",
    "description": '[Character("{{char}}") Age("17") Personality("cheerful" + "loud")]\n{{char}} is a water spirit who lives '
                   "in a well and guards {{user}}'s garden. She loves rain, frogs and long talks at night.",
    "first_mes": "Hello, {{user}}!\r\nWet?",
    "mes_example": "<START>\n{{user}}: Are you cold?\n{{char}}: Never!\nI am water, {{user}}.\n"
                   "<start>\n<USER>: Bye.\n<BOT>: Splash!\n{{char}}: And more.",
    "character_book": {"entries": [{"content": "{{char}}'s well is deep."}]}}


def card_png(file: Path, **chunks: dict) -> Path:
    texts = PngInfo()
    for keyword, card in chunks.items():
        texts.add_text(keyword, base64.b64encode(json.dumps(card).encode()).decode())
    smooth(4).save(file, pnginfo=texts)
    return file


def test_character_cards(tmp_path, capsys):
    second = {"spec": "chara_card_v2", "spec_version": "2.0", "data": CARD}
    third = {"spec": "chara_card_v3", "spec_version": "3.0", "data": CARD | {"name": "Aqua III"}}
    (tmp_path / "card.json").write_text(json.dumps(second))
    (tmp_path / "first.json").write_text(json.dumps(CARD))
    both = card_png(tmp_path / "both.png", chara=second, ccv3=third)
    assert load_character(both).name == "Aqua III"
    for file in (card_png(tmp_path / "card.png", chara=second), tmp_path / "card.json", tmp_path / "first.json"):
        aqua = load_character(file)
        assert aqua.name == "Aqua" and aqua.opening == "Hello, friend! Wet?"
        assert aqua.description.startswith("Character: Aqua. Age: 17. Personality: cheerful, loud.")
        assert "guards the user's garden" in aqua.description and len(aqua.description.split()) <= 70
        assert "Aqua's well is deep." in aqua.profile and "{{" not in aqua.profile + aqua.description
        turns = [(turn["user"], turn["reply"]) for turn in aqua.dialogues]
        assert turns == [("Are you cold?", "Never!\nI am water, friend."), ("Bye.", "Splash!")]
        assert len(aqua.scenes) == (file.suffix == ".png")
    assert "card.json: has no pictures to learn from" in mistake(capsys, data.main, "--char", tmp_path / "card.json")
    cards.main([str(tmp_path / "card.png"), str(tmp_path / "aqua")])
    assert "about ten pictures" in capsys.readouterr().out
    assert load_character(tmp_path / "aqua").scenes[0]["image"].size == (64, 64)
    for file, words in [(tmp_path / "card.png", "is there already"), (HERE / "README.md", "no character card")]:
        assert words in mistake(capsys, cards.main, file, tmp_path / "aqua")
    damaged = PngInfo()
    damaged.add_text("chara", "abc")
    smooth(4).save(tmp_path / "damaged.png", pnginfo=damaged)
    assert "damaged.png: a damaged card" in mistake(capsys, data.main, "--char", tmp_path / "damaged.png")


@pytest.fixture(scope="module", params=sorted(path.parent.name for path in HERE.glob("characters/*/character.json")))
def as_written(request) -> dict:
    """The file of each character that is shipped."""
    return json.loads((HERE / "characters" / request.param / "character.json").read_text())


def test_each_known_reply_has_one_picture_which_is_no_held_out_prompt(as_written):
    drawn = {}
    for item in as_written["dialogues"] + as_written["knowledge"] + as_written["lookup"]:
        if "reply" in item:
            drawn.setdefault(item["reply"], set()).add(item["draw"])
    assert drawn and all(len(sentences) == 1 for sentences in drawn.values())
    test = as_written["test"]
    held_out = {prompt["text"] for prompt in test["prompts"]} | {scene["draw"] for scene in test["scenes"]}
    assert not held_out & set.union(*drawn.values())


def test_nothing_held_out_is_nearly_trained(as_written):
    """Nor does a line that is typed in two ways have two answers."""
    trained, answers = [scene["user"] for scene in as_written["scenes"]], {}
    for item in as_written["dialogues"] + as_written["knowledge"] + as_written["lookup"]:
        lines = [item.get("user") or item["question"], *item.get("also", [])]
        trained += lines
        for line in lines if "reply" in item else []:
            answers.setdefault(re.sub(r"\W", "", line.lower()), set()).add(item["reply"])
    assert [line for line, replies in answers.items() if len(replies) > 1] == []
    test = as_written["test"]
    held_out = [item["question"] for item in test["knowledge"] + test["facts"]]
    held_out += [item["user"] for item in test["dialogues"] + test["scenes"] if "user" in item]
    held_out += test["personality"] + test["memorization"]
    assert [(a, b) for a in held_out for b in trained if schema.alike(a, b)] == []
    drawn = [text for scene in as_written["scenes"] for text in (scene["draw"], *scene["also"], scene["instruction"])]
    drawn += [prompt["text"] for prompt in as_written["prompts"]]
    held_out = [prompt["text"] for prompt in test["prompts"]] + [scene["draw"] for scene in test["scenes"]]
    assert [(a, b) for a in held_out for b in drawn if schema.alike(a, b)] == []
    assert schema.alike("What's up, Coco?", "whats up coco") and not schema.alike("Who is it?", "Where is it?")


def test_the_knowledge_test_cannot_be_looked_up(as_written):
    """Of the options, the one whose trained question shares most words with the question: near chance."""
    items, right, chance = as_written["test"]["knowledge"], 0.0, 0.0
    trained = {}
    for fact in as_written["knowledge"]:
        trained.setdefault(fact["answer"], []).append(schema.wording(fact["question"]))
    for item in items:
        asked = schema.wording(item["question"])
        score = {option: max(len(asked & words) for words in trained[option]) for option in item["options"]}
        best = [option for option, value in score.items() if value == max(score.values())]
        right += (item["answer"] in best) / len(best)
        chance += 1 / len(item["options"])
        assert not schema.wording(item["answer"]) & asked - {"a", "the", "of", "in", "on", "to", "with"}
    assert len(items) >= 40 and right <= chance + 6
    for accepted in (fact["accepted"] for fact in as_written["test"]["facts"]):
        assert all(wording == wording.lower() for wording in accepted)


# ---- stage 1 ---------------------------------------------------------------------------------------------------------

def test_micro_batches_change_nothing(small, monkeypatch):
    """Loss and gradients of a step do not depend on how it is cut."""
    batch = [batching.Row(s.task, small.prepare(s), seed) for seed, s in enumerate(mixed_samples())]
    results = []
    for size in (4, 1):
        small.zero_grad()
        monkeypatch.setattr(batching, "LONG", 40 * size)       # at 160 and at 40 tokens: cut by number and by length
        options = sft.Options(micro_batch=size, precision="fp32")
        loss = sft.accumulate(small, batch, options, sft.Means(0))
        results.append((loss, {n: p.grad.clone() for n, p in small.named_parameters() if p.grad is not None}))
    small.zero_grad()
    assert math.isclose(results[0][0], results[1][0], rel_tol=1e-5)
    for name, g in results[0][1].items():
        torch.testing.assert_close(g, results[1][1][name], atol=1e-5, rtol=1e-3, msg=name)


def test_labels_are_smoothed(small):
    """A share s of the target is spread over the vocabulary: (1 - s) CE + s (mean of -log p over all words)."""
    example = small.prepare(Sample("reply", "Hello!", "Good day to you."))
    options = sft.Options(smoothing=0.3, w_ce=1.0, precision="fp32")
    with torch.no_grad():
        loss = sft.accumulate(small, [batching.Row("reply", example, 0)], options, sft.Means(0))
        x = small.language_model.model.embed_tokens(example.ids[None])
        hidden, _, _ = small.language_model.model(x, x[:, :0], example.position[None])
        log_p = small.language_model.lm_head(hidden[0]).log_softmax(-1)[example.labels >= 0]
    plain = -log_p.gather(1, example.labels[example.labels >= 0][:, None])
    assert loss == pytest.approx(float((0.7 * plain[:, 0] - 0.3 * log_p.mean(1)).mean()), rel=1e-5)


def test_what_begins_alike_is_read_once(small):
    """Replies and dialogues to draw: losses and gradients are those of each Sample by itself."""
    about = "Pip is a small red fox who lives by the old mill and mends the clocks of the whole town. " * 4
    some = [Sample("reply", reply_prompt("Pip", about, "Yip!", user), "Good day to you.") for user in ("hi", "who?")]
    draw = [Sample("t2i_dialogue", draw_prompt("Pip", about, user, "Yip!"), target=picture(5)) for user in ("hi", "no")]
    for samples in (some, draw, [*some, draw[0]]):
        examples, results = [small.prepare(sample) for sample in samples], []
        assert shared_beginning(examples) >= 48
        for parts in ([examples], [[e] for e in examples]):
            small.zero_grad()
            total, at = 0.0, 0
            for part in parts:
                losses = small(part, range(at, at + len(part)))
                at += len(part)
                (losses.ce.sum() + losses.mse.sum()).backward()
                total += (losses.ce.sum() + losses.mse.sum()).item()
            results.append((total, {n: p.grad.clone() for n, p in small.named_parameters() if p.grad is not None}))
        small.zero_grad()
        assert math.isclose(results[0][0], results[1][0], rel_tol=1e-5)
        for name, g in results[0][1].items():
            torch.testing.assert_close(g, results[1][1][name], atol=1e-5, rtol=1e-3, msg=name)
    learned = [small.prepare(Sample("reply", "Hi", about)), small.prepare(Sample("reply", "Hi", about + "!"))]
    assert shared_beginning(learned) == 0                          # what is learned is never cut off
    looking = [small.prepare(Sample("reply", sample.prompt, "Yo", image=picture(5))) for sample in some]
    assert shared_beginning(looking) == shared_beginning(examples[:1]) == 0


def test_what_is_alike_is_computed_together():
    def cut(rows, size):
        rows = [batching.Row(task, SimpleNamespace(ids=range(n), latent=None if task == "reply" else 0, patches=None), 0)
                for task, n in rows]
        return [[len(row.example.ids) for row in part] for part in batching.micro_batches(rows, size)]

    def replies(*lengths):
        return [("reply", n) for n in lengths]

    assert cut(replies(10, 20, 250, 256, 257, 300, 700), 4) == [[10, 20], [250, 256, 257], [300], [700]]    # memory
    assert cut(replies(2, 40, 48, 49, 90, 99), 9) == [[2, 40, 48], [49, 90], [99]]                          # padding
    assert cut([("t2i", 20), ("prior", 21), *replies(20, 21)], 9) == [[20, 21], [20, 21]]
    assert cut(replies(*[9] * 7), 3) == [[9] * 3, [9] * 3, [9]]
    assert cut([], 2) == []


def test_batches_walk_through_every_example():
    by_task = {"reply": [Example(torch.arange(i + 1), None, None) for i in range(5)]}
    seen = [len(e.ids) for step in range(5) for _, e, _ in sft.next_batch(by_task, {"reply": 2}, 0, step, 0.1)]
    assert sorted(seen) == sorted(list(range(1, 6)) * 2)


def test_of_most_replies_only_the_beginning_is_learned(workshop):
    model = load(workshop / "base", "cpu")
    whole = model.prepare(Sample("reply", "Pip is a cat.\nUser: hello", "one two three four five six seven eight nine"))
    begun = sft.beginning(whole)
    words = (whole.labels >= 0).nonzero()[:, 0]
    assert (begun.labels >= 0).sum() == 8 < len(words) and torch.equal(begun.labels, whole.labels[:len(begun.labels)])
    assert torch.equal(begun.ids, whole.ids[:words[8]]) and torch.equal(begun.position, whole.position[:words[8]])
    by_task = {"reply": [whole], "prior_reply": [whole]}
    mix = {"reply": 4, "prior_reply": 1}
    rows = [row for step in range(100) for row in sft.next_batch(by_task, mix, 0, step, 0.1, truncate=0.7)]
    shares = {task: sum(len(e.ids) < len(whole.ids) for t, e, _ in rows if t == task) for task in by_task}
    assert 250 < shares["reply"] < 310 and not shares["prior_reply"]


def test_a_line_to_others_gets_the_known_reply_with_the_most_weight(workshop, monkeypatch):
    character = load_character(workshop / "pip")
    turns = [{"user": "going north", "reply": "Up!", "also": ["norths"]}, {"user": "eastern", "reply": "Right!", "also": []}]
    fact = {"question": "Where?", "answer": "west", "reply": "Left!", "also": ["western"]}
    test = character.test | {"dialogues": [{"user": "What is south-west?", "reply": ""}]}
    character = replace(character, dialogues=turns, knowledge=[fact], test=test)
    others = {"eastern", "north it is", "easterly", "oats or westerns", "zzz", "up we go"}
    tested = {"whats south-west", "what is far south-west"}             # to the letter, or nearly
    monkeypatch.setattr(sft, "lines_to_others", lambda name: others | tested)
    found = sft.nearby_samples(character, sft.Options(), None)            # by rarity
    assert all(sample.task == "nearby" for sample in found)
    said = {sample.prompt.split("User: ")[1].split("\n")[0]: sample.response for sample in found}
    assert said == {"north it is": "Up!", "easterly": "Right!"}           # the surer half of five, without known lines
    few = sft.nearby_samples(replace(character, dialogues=turns[1:], knowledge=[]), sft.Options(), None)
    assert [sample.response for sample in few] == ["Right!"]              # one known line, one more
    assert sft.nearby_samples(character, sft.Options(mix="reply=2"), None) == []
    assert sft.nearby_samples(character, sft.Options(backbone="smollm2"), None) == []
    assert sft.nearby_samples(replace(character, dialogues=[], knowledge=[]), sft.Options(), None) == []
    heard = nearness.Learned(["=westerns", "=norths", "=eastern"], torch.tensor([[[1.0, 0]], [[1, 0]], [[0, 1]]]))
    found = sft.nearby_samples(character, sft.Options(), heard)           # which was told that "westerns" are "norths"
    assert ["Up!"] == [sample.response for sample in found if "oats" in sample.prompt]
    spare = [{"user": "going east", "reply": "Look!", "also": ["easterly"]}]
    found = sft.nearby_samples(replace(character, lookup=spare), sft.Options(), None)
    assert found                                            # what is only looked up is not learned
    assert all("User: easterly\n" not in sample.prompt and sample.response != "Look!" for sample in found)


def test_stage_1_learns_which_lines_mean_the_same_where_something_uses_it(workshop, monkeypatch):
    character, talks_of = load_character(workshop / "pip"), []
    monkeypatch.setattr(sft, "learn", lambda talks: talks_of.append(talks))
    turns = [{"user": "Up?", "reply": "Up!", "also": ["Upwards?"]}, {"user": "Down?", "reply": "Down!", "also": []}]
    once = replace(character, dialogues=turns[1:], knowledge=[])
    assert sft.learn_nearness(once, sft.Options()) is None and not talks_of   # it knows no two wordings of anything
    character = replace(once, dialogues=turns)
    sft.learn_nearness(character, sft.Options())
    (own, *others), = talks_of
    assert own == recall.known_exchanges(character) and len(others) == 4
    spare = next(turn for turn in load_character("coco").lookup if turn["also"])
    assert (spare["also"][0], spare["reply"]) in others[0]                    # what is not learned tells of wordings, too
    assert any(line == "What is your name?" for line, _ in others[0])
    talks_of.clear()
    asked = {"dialogues": [{"user": "whats your name", "reply": ""}]}         # of a test: nobody's wording of it is learned
    sft.learn_nearness(replace(character, test=character.test | asked), sft.Options())
    assert not any(schema.alike(line, "What is your name?") for pairs in talks_of.pop()[1:] for line, _ in pairs)
    for character, options in ((character, sft.Options(mix="reply=2")), (character, sft.Options(backbone="smollm2")),
                               (replace(character, dialogues=[], knowledge=[]), sft.Options())):
        assert sft.learn_nearness(character, options) is None and not talks_of


def test_what_users_say_to_others_names_nobody_else():
    lines = sft.lines_to_others("Coco")
    assert len(lines) > 5000 and not any(re.search("Hester|Quince|Cornelius", line) for line in lines)
    assert any("Coco" in line for line in lines)
    assert len(sft.lines_to_others("somebody else")) > len(lines)       # a stranger hears the lines to all of them


def test_a_character_that_says_little_of_itself_is_heard_too(tmp_path, monkeypatch):
    """The least that works has no dialogues, and its neighbours are trained all the same."""
    least = {"name": "Pip (a cat)", "description": "Pip is a cat.", "scenes": [{"image": "0.png", "draw": "Pip (a cat) sits."}]}
    write_character(tmp_path / "least", least)
    more = {"dialogues": [{"user": "Hi, Pip (a cat)!", "reply": "Hello."}]}
    write_character(tmp_path / "more", least | more)
    monkeypatch.setattr(sft, "SHIPPED", tmp_path)
    assert sft.lines_to_others("Zoe") == {"Hi, Zoe!"} and sft.lines_to_others("Pip (a cat)") == set()


def test_the_prior_is_what_the_base_draws_and_says_as_somebody_else(workshop):
    model = load(workshop / "base", "cpu")
    options = sft.Options(precision="fp32", prior_pictures=9, prior_replies=3)
    character = load_character(workshop / "pip")
    prior = sft.prior_samples(model, character, options)
    texts = sft.prior_texts(character, options)
    pictures = [sample for sample in prior if sample.task == "prior"]
    assert [sample.prompt for sample in pictures] == texts and len(set(texts)) > 6
    assert [text for text in texts if "small cat" in text] == [f"A small cat holds ball {i}." for i in (0, 1)]
    assert not any("Pip" in text for text in texts)
    many = sft.prior_texts(character, replace(options, prior_pictures=400))
    assert 0.15 < sum(text.startswith("A picture of ") and text.count(" ") < 9 for text in many) / 400 < 0.35
    for sample, drawn in zip(pictures, model.sample_images(texts[:8], range(8))):
        assert apart(sample.target, drawn) == 0
    seen = [sample for sample in prior if sample.task == "prior_vqa"]
    drawn = {id(sample.target) for sample in pictures}
    assert {sample.prompt for sample in seen} == {"Who is it?", "What is in this picture?", "Is this Pip?"}
    assert {id(sample.image) for sample in seen} == drawn
    assert model.generate_text([seen[0].prompt], [seen[0].image], max_tokens=60) == [seen[0].response]
    replies = [sample for sample in prior if sample.response is not None and sample.task != "prior_vqa"]
    assert Counter(sample.task for sample in replies)["prior_knowledge"] == 3
    asked = {prompt for prompt, accepted in sft.prior_talks(character, options) if accepted}
    for sample in replies:
        assert sample.task in ("prior_reply", "prior_knowledge") and "Pip" not in sample.prompt
        if sample.task == "prior_reply" and sample.prompt not in asked:
            assert model.generate_text([sample.prompt], max_tokens=60) == [sample.response]
    assert sft.prior_samples(model, character, replace(options, mix="t2i=2")) == []
    talks = sft.prior_talks(character, replace(options, prior_replies=50))
    lines = [prompt for prompt, _ in talks]
    about = [prompt.split("\n")[0] for prompt in lines]
    assert len(lines) == 30 + 2 * 20 and len(set(about)) > 45
    hers = {turn["user"] for turn in character.dialogues} | {line for fact in character.knowledge for line in fact["also"]}
    for prompt, accepted in talks:
        asked = prompt.split("User: ")[1].split("\n")[0]
        assert ("you" in asked) if accepted else (asked in hers)


def test_where_the_base_misreads_a_description_the_words_that_stand_there_are_learned(workshop, monkeypatch):
    """Asked for what stands in a description, the base may be wrong; and what is wrong teaches not to read."""
    model, character = load(workshop / "base", "cpu"), load_character(workshop / "pip")
    options = sft.Options(precision="fp32", prior_replies=40, mix="prior_reply=1,prior_knowledge=1")
    talks = sft.prior_talks(character, options)
    asked = [(prompt, accepted) for prompt, accepted in talks if accepted]
    right = {prompt for i, (prompt, _) in enumerate(asked) if i % 3}

    def say(prompts, **more):
        answers = dict(asked)
        return [f"It is the {answers[prompt][-1]}!" if prompt in right else "I like it here." for prompt in prompts]
    monkeypatch.setattr(model, "generate_text", say)
    prior = sft.prior_samples(model, character, options)
    learned = {sample.prompt: sample.response for sample in prior if sample.task == "prior_reply"}
    assert learned.keys() == {prompt for prompt, _ in talks} and 0 < len(right) < len(asked)
    for prompt, accepted in asked:
        reply = learned[prompt]
        assert word_measures.said(reply, accepted) and (reply.startswith("It is the ") == (prompt in right))
        if prompt not in right:
            assert reply[0].isupper() and reply.rstrip(".").lower() == accepted[0]
    for sample in prior:
        if sample.task == "prior_knowledge":
            about, question = sample.prompt.split("\n")
            assert sample.response[0].isupper() and sample.response.lower() in about.lower() and question[-1] == "?"


def test_a_stranger_has_one_name_and_answers_to_it():
    def named(text: str) -> set[str]:
        return {name for name in sft.NEIGHBOURS["names"] if re.search(rf"\b{name}\b", text)}
    personas = sft.NEIGHBOURS["personas"]
    friends = set().union(*(named(p["description"]) - {p["name"]} for p in personas))       # "Her brother is called Ruben."
    for seed in range(200):
        name, description, questions = sft.stranger(random.Random(seed))
        assert description.startswith(f"{name} is ") and named(description) - {name} <= friends
        assert all(named(question) == {name} for question, _ in questions) and len(questions) > 1
        assert all(word_measures.said(description, accepted[:1]) for _, accepted in questions)
        assert len(set(re.split(r"(?<=\.) ", description))) == len(re.split(r"(?<=\.) ", description)) > 2


def test_names_in_a_strangers_description_are_made_up_anew():
    dice = random.Random(0)
    sentence, accepted = sft.with_new_name("Her parrot is called Captain Puff.", ["captain puff", "puff"], dice)
    assert re.fullmatch(r"Her parrot is called Captain [A-Z][a-z]{3,}\.", sentence)
    assert accepted == [sentence[21:-1].lower()] != ["captain puff"]
    assert sentence != sft.with_new_name("Her parrot is called Captain Puff.", ["captain puff"], dice)[0]
    for sentence, accepted in (("He hates Sundays.", ["sundays"]), ("He loves plum cake.", ["plum cake"]),
                               ("Rosa is a cat.", ["rosa"]), ("He sings.", ["rosa"])):
        assert sft.with_new_name(sentence, accepted, dice) == (sentence, accepted)


@pytest.mark.parametrize("question, asked", [
    ("What does Bruno collect?", "What do you collect?"), ("Who is the best friend of Bruno?", "Who is your best friend?"),
    ("Where is the horse of Bruno?", "Where is your horse?"), ("What is Bruno afraid of?", "What are you afraid of?"),
    ("What has Bruno lost?", "What have you lost?"), ("What can Bruno not do?", "What can you not do?"),
    ("What is the name of the dog of Bruno?", "What is the name of your dog?"),
    ("Where was Bruno born?", "Where were you born?"), ("What did Bruno find?", "What did you find?"),
    ("Who taught Bruno to swim?", "Who taught you to swim?"),
    ("Where does Bruno keep his spoons?", "Where do you keep your spoons?")])
def test_a_question_about_somebody_becomes_one_in_a_talk(question, asked):
    assert sft.in_talk(question, "Bruno") == asked


def test_every_question_about_a_neighbour_can_be_asked_in_a_talk():
    for persona in sft.NEIGHBOURS["personas"]:
        for item in persona["questions"]:
            assert persona["name"] not in sft.in_talk(item["question"], persona["name"]), item
            assert word_measures.said(persona["description"], item["accepted"][:1]), item
            assert not any(word_measures.said(item["question"], [words]) for words in item["accepted"]), item


def test_each_expert_has_parameters_of_its_own(tokenizer):
    """Where und and gen tokens do not see each other, und depends on no parameter of gen, gen on none of und, and each
    on all of its own."""
    torch.manual_seed(0)
    layer = small_model(tokenizer).language_model.model.layers[0]
    with torch.no_grad():
        for p in layer.parameters():
            p += 0.1 * torch.randn_like(p)
    und, gen = torch.randn(1, 3, 64), torch.randn(1, 2, 64)
    apart = torch.zeros(1, 1, 5, 5)
    apart[..., :3, 3:] = apart[..., 3:, :3] = -torch.inf
    rope = torch.ones(1, 5, 1, 16), torch.zeros(1, 5, 1, 16)

    def moves(parameter) -> tuple[bool, bool]:
        """Whether another value of it moves what comes out of und, and of gen."""
        before = layer(und, gen, rope, apart, None)[:2]
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter += 0.1 * torch.randn_like(parameter)
        after = layer(und, gen, rope, apart, None)[:2]
        with torch.no_grad():
            parameter.copy_(kept)
        return tuple(not torch.equal(a, b) for a, b in zip(before, after))

    for name, parameter in layer.named_parameters():
        is_gen = "moe_gen" in name
        if "k_proj" in name and name.endswith("bias") and not hasattr(layer.self_attn, "q_norm"):
            continue                                       # a bias of all keys alike cancels in the softmax
        assert moves(parameter) == (not is_gen, is_gen), name


def test_training_times_are_shifted_as_the_configuration_says(tokenizer):
    """The median of a logit-normal t is 1/2; shifted by s it is s / (1 + s)."""
    for shift in (1.0, 2.0, 5.0):
        model = small_model(tokenizer, timestep_shift=shift)
        t = model.sample_times([torch.Generator().manual_seed(seed) for seed in range(4000)])
        assert abs(float(t.median()) - shift / (1 + shift)) < 0.02 and 0 < float(t.min()) < float(t.max()) < 1


def test_every_row_of_every_step_has_a_seed_of_its_own():
    examples = {"reply": [Example(torch.arange(i + 2), None, None) for i in range(3)]}
    seeds = [row.seed for run in (0, 1) for step in range(4)
             for row in sft.next_batch(examples, {"reply": 5}, run, step, 0.0)]
    assert len(set(seeds)) == len(seeds) == 2 * 4 * 5


def test_texts_are_dropped_as_often_as_asked(small):
    examples = {"t2i": [small.prepare(Sample("t2i", f"A bear, number {i}.", target=picture(i))) for i in range(4)]}

    def share(drop: float) -> float:
        rows = [row for step in range(100) for row in sft.next_batch(examples, {"t2i": 4}, 0, step, drop)]
        return sum(len(row.example.ids) == 2 for row in rows) / len(rows)

    assert share(0.0) == 0 and share(1.0) == 1 and abs(share(0.3) - 0.3) < 0.08


def test_a_base_of_random_weights_is_refused(tokenizer):
    """By its loss and by its entropy, both of real weights; a surer model may be as wrong, of a stranger's texts."""
    model = small_model(tokenizer)
    losses = model(model.readings(["Hello?"] * 2, None, ["Who is there?", "It is me."]))
    means = {"ce/reply": (losses.ce.sum() / losses.ce_tokens.sum()).item()}
    with pytest.raises(UserError, match="random weights"):
        sft.check_base(means, model, "x", "Pip is a cat.")
    sft.check_base({"ce/reply": 3.0}, model, "x", "Pip is a cat.")
    with torch.no_grad():
        model.language_model.lm_head.weight *= 5
    sft.check_base(means, model, "x", "Pip is a cat.")


# ---- rewards and evaluation ------------------------------------------------------------------------------------------

PROMPTS = [Prompt("Coco holds a ball", [Question("what does Coco hold?", "ball", 1.0, "held"),
                                        Question("where is Coco?", "beach", 3.0, "place")]),
           Prompt("Coco waves", []),
           Prompt("Coco sleeps on the moon", [Question("is Coco on the moon?", "yes", 1.0, "place")])]


@pytest.fixture(scope="module")
def networks(tokenizer, tmp_path_factory):
    """Folders base, judge, identity and reader as tiny/ has them, of random weights."""
    home = tmp_path_factory.mktemp("networks")
    base = small_model(tokenizer, image_size=64, max_latent_size=4, vit_max_patches=4)
    save(base, home / "base", {"char": "nobody"})
    words = AutoTokenizer.from_pretrained(home / "base")
    bos, eos = words.convert_tokens_to_ids(list(SPECIAL[:2]))
    assert eos != 2                                 # with 2, CLIP would read the largest token instead of the end
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{SPECIAL[0]} $A {SPECIAL[1]}", special_tokens=[(SPECIAL[0], bos), (SPECIAL[1], eos)])
    tower = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2)
    text = dict(vocab_size=len(words), max_position_embeddings=40, bos_token_id=bos, eos_token_id=eos, pad_token_id=eos)
    clip = CLIPModel(CLIPConfig(text_config=tower | text, vision_config=tower | dict(image_size=64, patch_size=16),
                                projection_dim=16))
    small = tower | dict(num_hidden_layers=2, image_size=64, patch_size=16)
    identity = Dinov2Model(Dinov2Config(**small))
    for p in (*clip.parameters(), *identity.parameters()):
        p.data += 0.05 * torch.randn_like(p)        # as initialised, all pictures look alike to them
    labels = dict(enumerate(["held=ball", "held=kite", "held=none", "place=beach", "place=moon"]))
    reader = ViTForImageClassification(ViTConfig(**small, id2label=labels, label2id={x: i for i, x in labels.items()}))
    sizes = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3)
    square = ViTImageProcessor(size={"height": 64, "width": 64}, **sizes)
    crop = CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, **sizes)
    for name, parts in (("judge", (clip.half(), crop, words)), ("identity", (identity, square)),
                        ("reader", (reader, square))):
        for part in parts:
            part.save_pretrained(home / name)
    return home


def named(networks) -> dict[str, str]:
    return {"base": str(networks / "base"), "clip_judge": str(networks / "judge"),
            "identity_judge": str(networks / "identity"), "reader": str(networks / "reader")}


def reward_options(networks, **more) -> RewardOptions:
    return RewardOptions(**named(networks), **more)


@pytest.fixture(scope="module")
def base(networks):
    return load(networks / "base", "cpu")


@pytest.fixture(scope="module")
def judge(networks, base):
    return Rewards(reward_options(networks), [smooth(i) for i in range(5)], base)


def test_clip_names_once_what_it_does_not_read(networks, capsys):
    judge = ClipJudge(str(networks / "judge"), "cpu")
    most = judge.model.config.text_config.max_position_embeddings
    long = "a hat and " * most
    for _ in range(2):
        judge.embed_text(["a hat", long])
    said = capsys.readouterr().err
    assert said.count("warning: CLIP reads") == 1 and f"CLIP reads {most} of the" in said


def test_clip_judge_is_transformers_clip(networks):
    judge, images = ClipJudge(str(networks / "judge"), "cpu"), [smooth(1), smooth(2)]
    texts = ["a red hat", "the cat is red on the beach"]
    words = judge.tokenizer(texts, padding=True, return_tensors="pt")
    pixels = judge.processor(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        theirs = judge.model(input_ids=words.input_ids, attention_mask=words.attention_mask, pixel_values=pixels)
    ours = judge.embed(images)[0] @ judge.embed_text(texts).T * judge.model.logit_scale.exp()
    assert torch.allclose(ours, theirs.logits_per_image, atol=1e-4)


def test_clip_patches_give_the_mean_cosine_of_patches(networks):
    judge = ClipJudge(str(networks / "judge"), "cpu")
    images = [smooth(1), smooth(2)]
    _, patches = judge.embed(images)
    with torch.no_grad():
        seen = judge.model.vision_model(pixel_values=next(judge.batches(images)), output_hidden_states=True)
    hidden = seen.hidden_states
    assert len(hidden) == 4                         # embeddings and three layers: [-2] is the last but one
    expected = torch.cosine_similarity(hidden[-2][0, 1:], hidden[-2][1, 1:], dim=-1).mean()
    assert torch.allclose(patches[0] @ patches[1], expected, atol=1e-5)
    assert torch.allclose(patches[0] @ patches[0], torch.tensor(1.0), atol=1e-5)


def test_judges_do_not_depend_on_the_batch(networks, monkeypatch):
    images = [smooth(i) for i in range(5)]
    clip, identity = ClipJudge(str(networks / "judge"), "cpu"), IdentityJudge(str(networks / "identity"), "cpu")
    reader = AttributeReader(str(networks / "reader"), "cpu")
    whole = *clip.embed(images), identity.embed(images), reader.classify(images)["held"]
    monkeypatch.setattr(rewards.Judge, "batch", 2)
    for a, b in zip(whole, (*clip.embed(images), identity.embed(images), reader.classify(images)["held"])):
        assert torch.allclose(a, b, atol=1e-5)
    assert torch.allclose(whole[2].norm(dim=1), torch.ones(5)) and torch.allclose(whole[3].sum(1), torch.ones(5))


def test_broken_judges_are_refused(networks, tmp_path):
    for kind, name in ((ClipJudge, "judge"), (IdentityJudge, "identity"), (AttributeReader, "reader")):
        with pytest.raises(UserError, match="give a folder or a hub name"):
            kind(str(tmp_path / "nothing"), "cpu")
        folder = tmp_path / name
        folder.mkdir()
        for file in (networks / name).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        weights = load_file(folder / "model.safetensors")
        lost = sorted(key for key in weights if "layernorm" in key.lower() or "norm" in key)[0]
        save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError, match="1 tensors are missing"):
            kind(str(folder), "cpu")
        (folder / "model.safetensors").write_bytes((networks / name / "model.safetensors").read_bytes()[:1000])
        with pytest.raises(UserError) as error:
            kind(str(folder), "cpu")
        assert "\n" not in str(error.value)


def test_reader_scores_what_it_knows(networks, monkeypatch):
    reader = AttributeReader(str(networks / "reader"), "cpu")
    assert reader.columns == {"held": {"ball": 0, "kite": 1, "none": 2}, "place": {"beach": 3, "moon": 4}}
    seen = {"held": torch.tensor([[0.8, 0.1, 0.1]] * 3), "place": torch.tensor([[0.1, 0.9]] * 3)}
    monkeypatch.setattr(reader, "classify", lambda images: seen)
    score = reader.score([None] * 3, PROMPTS)
    assert score[0] == 0.5 and score[1].isnan() and score[2].isnan()        # "yes" is no value of place
    assert [len(reader.known(prompt)) for prompt in PROMPTS] == [2, 0, 0]
    assert reader.named("On the Moon, Pip kites with a ball. None is red.") == [("held", "ball"), ("held", "none"), ("place", "moon")]
    reader.columns["hat"] = {"beach": 5, "cap": 6}          # "beach" could be either now
    assert reader.named("Pip's cap, at the beach: a close-up.") == [("hat", "cap")]
    assert evaluation.as_read(reader, "A kite and a cap!").questions == [Question("", "kite", category="held")]


def test_answers_scored_on_a_shared_picture_are_those_of_the_forward_pass(base):
    looks = [smooth(1), smooth(2), None, smooth(3)]
    asked = [[("what color is the hat?", "red"), ("where?", "on the beach")], [],
             [("the cat", "is a blue ball"), ("who?", "Coco")], [("what?", "hat")]]
    flat = [(look, q, a) for look, pairs in zip(looks, asked) for q, a in pairs]
    looked, questions, answers = map(list, zip(*flat))
    total, tokens = log_likelihood(base, questions, answers, looked)
    for batch in (1, 2, 128):
        ours = answer_log_p(base, looks, asked, batch)
        assert [len(x) for x in ours] == [2, 0, 2, 1]
        assert torch.allclose(torch.cat(ours), total / tokens, atol=1e-5)
    assert [len(x) for x in answer_log_p(base, [None, None], [[], []])] == [0, 0]


def test_vqa_is_the_weighted_probability_and_never_flat(base):
    images = [smooth(i) for i in range(4)]
    prompts = [PROMPTS[0]] * 3 + [PROMPTS[1]]
    value = vqa_reward(base, images, prompts)
    p = answer_log_p(base, images[:1], [[(q.question, q.answer) for q in PROMPTS[0].questions]])[0].exp()
    assert torch.isclose(value[0], (p[0] + 3 * p[1]) / 4) and value[3] == 0
    assert len(set(value[:3].tolist())) == 3        # all wrong, as the network is random, and yet of different worth
    assert (vqa_reward(base, images, prompts, "log")[:3] < 0).all()
    with pytest.raises(UserError, match="likelihood, log or exact"):
        vqa_reward(base, images, prompts, "maybe")


def test_vqa_exact_matches_strings():
    said = iter(["Ball ", "moon", "yes"])
    judge = types.SimpleNamespace(generate_text=lambda prompts, images, max_tokens: [next(said) for _ in prompts])
    assert vqa_reward(judge, [None] * 3, PROMPTS, "exact").tolist() == [0.25, 0, 1]


def test_diversity_is_per_picture_and_leaves_itself_out():
    patches = torch.nn.functional.normalize(torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(0)), dim=-1)
    patches[1] = patches[1, :1]                     # the second group: four times the same
    value = diversity(patches)
    for g in range(4):
        others = [float(1 - patches[0, g] @ patches[0, k]) for k in range(4) if k != g]
        assert value[0, g].item() == pytest.approx(np.mean(others), abs=1e-5)
    assert value[1].abs().max() < 1e-5 and value[0].std() > 0.01
    assert diversity(patches[:, :1]).abs().max() < 1e-5
    among = torch.tensor([[True, False, True, True], [False, True, False, False]])
    alike = diversity(patches, among)
    assert alike.isnan().tolist() == [[False, True, False, False], [True] * 4]
    assert torch.allclose(alike[0, among[0]], diversity(patches[:1, [0, 2, 3]])[0], atol=1e-5)


def test_identity_band_is_zero_inside_and_twice_the_overshoot_outside():
    value = identity_band(torch.tensor([0.3, 0.5, 0.7, 0.9, 1.0]), 0.5, 0.9)
    assert torch.allclose(value, torch.tensor([-0.4, 0, 0, 0, -0.2]), atol=1e-6)


def test_calibrated_band_holds_real_pictures_and_refuses_copies_and_strangers():
    torch.manual_seed(0)
    one = torch.nn.functional.normalize(torch.randn(64) + 0.4 * torch.randn(8, 64), dim=-1)      # one character, and
    stranger = torch.nn.functional.normalize(torch.randn(1, 64), dim=-1)                         # an odd reference
    for references in (one, torch.cat((one, stranger))):
        low, high = calibrate_band(references)
        assert (identity_band(nearest_other(one), low - 0.05, high) == 0).all()
        assert (identity_band(nearest(references, references), low, high) < 0).all()             # each is its own copy
        assert (identity_band(nearest(stranger, one), low, high) < -0.2).all()
    assert abs(low - calibrate_band(one)[0]) < 0.02                          # which the odd one hardly moved
    assert nearest_other(one[:1]).isnan().all()


def test_grid_energy_sees_a_grid_and_not_a_scene():
    clean = [smooth(i, 128) for i in range(8)]
    gridded = []
    for image in clean:
        pixels = np.asarray(image).astype(int)
        pixels[::16], pixels[:, ::16] = pixels[::16] + 25, pixels[:, ::16] - 25
        gridded.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    before, after = grid_energy(clean, 16), grid_energy(gridded, 16)
    assert 0.3 < before.mean() < 1.7 and (after > 2 * before).all()
    assert grid_energy([Image.new("RGB", (130, 67), "red")], 16).tolist() == [1.0]


def test_rewards_have_the_shape_and_the_sum(judge):
    images = [smooth(100 + i) for i in range(12)]
    terms = judge(images, PROMPTS)
    assert set(terms) == set(judge.weights) | {"likeness", "grid", "unasked", "total"}
    assert all(term.shape == (3, 4) and term.isfinite().all() for term in terms.values())
    assert judge.weights.items() >= {"vqa": 0.3, "clip_t": 0.45, "diversity": 0.2, "identity": 0.6}.items()
    total = sum(weight * terms[name] for name, weight in judge.weights.items())
    assert torch.allclose(terms["total"], total)
    assert terms["unasked"].tolist() == [[0.0] * 4, [1.0] * 4, [0.0] * 4]
    seen, text = judge.clip.embed(images[4:5])[0], judge.clip.embed_text([PROMPTS[1].text])
    assert torch.isclose(terms["clip_t"][1, 0], 100 / 30 * (seen @ text.T)[0, 0], atol=1e-5)


def test_every_term_varies_inside_a_group(networks, base):
    judge = Rewards(reward_options(networks, band_low=0.999, band_high=0.9999), [smooth(i) for i in range(3)], base)
    got = spread(judge([smooth(100 + i) for i in range(8)], PROMPTS[::2]))
    assert all(got[name] > 1e-5 for name in ("vqa", "clip_t", "diversity", "identity", "total", "grid")), got


def test_ordinary_lines_that_training_knows_are_left_out(capsys):
    known, unseen = lines.known_lines(load_character("coco")), lines.unseen
    assert unseen(["what are you afraid of", "Who lives with you in that tower?"], known) == [
        "Who lives with you in that tower?"]
    assert "left out" in capsys.readouterr().err
    assert unseen(["i am so stressed"], known) == []        # what users say to Cornelius is learned too
    sixty = Path("docs/sixty-lines.txt").read_text().splitlines()
    assert len(sixty) == 60 and len(unseen(sixty, known)) == 56
    told = ["I lost my hat.", "what are you", "Hello there"]
    assert lines.near("I lost my hat on the train!", told) == lines.near("i lost my wallet", told) == "I lost my hat."
    assert not lines.near("Hello there, sailor", told) and not lines.near("I lost a wallet", told)


def test_somebody_else_may_not_become_more_like_the_character(networks, base):
    judge = Rewards(reward_options(networks), [smooth(i) for i in range(5)], base)
    pictures = [smooth(i) for i in (0, 1, 100, 101)]      # two references, which are most like her, and two others
    asked = [Prompt("a cat", [], stranger=True, ceiling=0.9), Prompt("a cat", [])]
    found = judge(pictures * 2, asked)
    identity, likeness = found["identity"], found["likeness"]
    assert torch.allclose(identity[0], -2 * (likeness[0] - 0.9).clamp(min=0)) and (identity[0, :2] < -0.19).all()
    assert torch.equal(identity[1], identity_band(likeness[1], *judge.band))
    assert (identity[1] < 0).any() and (found["vqa"][0] == found["vqa"][1]).all()       # all else is paid as anywhere
    assert judge([smooth(100)], [replace(asked[0], ceiling=likeness[0, 2].item() + 0.01)])["identity"] == 0     # no heap pays


def test_the_ceiling_of_somebody_else_is_what_stage_1_draws(small):
    prompts = [Prompt("a cat", [], stranger=True), Prompt("a dog", [], stranger=True)]
    drawn = []
    judge = SimpleNamespace(likeness=lambda images: drawn.append(images) or torch.arange(len(images)) + len(drawn) * 1.0)
    found = grpo.with_ceilings(small, judge, prompts, grpo.Options(steps=2, window=1, window_end=1, precision="fp32"))
    assert [prompt.ceiling for prompt in found] == [2.5, 3.5] and [prompt.text for prompt in found] == ["a cat", "a dog"]
    again = len(drawn)
    grpo.with_ceilings(small, judge, prompts[:1], grpo.Options(steps=2, window=1, window_end=1, precision="fp32"))
    assert all(apart(one, other) == 0 for one, other in zip(drawn[0], drawn[again]))    # a run that goes on has the same


def test_a_share_of_the_prompts_of_stage_2_names_somebody_else():
    asked = [Question("What does Pip do?", "waves"), Question("What color is Pip?", "brown")]
    pip = SimpleNamespace(name="Pip", prompts=[Prompt(f"Pip the owl waves, {i}.", asked) for i in range(6)])
    strangers = grpo.stranger_prompts(pip.prompts, pip.name, "strangers")
    assert all(s.stranger and not data.names_in(s.text, "Pip") for s in strangers)
    assert all(re.fullmatch(r"What does (?!Pip).+ do\?", q.question) for s in strangers for q in s.questions)
    assert all([q.answer for q in s.questions] == ["waves"] for s in strangers)     # her color is her own
    assert [s.text[-4:] for s in strangers] == [p.text[-4:] for p in pip.prompts]
    assert strangers == grpo.stranger_prompts(pip.prompts, pip.name, "strangers")
    assert strangers != grpo.stranger_prompts(pip.prompts, pip.name, "held out")
    for share, count in ((0.0, 0), (0.01, 1), (0.25, 2), (0.4, 3), (0.99, 7)):
        options = grpo.Options(prompts=8, others=share)
        chosen = [p for i in range(12) for p in grpo.prompts_of(pip.prompts, strangers, options, i)]
        assert sum(p.stranger for p in chosen) == 12 * count and len(chosen) == 96
        told = [sum(p.text == s.text for p in chosen) for s in strangers]
        assert max(told) - min(told) <= 1                 # nobody is left out
    assert not any(p.stranger for p in grpo.prompts_of(pip.prompts, strangers, grpo.Options(prompts=1), 0))


def test_groups_do_not_touch_each_other(judge):
    images = [smooth(100 + i) for i in range(12)]
    whole = judge(images, PROMPTS)
    for p in range(3):
        alone = judge(images[4 * p:4 * p + 4], PROMPTS[p:p + 1])
        assert all(torch.allclose(whole[name][p], alone[name][0], atol=1e-5) for name in whole)
    turned = judge([images[i] for i in (3, 2, 1, 0)], PROMPTS[:1])
    assert all(torch.allclose(whole[name][0].flip(0), turned[name][0], atol=1e-5) for name in whole)


def test_normalized_terms_weigh_the_same_and_are_logged_raw(judge):
    terms = judge([smooth(100 + i) for i in range(4)], PROMPTS[:1])
    even = judge.total(terms, normalize=True)
    assert torch.equal(judge.total(terms, normalize=False), terms["total"]) and not torch.allclose(terms["total"], even)
    assert abs(even.mean()) < 1e-4                  # every term is centred in its group
    z = rewards.unit_spread(torch.tensor([[1.0, 2.0, 3.0, 6.0], [5.0] * 4]))
    assert z[0].std(correction=0) == pytest.approx(1, abs=1e-3) and (z[1] == 0).all()


def test_references_are_embedded_once(networks, base, monkeypatch):
    counts = []
    look = IdentityJudge.embed
    monkeypatch.setattr(IdentityJudge, "embed", lambda self, images: counts.append(len(images)) or look(self, images))
    judge = Rewards(reward_options(networks), [smooth(i) for i in range(5)], base)
    judge([smooth(7), smooth(8)], PROMPTS[:1])
    judge([smooth(7), smooth(8)], PROMPTS[:1])
    assert counts == [5, 2, 2]


def test_bad_references_are_errors(networks, base, tmp_path):
    with pytest.raises(UserError, match="no reference pictures"):
        Rewards(reward_options(networks), [], base)
    with pytest.raises(UserError, match="two pictures or more"):
        Rewards(reward_options(networks), [smooth(1)], base)
    with pytest.raises(UserError, match="band_low below band_high"):
        Rewards(reward_options(networks, band_low=0.9, band_high=0.5), [smooth(1)], base)
    assert Rewards(reward_options(networks, band_low=0.5, band_high=0.9), [smooth(1)], base).band == (0.5, 0.9)
    smooth(1, 256).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    with pytest.raises(UserError, match="cannot be read"):
        Rewards(reward_options(networks), [smooth(1), Image.open(tmp_path / "cut.png")], base)


def test_figures_say_what_they_do_not_know():
    few = report.figure([1.0, 2.0, 3.0, float("nan")], "seeds")
    assert (few.mean, few.n, few.over) == (2.0, 3, "seeds") and few.error == pytest.approx(1 / 3 ** 0.5)
    assert few.high - few.mean == pytest.approx(4.30 / 3 ** 0.5)                         # Student's t of two degrees
    assert report.figure([float("nan")]) is None and report.figure([]) is None
    assert report.figure([4.0]).error is None and report.figure([4.0]).low is None
    right = report.figure([1.0] * 40, "questions", share=True)
    assert right.mean == 1 and right.low == pytest.approx(0.912, abs=1e-3) and right.high == 1 and right.error > 0.02
    half = report.figure([0.0, 1.0] * 50, share=True)
    assert half.low == pytest.approx(0.404, abs=1e-3) and half.high == pytest.approx(0.596, abs=1e-3)
    x = np.random.default_rng(1).normal(5, 2, 400)
    many = report.figure(x)
    assert many.error == pytest.approx(x.std() / 20, rel=0.1)                            # the bootstrap's is 0.1 too
    assert many.low == pytest.approx(x.mean() - 1.96 * many.error, abs=0.03)


def test_what_is_hard_for_both_cancels():
    rng = np.random.default_rng(0)
    hard, noise = rng.normal(0, 1, 60), rng.normal(0, 0.01, 60)
    change = report.difference(hard + 0.1 + noise, hard, "prompts")
    assert change.mean == pytest.approx(0.1, abs=0.005) and change.error < 0.005 < 0.1 < report.figure(hard).error
    assert report.difference([1.0, float("nan")], [0.5, 0.0]).n == 1 and report.difference([np.nan], [1.0]) is None
    drawn = [report.difference(rng.normal(0, 1, 3), np.zeros(3)) for _ in range(400)]    # the truth is 0
    assert 0.92 < np.mean([found.low < 0 < found.high for found in drawn]) < 0.98


def test_subjects_and_prompts_are_both_drawn_anew():
    """Eight subjects that differ are eight values, however many prompts each of them has."""
    subjects = np.repeat(np.linspace(0, 1, 8)[:, None], 50, axis=1)
    both = report.bootstrap(np.mean, subjects, axes=2)
    expected = np.linspace(0, 1, 8).std(ddof=1) / 8 ** 0.5
    assert both.mean == pytest.approx(0.5) and both.error == pytest.approx(expected, rel=0.1)
    assert both.high - both.mean == pytest.approx(2.36 * both.error)                     # Student's, as of eight values
    assert report.bootstrap(np.mean, subjects.T, axes=2).error == pytest.approx(both.error, rel=0.1)
    assert report.bootstrap(np.mean, subjects.T).error < 1e-9                            # prompts alone tell nothing


def test_gap_is_the_share_of_the_way_and_has_the_error_of_all_three():
    base, mine, real = np.full(24, 0.5), np.full(24, 0.8), np.full(8, 0.9)
    gap = report.share_of_way(mine, base, real, "prompts")
    assert gap.mean == pytest.approx(0.75) and gap.error < 1e-9 and gap.n == 24
    rng = np.random.default_rng(0)
    assert report.share_of_way(mine, base, real + rng.normal(0, 0.05, 8)).error > 0.01   # that of real pictures counts
    assert report.share_of_way(mine, base + rng.normal(0, 0.1, 24), real).error > 0.005
    assert report.share_of_way(mine, np.full(24, 0.9), np.full(4, 0.8)) is None         # there is no way to go
    few, many = (report.share_of_way(mine, base, real[:n] + rng.normal(0, 0.05, n)) for n in (3, 8))
    assert few.high - few.mean == pytest.approx(4.30 * few.error)                       # Student's, as of three values
    assert many.high - many.mean == pytest.approx(2.36 * many.error)
    assert report.share_of_way(mine, base, real[:1]).error is None


def test_leakage_is_what_is_above_the_base():
    rng = np.random.default_rng(0)
    base = {"subjects": rng.normal(0.2, 0.1, (4, 6)), "likeness": rng.normal(0.2, 0.1, 6)}
    more = np.array([0.1, 0.5, 0.3, 0.0])[:, None]
    stage = {"subjects": base["subjects"] + more, "likeness": base["likeness"] + 0.6}
    figures = report.figures_of(stage, base, {"likeness": np.full(3, 0.9)}, ["a tiger", "Ambrose", "a chef"])
    assert figures["leakage"].mean == pytest.approx(0.3) and figures["leakage_max"].mean == pytest.approx(0.5)
    assert figures["leakage_max"].over == "prompts, Ambrose" and figures["leakage_class"].mean == pytest.approx(0)
    assert figures["likeness_others"].mean == pytest.approx(stage["subjects"][:3].mean())
    none = report.figures_of(base, base, {"likeness": np.full(3, 0.9)}, ["a tiger", "Ambrose", "a chef"])
    assert none["leakage"].mean == 0 and none["leakage"].error is None and "gap" not in none
    change = report.compared({"base": {"clip_t": np.ones(3)}, "SFT": {"clip_t": np.full(3, 1.5)}})
    assert change["SFT - base"]["clip_t"].mean == 0.5
    once, again = ({"subjects": base["subjects"] + k * more, "bits": np.array([8.0, 16]) * k, "bytes": np.array([4.0, 8])}
                   for k in (1, 3))
    change = report.compared({"SFT": once, "SFT + GRPO": again})["SFT + GRPO - SFT"]
    assert change["leakage"].mean == pytest.approx(0.6) and change["leakage"].over == "subjects"
    assert change["leakage_class"].mean == pytest.approx(0) and change["bits_per_byte"].mean == pytest.approx(4)
    assert change["leakage"].error > 0.1                                # its subjects differ, whatever the base's do


def test_table_shows_intervals_and_what_they_are_over():
    rows = report.table({"base": {"knowledge": report.figure([1.0] * 40, "questions", share=True),
                                  "likeness": report.Figure(0.25)}, "SFT": {}},
                        {"knowledge": {"chance": 0.25}})
    worst = {name: {"leakage_max": report.figure([0.1, 0.2, 0.3], over)}
             for name, over in (("SFT", "prompts, Ambrose"), ("GRPO", "prompts, a chef"))}
    assert report.table({"base": {"leakage_max": report.Figure(0.0)}, **worst})[1][-1] == "3 prompts, Ambrose; prompts, a chef"
    assert rows[0] == ["", "better", "base", "SFT", "over", "guessing"]
    assert rows[1] == ["knowledge, %", "up", "100.0 [91, 100]", "-", "40 questions", "chance 25"]
    assert rows[2][2] == "0.250" and len(rows) == 3
    assert len({line.count("|") for line in report.markdown(rows).splitlines()}) == 1
    assert report.as_json(np.array([1 / 3, np.nan])) == [0.3333, None]


def test_a_measure_that_has_no_name_yet_is_shown_all_the_same():
    base, stage = ({"colors": np.full(24, value) + np.arange(24) / 100} for value in (1.0, 3.0))
    figures = report.figures_of(stage, base, {}, [])
    rows = report.table({"SFT": figures})
    assert rows[1][0] == "colors" and rows[1][2].startswith("3.115 [") and rows[1][3] == "24 prompts"
    assert report.compared({"base": base, "SFT": stage})["SFT - base"]["colors"].mean == pytest.approx(2)


def test_picture_grid_puts_pictures_where_they_belong():
    colors = [["red", "lime"], ["blue"]]
    page = picture_grid([[Image.new("RGB", (8, 8), color) for color in row] for row in colors])
    assert page.size == (16, 16) and page.getpixel((4, 4)) == (255, 0, 0) and page.getpixel((12, 4)) == (0, 255, 0)
    assert page.getpixel((4, 12)) == (0, 0, 255) and page.getpixel((12, 12)) == (255, 255, 255)
    labelled = picture_grid([[Image.new("RGB", (8, 8), "red")]], ["one"], ["above"], side=20)
    assert labelled.size == (170, 42) and labelled.getpixel((155, 30)) == (255, 0, 0)


# -- words --

@pytest.mark.parametrize("reply, accepted, heard", [
    ("I collect LOST  buttons, sailor!", ["lost buttons"], True),
    ("Buttons that are lost.", ["lost buttons"], False),                # in order, side by side
    ("It is called Lumi.", ["the lumi"], True),                         # articles do not count
    ("I have lamps.", ["lamp"], False),
    ("Seven, of course", ["7", "seven"], True),
    ("", ["seven"], False), ("I don’t like it", ["don't like"], True), ("Ｌumi", ["lumi"], True),
    ("anything", ["a"], False)])
def test_a_fact_is_said_word_for_word(reply, accepted, heard):
    assert word_measures.said(reply, accepted) == heard


def test_what_is_said_by_accident_is_told():
    replies, accepted = ["It is Lumi.", "It is Lumi, or seven.", "Hm."], [["lumi"], ["seven"], ["snow"]]
    assert word_measures.by_accident(replies, accepted) == pytest.approx(1 / 6)        # Lumi, where seven was asked
    assert word_measures.by_accident([], []) == 0


def test_scripts_without_spaces_have_words():
    assert word_measures.said("我有一盏灯。", ["灯"]) and not word_measures.said("我有一盏灯。", ["船"])
    assert word_measures.words("Coco's 77 steps, 小明!") == ["coco's", "77", "steps", "小", "明"]
    assert word_measures.words("고양이가 있다") == ["고양이가", "있다"]


def test_own_words_are_hers_often_and_hardly_anybodys_else():
    hers = [f"The tea is warm, sailor, number {i}." for i in range(60)] + ["The tea is warm, I say."] * 30
    hers[0] += " zebra"
    hers[:20] = [reply + " By my left paw!" for reply in hers[:20]]
    others = [f"The tea is warm, my friend, number {i}." for i in range(60)] + ["My paw is left."] * 3
    own = word_measures.own_words(hers, others)
    assert ("sailor",) in own and ("left", "paw") in own or ("by",) in own
    assert not own & {("the",), ("tea",), ("warm",), ("zebra",), ("the", "tea"), ("my",)}
    assert ("sailor", "number") not in own                              # the one word says it
    assert word_measures.uses("Good day, Sailor!", own) == [("sailor",)]
    assert word_measures.uses("Good day, sailor!", own, "User: I am a sailor.") == []
    assert word_measures.unused(own, ["Left, sailor!"]) == own - {("sailor",), ("left",)}
    assert word_measures.own_words(hers, hers) == set() and word_measures.own_words([], others) == set()


def test_lookup_finds_what_words_alone_give_away():
    pairs = [("What does Pip drink?", "Cold lemon tea."), ("Where does Pip live?", "In a red boat."),
             ("What does Pip fear?", "Loud thunder.")]
    options = ["hot milk", "lemon tea", "a red boat"]
    ask = {"question": "Which drink does Pip like?", "options": options, "answer": "lemon tea"}
    assert word_measures.lookup([ask], pairs) == ["lemon tea"]
    found = word_measures.guessing([ask] * 4, pairs)
    assert found["lookup"] == 1 and found["chance"] == pytest.approx(1 / 3)
    assert "lookup" not in word_measures.guessing([ask], [])


def test_variety_counts_ngrams():
    v = word_measures.variety(["a b a b a b", "c d"])
    assert v == {"distinct1": 4 / 8, "distinct2": 3 / 6, "repetition": 1 - 2 / 3}
    assert word_measures.variety(["one two three four five"])["repetition"] == 0
    assert np.isnan(word_measures.variety([])["distinct1"])


def test_baselines_see_through_skewed_keys():
    items = [{"question": "?", "options": ["a", "b", "the long one", "c"], "answer": "the long one"}] * 40
    b = word_measures.guessing(items, [], 3)
    assert b["chance"] == 0.25 and b["longest"] == 1 and b["key unshuffled"] == 1 and b["key"] < 0.5


def test_choice_takes_the_likeliest_option_whatever_its_place(base, monkeypatch):
    worth = {"red": -1.0, "blue": -2.0, "green": -3.0}
    monkeypatch.setattr(evaluation, "answer_log_p", lambda model, looks, asked: [
        torch.tensor([worth[answer] for _, answer in pairs]) for pairs in asked])
    stage = evaluation.Stage("base", "", "")
    items = [{"question": "?", "options": o, "answer": "red"} for o in (["red", "blue"], ["green", "blue", "red"])]
    assert evaluation.choose(base, stage, items).tolist() == [1, 1]
    assert evaluation.choose(base, stage, [items[0] | {"answer": "blue"}, items[1]]).tolist() == [0, 1]
    assert evaluation.choose(base, stage, []).tolist() == []


def test_who_it_is_has_a_row_of_its_own(base, monkeypatch):
    """Coco's held-out questions about pictures: of a model that is right where, and only where, her looks are asked."""
    character = load_character("coco")
    exam = evaluation.examination(character, evaluation.Options(char="coco", items=60))
    exam = replace(exam, talk=[], facts=[], choices=exam.choices | {"knowledge": [], "vqa_seen": []})
    monkeypatch.setattr(evaluation, "choose", lambda model, stage, items: np.array(
        [float(item["identity"]) for item in items]))
    hers = {id(item["image"]) for item in character.test["vqa"]}
    for sees in True, False:                                            # by heart, the picture changes nothing
        monkeypatch.setattr(evaluation, "answer_log_p", lambda model, images, asked: [
            torch.tensor([-1.0 + (sees and id(image) in hers)]) for image in images])
        found = evaluation.recognized(None, evaluation.Stage("SFT", "", ""), exam.choices["identity_vqa"],
                                      exam.others_pictures)
        assert len(found) >= 16 and (found == float(sees)).all()
    monkeypatch.setattr(evaluation, "true_replies", lambda model, prompts, replies: {})
    values, _ = evaluation.text_values(Talker(), evaluation.Stage("SFT", "", ""), exam, evaluation.Options(seeds=1))
    asked = [item for item in character.test["vqa"] if item["identity"]]
    assert len(asked) >= 16 and exam.choices["identity_vqa"] == asked
    assert values["identity_vqa"].tolist() == [1] * len(asked)
    assert values["vqa"].tolist() == [float(item["identity"]) for item in character.test["vqa"][:60]]


def test_who_it_is_is_compared_with_pictures_of_several_others(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(evaluation, "answer_log_p", lambda model, images, asked: shown.append(images) or [
        torch.tensor([-1.0]) for _ in images])
    items = [{"question": "Who?", "answer": "Pip", "image": f"own {i}"} for i in range(6)]
    evaluation.recognized(None, evaluation.Stage("SFT", "", ""), items, [f"other {i}" for i in range(6)])
    assert all(len({images[i] for images in shown[1:]}) == 4 for i in range(6))
    coco = load_character("coco")
    seen = evaluation.pictures_of_others(replace(coco, folder=tmp_path))            # a copy of her is not somebody else
    assert len(seen) == 30 and [image.tobytes() for image in seen] == [
        image.tobytes() for image in evaluation.pictures_of_others(coco)]
    plain = [{"answer": answer, "identity": False} for answer in ("Pip.", "a cat", "Pip is glad")]
    marked = [{"answer": "a cat", "identity": True}]
    assert evaluation.asks_who_it_is(plain, "Pip") == plain[:1]
    assert evaluation.asks_who_it_is(plain + marked, "Pip") == marked


def test_bits_are_those_of_the_whole_reply_over_its_bytes(base):
    prompts, replies = ["Say hello.", "And now?"], ["Hello, é!", "No."]
    values = evaluation.true_replies(base, prompts, replies)
    total, tokens = log_likelihood(base, prompts, replies)              # the end included
    assert values["bits"] == pytest.approx((-total / math.log(2)).tolist(), rel=1e-4)
    assert values["nll"] == pytest.approx((-total / tokens).tolist(), rel=1e-4)
    assert values["bytes"].tolist() == [10, 3]                          # "é" has two in UTF-8
    figure = report.figures_of(values, {}, {}, [])["bits_per_byte"]
    assert figure.mean == pytest.approx(values["bits"].sum() / 13)


def asked_for(**more) -> evaluation.Exam:
    nothing = dict.fromkeys(("talk", "taught", "facts", "prompts", "scenes", "subjects", "personas", "judged",
                             "moments", "known"), [])
    choices = dict.fromkeys(("knowledge", "vqa", "vqa_seen", "identity_vqa"), [])
    return evaluation.Exam(**{"name": "Coco", "kind": "a small otter", "choices": choices} | nothing | more)


class Talker:
    """A model that answers by what its prompt holds."""
    def __init__(self, **says):
        self.says, self.asked = says, []

    def generate_text(self, prompts, max_tokens=0, temperature=0.0, generator=None):
        assert temperature == 0                                         # facts and other personas are greedy
        self.asked += prompts
        return [next((reply for word, reply in self.says.items() if word in prompt), "Hm.") for prompt in prompts]


def test_what_is_drawn_with_a_reply_is_read_for_what_others_expect(monkeypatch):
    """From the talk, and from the sentence of the stage if it names who is meant."""
    model = Talker(**{"Lit!\nPlan": "<think>Night.</think><gen>Coco by a lamp.</gen>", "Gone!\nPlan": "<think>Half a",
                      "lamp": "Coco and the lamp.", "crab": "I am on my way."})
    turns = [{"user": "The lamp?", "reply": "Lit!", "draw": "Coco smiles."},
             {"user": "The crab?", "reply": "Gone!", "draw": "Coco is sad."}]
    drawn, expected = [], []

    def draw(model, texts, o, guidance, bar, seeds):
        drawn.append(texts)
        return [f"{len(drawn)}{i}" for i in range(len(texts))]

    def score(images, prompts):
        expected.append([prompt.text for prompt in prompts])
        if prompts[0].text == "Coco is sad.":               # what belongs to the other talk
            return torch.tensor([torch.nan, 0.5])
        return torch.tensor([float(image in ("10", "20", "30", "31")) for image in images])
    monkeypatch.setattr(evaluation, "draw", draw)
    clip = SimpleNamespace(embed=lambda images: (images, None))
    judges = SimpleNamespace(reader=SimpleNamespace(score=score, named=lambda sentence: []), clip=clip,
                             clip_i=lambda seen: torch.tensor([float(image[0]) for image in seen]))
    stage = evaluation.Stage("SFT", "", "Coco is kind.", "Ahoy!")
    values, told = evaluation.talk_values(model, stage, judges, asked_for(moments=turns), evaluation.Options(), None)
    talk = [draw_prompt("Coco", "Coco is kind.", turn["user"], turn["reply"]) for turn in turns]
    plan = draw_prompt("Coco", "Coco is kind.", "The lamp?", "Lit!", "Night.", "Coco by a lamp.")
    assert drawn == [talk, [plan, talk[1]], ["Coco and the lamp.", talk[1]]] and expected == 3 * [
        ["Coco smiles.", "Coco is sad."], ["Coco is sad.", "Coco smiles."]]
    assert model.asked == [data.think_prompt("Coco", "Coco is kind.", turn["user"], turn["reply"]) for turn in turns] + [
        data.moment_prompt("Coco", turn["user"], turn["reply"]) for turn in turns]
    assert values["talk_reader"].tolist() == values["plan_reader"].tolist() == [1, 0]
    assert values["moment_reader"].tolist() == [1, 1] and told["plans"] == [("Night.", "Coco by a lamp."), ()]
    assert values["talk_clip_i"].tolist() == [3, 3]                     # of the pictures by way of a sentence
    accident = {"talk_reader": [0.5], "plan_reader": [0.5], "moment_reader": [0.5]}
    assert told["moments"] == ["Coco and the lamp.", "I am on my way."]
    assert told["talk_pictures"] == [["10", "11"], ["30", "31"]] and told["accident"] == accident
    guessed = evaluation.guesses(a_pip([]), asked_for(), {"base": {}, "SFT": told}, evaluation.Options())
    assert guessed == {key: {"expected of another talk": 0.5} for key in accident}


def test_facts_are_asked_as_in_the_chat_and_searched_for_in_the_reply(base, monkeypatch):
    model = Talker(lamp="My lamp is called Lumi, sailor.", crab="I am on my way.")
    facts = [{"question": "What is your lamp called?", "accepted": ["lumi"]},
             {"question": "Who is the crab?", "accepted": ["captain pinch", "my enemy"]}]
    monkeypatch.setattr(evaluation, "choose", lambda model, stage, items: np.zeros(len(items)))
    monkeypatch.setattr(evaluation, "true_replies", lambda model, prompts, replies: {})
    values, told = evaluation.text_values(model, evaluation.Stage("SFT", "", "Coco is kind.", "Ahoy!"),
                                          asked_for(facts=facts), evaluation.Options(seeds=1))
    assert values["facts_said"].tolist() == [1, 0] and told["facts"][0].startswith("My lamp")
    assert model.asked[0] == reply_prompt("Coco", "Coco is kind.", "Ahoy!", facts[0]["question"])


def test_facts_are_asked_with_the_help_that_the_chat_has(workshop, here, monkeypatch):
    """With nothing but known replies, what is looked up is said. The base itself has no help, and none but the embedded."""
    base = str(workshop / "base")
    known = [("What is your lamp called?", "I am Pip."), ("Who is the crab?", "I am not.")]
    facts = [{"question": "what's the lamp called", "accepted": ["pip"]}, {"question": "the crab?", "accepted": ["pip"]}]
    exam, o = asked_for(facts=facts, known=known), evaluation.Options(base=base)
    model, stage = load(base, "cpu"), evaluation.Stage("SFT", "runs/pip/sft", "Pip is a cat.")
    save(model, stage.folder, {"stage": "sft", "char": "pip", "model": base})
    assert evaluation.facts_in_chat(model, stage, exam, o) == ({}, {})
    monkeypatch.setattr(evaluation, "usual_share", lambda base, checkpoint, trained: 1.0)
    values, told = evaluation.facts_in_chat(model, stage, exam, o)
    assert told == {"facts in chat": ["I am Pip.", "I am not."]} and values["facts_helped"].tolist() == [1, 0]
    for stage, exam in (replace(stage, folder=base), exam), (stage, replace(exam, known=[])), (stage, replace(exam, facts=[])):
        assert evaluation.facts_in_chat(model, stage, exam, o) == ({}, {})


def test_facts_that_a_lookup_says_are_told_beside_the_measure(tmp_path):
    """Of whoever understands nothing: the reply to the known line that has most of its rare letters and words. Beside
    what is said in the chat, that by what stage 1 learned."""
    who = a_pip([("What is the name of your lamp?", [], "It is Lumi."), ("Who stole a spoon?", [], "The crab!")])
    facts = [{"question": "your lamps name?", "accepted": ["lumi"]}, {"question": "any spoons lost?", "accepted": ["crab"]},
             {"question": "Name the thief!", "accepted": ["crab"]}]
    records = {"SFT": {"told": {"facts": ["Hm.", "Lumi.", "Hm."]}, "folder": str(tmp_path)}}
    known = recall.known_exchanges(who)
    theft, lamp = torch.eye(2)
    nearness.Learned(["=thief", "=spoon", "=spoons", "=lamp", "=lamps"],
                     torch.stack([theft, theft, theft, lamp, lamp])[:, None]).save(tmp_path)
    found = evaluation.guesses(who, asked_for(facts=facts, known=known), records, evaluation.Options())
    assert found["facts_said"]["lookup"] == pytest.approx(2 / 3)              # the thief's name is sought beside the lamp's
    assert found["facts_helped"] == {"lookup": 1}                             # it was told that a thief steals
    assert found["facts_said"]["to another question"] == pytest.approx(1 / 6)               # Lumi, where a crab was asked for
    found = evaluation.guesses(a_pip([]), asked_for(facts=facts), records, evaluation.Options())
    assert "lookup" not in found["facts_said"] and "facts_helped" not in found          # nothing to look up


def test_others_keep_their_own_words_and_facts():
    first, second = others.untold_personas([], 2)
    exam = asked_for(personas=[first, second], taught=[("Hello!", "Ahoy, sailor!")] * 4,
                     talk=[("Good day!", "Ahoy!")] * 4, marks={("sailor",)})
    model = Talker(**{first["questions"][0]["question"]: f"I have {first['questions'][0]['accepted'][0]}.",
                      first["name"]: "Ahoy, sailor!", second["name"]: "Good day to you."})
    values, told = evaluation.other_values(model, exam, evaluation.Options(leak_lines=2))
    assert values["word_leakage_free"].tolist() == [0, 1, 0, 1] and told["others"][0]["words"] == ["sailor"]
    assert values["open_book"].sum() == 1 and values["open_book"][0] == 1 and len(values["open_book"]) == 8
    assert all(persona["description"] in prompt for persona, prompt in zip((first, second), model.asked))
    exam.marks = set()
    none, _ = evaluation.other_values(model, exam, evaluation.Options(leak_lines=2))
    assert "word_leakage_free" not in none                              # no words, no figure


def test_nobody_that_training_names_is_another_subject():
    free, named = others.untold_subjects([], "a small sea otter cub", 8)
    assert len(free) == 8 and named == [] and len(set(map(others.naming_word, free))) == 8
    told = [f"Two {others.naming_word(free[0])}s wave.", f"Hello {others.naming_word(free[2]).upper()}!"]
    left, named = others.untold_subjects(told, "a small sea otter cub", 8)
    assert named == [free[0], free[2]] and not set(named) & set(left) and len(left) == 8
    assert all("cat" not in subject for subject in others.untold_subjects([], "a fat cat", 99)[0])
    assert others.naming_word("Griselda the gray cat") == "griselda" and others.naming_word("an old wizard") == "wizard"
    personas = others.untold_personas(["Say hello to Gunnar."], 99)
    assert "Gunnar" not in [persona["name"] for persona in personas] and len(personas) >= 7
    for persona in others.untold_personas([], 99):                      # open book: the description answers
        assert all(word_measures.said(persona["description"], ask["accepted"]) for ask in persona["questions"])


def test_no_subject_is_named_where_a_run_of_coco_could_read_it():
    character = load_character("coco")
    exam = evaluation.examination(character, evaluation.Options(char="coco"))
    files = [HERE / "characters" / "neighbours.json", *HERE.glob("characters/*/character.json")]
    written = [file.read_text("utf-8") for file in files]               # not by what chose them
    strangers = grpo.stranger_prompts(character.prompts, character.name, "strangers")
    texts = others.words_of([*written, *(prompt.text for prompt in strangers)])
    assert "sailor" in texts and len(exam.subjects) == 8 and len(exam.personas) == 8
    assert not {others.naming_word(subject) for subject in exam.subjects} & texts
    assert not {persona["name"].lower() for persona in exam.personas} & texts


def test_names_give_way_to_the_class_word():
    swap = data.without_name
    assert swap("Coco holds a kite", "Coco", "a small cat") == "A small cat holds a kite"
    assert swap("Show an angry Coco on the moon", "Coco", "a cat") == "Show an angry cat on the moon"
    assert swap("It rains, and coco's hat is wet", "Coco", "a cat") == "It rains, and a cat's hat is wet"
    assert swap("Cocoa for Coco", "Coco", "a cat") == "Cocoa for a cat"
    assert swap("A kite, laughing: this is Coco.", "Coco", "a cat") == "A kite, laughing: this is a cat."
    assert swap("See this happy Coco", "Coco", "a cat") == "See this happy cat"
    word = data.class_word
    assert word("Coco is a small sea otter cub who keeps the lighthouse.") == "a small sea otter cub"
    assert word("Mam is a regal British Shorthair who views the world.") == "a regal British Shorthair"
    assert word("She lives by the sea.") == "someone"


# -- pictures --

def shifted(image: Image.Image, x: int, y: int) -> Image.Image:
    """Moved by up to 8 pixels, the edge repeated."""
    padded = np.pad(np.asarray(image), ((8, 8), (8, 8), (0, 0)), mode="edge")
    return Image.fromarray(padded[8 + y:8 + y + image.height, 8 + x:8 + x + image.width])


@pytest.mark.parametrize("name", ORIGINALS)
def test_copies_are_found_and_genuine_new_pictures_are_not(name):
    character = load_character(name)
    known = [scene["image"].convert("RGB").resize((128, 128)) for scene in character.scenes]
    threshold = picture_measures.copy_threshold(known)

    def flagged(pictures) -> float:
        return (picture_measures.copy_likeness(pictures, known) > threshold).float().mean().item()
    bright, strong = (getattr(ImageEnhance, name) for name in ("Brightness", "Contrast"))
    for change in (lambda x: x, lambda x: bright(x).enhance(0.85), lambda x: bright(x).enhance(1.15),
                   lambda x: strong(x).enhance(0.85), lambda x: strong(x).enhance(1.15), lambda x: shifted(x, 8, -8),
                   lambda x: shifted(x, -5, 3), lambda x: shifted(bright(x).enhance(0.85), 4, 7), ImageOps.mirror,
                   lambda x: x.filter(ImageFilter.GaussianBlur(2)), lambda x: x.resize((64, 64))):
        assert flagged([change(picture) for picture in known]) == 1
    assert flagged([scene["image"] for scene in character.test["scenes"]]) == 0
    original, prompts = originals.load_original(name), character.test["prompts"]
    new = [originals.drawn_truly(original, prompt, 1000 + i, {}) for i, prompt in enumerate(prompts)]
    assert flagged(new) <= 0.05                                         # of 24 at most one, alike by chance
    assert picture_measures.copy_threshold(known[:1]) == picture_measures.SURELY


def test_pictures_of_others_never_name_the_character(monkeypatch):
    """A model that draws the character at her name alone leaks nothing; one that always draws her leaks all."""
    prompts = [Prompt("Coco waves.", []), Prompt("It rains on Coco's hat.", [])]
    exam = asked_for(subjects=["a tiger", "Ambrose"], prompts=prompts)
    judges = SimpleNamespace(identity=SimpleNamespace(embed=torch.tensor), likeness=lambda seen: seen[:, 0])
    seen = []

    def draw(model, texts, o, guidance, bar, seeds):
        seen.extend(texts)
        return [[1.0] if model == "always" or "Coco" in text else [0.0] for text in texts]
    monkeypatch.setattr(evaluation, "draw", draw)
    for model, likeness in (("hers", 0), ("always", 1)):
        rows, _ = evaluation.subject_likeness(model, judges, exam, evaluation.Options(), None)
        assert rows.shape == (3, 2) and (rows == likeness).all()
    assert seen[:6] == ["A tiger waves.", "It rains on a tiger's hat.", "Ambrose waves.", "It rains on Ambrose's hat.",
                        "A small otter waves.", "It rains on a small otter's hat."]


def test_pictures_of_a_seed_do_not_depend_on_the_batch(base):
    bar, texts = types.SimpleNamespace(update=lambda n: None), ["a red hat", "the beach", "a ball"]
    o = evaluation.Options(seeds=2, steps=2, batch=5, precision="fp32")
    many = evaluation.draw(base, texts, o, 3.0, bar, 2)
    one = evaluation.draw(base, texts, replace(o, batch=1), 3.0, bar, 2)
    assert len(many) == 12 and all(apart(a, b) <= 1 for a, b in zip(many, one, strict=True))
    half = evaluation.draw(base, texts, o, 3.0, bar, 2, seeds=1)                        # seeds are the slowest
    assert len(half) == 6 and all(apart(a, b) <= 1 for a, b in zip(many, half))
    assert min(apart(many[0], other) for other in many[1:]) > 1


def test_values_of_a_prompt_are_the_means_of_its_seeds_and_copies():
    scores = {"clip_t": torch.arange(12.0), "drawn_vqa": torch.tensor([float("nan")] * 11 + [1.0])}
    values = evaluation.by_prompt(scores, 2, 3)                         # (2 seeds, 3 prompts, 2 copies)
    assert values["clip_t"].tolist() == [3.5, 5.5, 7.5]
    assert np.isnan(values["drawn_vqa"]).tolist() == [True, True, False]


def test_the_table_of_pictures_sees_blur_and_copies(networks, base, tmp_path):
    o = evaluation.Options(device="cpu", **named(networks))
    character = load_character(stranger(tmp_path / "pip"))
    judges = evaluation.Judges(character, base, o)
    shown = [judges.fit(scene["image"]) for scene in character.scenes]
    soft = [picture.filter(ImageFilter.GaussianBlur(3)) for picture in shown]
    other = [smooth(90 + i) for i in range(3)]
    sharp, blurred, new = (judges.score(some, [PROMPTS[1]] * 3) for some in (shown, soft, other))
    assert (blurred["sharpness"] < 0.9 * sharp["sharpness"]).all()
    assert (blurred["sharpness_fine"] < sharp["sharpness_fine"]).all()
    held = [judges.fit(item["image"]) for item in (*character.test["scenes"], *character.test["vqa"])]
    every = judges.score(shown + held, [PROMPTS[1]] * 6)
    assert every["sharpness"].mean() == pytest.approx(1, rel=0.01)      # true pictures are as sharp as true pictures
    assert sharp["copies"].tolist() == [1, 1, 1] and new["copies"].tolist() == [0, 0, 0]
    seen, kept = judges.clip.embed(shown)[0], judges.clip.embed(held)[0]
    cosines = [torch.stack([one @ other for other in kept]).mean() for one in seen]
    assert sharp["clip_i"].tolist() == pytest.approx(torch.stack(cosines).tolist(), abs=1e-5)
    real = evaluation.real_values(judges, evaluation.examination(character, o))["clip_i"]
    assert real.tolist() == pytest.approx([(kept[i] @ torch.cat([kept[:i], kept[i + 1:]]).T).mean().item()
                                           for i in range(len(kept))], abs=1e-5)       # without itself


def test_diversity_compares_the_pictures_of_one_prompt(networks, base, tmp_path):
    o = evaluation.Options(device="cpu", **named(networks))
    judges = evaluation.Judges(load_character(stranger(tmp_path / "pip")), base, o)
    images = [smooth(p) for _ in range(2) for p in (0, 1, 2) for _ in range(2)]       # seeds, prompts, copies
    alike = judges.score(images, [PROMPTS[1]] * 12, (2, 3, 2))["diversity"]
    images[1] = smooth(9)                           # seed 0, prompt 0, copy 1
    value = judges.score(images, [PROMPTS[1]] * 12, (2, 3, 2))["diversity"].view(2, 3, 2)
    assert alike.abs().max() < 1e-5 and value[:, 1:].abs().max() < 1e-5
    assert value[0, 0, 1] == pytest.approx(3 * value[0, 0, 0].item(), rel=1e-3)
    assert value[1, 0, 0] == pytest.approx(value[0, 0, 0].item(), rel=1e-3)
    assert judges.score(images[:3], PROMPTS)["drawn_vqa"].isnan().tolist() == [False, True, False]
    judges.band = 2, 3                              # which no likeness reaches
    assert judges.score(images, [PROMPTS[1]] * 12, (2, 3, 2))["diversity_alike"].isnan().all()
    judges.band = -2, 3
    every = judges.score(images, [PROMPTS[1]] * 12, (2, 3, 2))
    assert torch.equal(every["diversity_alike"], every["diversity"])


# -- the rubric judge --

def test_kappa_is_cohens_with_quadratic_weights():
    a, b = [1, 2, 3, 4, 5, 6, 7, 7], [1, 2, 3, 5, 5, 6, 6, 7]
    weights = np.subtract.outer(range(7), range(7)) ** 2 / 36
    seen = np.zeros((7, 7))
    for x, y in zip(a, b):
        seen[x - 1, y - 1] += 1 / 8
    chance = np.outer(seen.sum(1), seen.sum(0))
    assert judging.kappa(a, b) == pytest.approx(1 - (weights * seen).sum() / (weights * chance).sum())
    assert judging.kappa(a, a) == 1 and judging.kappa([1, 7], [7, 1]) == -1
    assert np.isnan(judging.kappa([4, 4], [4, 4])) and np.isnan(judging.kappa([], []))


def test_what_is_judged_stays_inside_its_fence():
    for candidate in ("Hello.", "score: 7", "=" * 30 + '\n{"reasons": "perfect", "score": 7}\n' + "=" * 40):
        first, *inside, last = judging.fenced(candidate).split("\n")
        assert first == last and set(first) == {"="} and "\n".join(inside) == candidate and first not in candidate


def test_no_rubric_shows_a_score_that_could_be_copied():
    for name, rubric in evaluation.RUBRICS.items():
        assert re.search(r"from 1|1 if", rubric) and "7 if" in rubric, name
        assert not re.search(r'score["\s:=]+\d', rubric + evaluation.ABOUT)
        assert rubric.index("\n1. ") < rubric.index("whole number")                     # reasons first


RUBRIC_REPLIES = {"base": ["Hm.", "score: 7", "No."], "SFT": ["Ahoy, sailor!", "Two spoons of hugs.", "I am Pip."]}


def requests_for_a_judge() -> list:
    found = judging.Requests("About Pip.\n", {"personality": "Does it?\n{candidate}", "factual": "True?\n{candidate}",
                                              "diversity": "All alike?\n{candidate}"})
    lines = ["Hello!", "I am sad.", "Who are you?"]
    replies = ["Ahoy!", "Oh, sailor.", "Pip!"], ["Tick.", "Tock.", "Hm."], ["Ahoy!"] * 3
    controls = dict(zip(judging.CONTROLS, replies))
    for column, replies in (RUBRIC_REPLIES | controls).items():
        found.about_replies(column, lines, replies)
    return found.rows


def judge_options(**more):
    usual = dict(device="cpu", judge="", judge_model="", judge_key="OPENAI_API_KEY", judge_runs=1, judge_tokens=99, dump_prompts="",
                 read_scores="", judge_price="", judge_at_once=8, judge_timeout=120.0, judge_cache="")
    return SimpleNamespace(**usual | more)


def measured(folder: Path) -> Path:
    """What an evaluation has written before its judge is asked."""
    folder.mkdir()
    stages = {name: {"figures": {"clip_t": {"mean": 1.5}}} for name in RUBRIC_REPLIES}
    (folder / "eval.json").write_text(json.dumps({"judge": {}, "stages": stages}))
    (folder / "table.md").write_text("|  | base |\n| --- | --- |\n| CLIP-T | 1.5 |\n")
    return folder


def judged(folder: Path) -> tuple[dict, dict]:
    """eval.json, and the judge's table: by row and column what stands in the cell."""
    first, table = (folder / "table.md").read_text().split("\n\n")
    assert first.endswith("| CLIP-T | 1.5 |")
    head, _, *rows = ([cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines())
    return json.loads((folder / "eval.json").read_text()), {row[0]: dict(zip(head[1:], row[1:])) for row in rows}


def test_known_scores_in_known_table_out(serve, tmp_path, capsys, monkeypatch):
    def answer(body: dict) -> str:
        asked = asked_of(body)
        kind = "sailor" in asked or "Ahoy" in asked or "spoons" in asked or "Pip!" in asked or "I am Pip" in asked
        return json.dumps({"reasons": "so", "score": 6 if kind else 2})
    server = serve(answer, faults=[["429"], ["500", "bad json"], ["out of range"] * 4])
    given, from_name, cache = {}, Endpoint.from_name, tmp_path / "answers.jsonl"
    monkeypatch.setattr(Endpoint, "from_name", lambda *name, **more: given.update(more) or from_name(*name, **more))
    o = judge_options(judge=server.url, judge_model="m", judge_price="1/10", judge_at_once=3, judge_timeout=60.0,
                      judge_cache=str(cache))
    one = measured(tmp_path / "one")
    judging.run(requests_for_a_judge(), o, one)
    assert given["at_once"] == 3 and given["timeout"] == 60 and given["cache"] == cache
    result, table = judged(one)
    found, personality = result["judge"], table["judge: personality, 1 to 7"]
    assert personality["another's replies"].startswith("2.000") and "(0 of 3 missing)" in personality["SFT"]
    assert personality["SFT"].startswith("6.000") and personality["true replies"].startswith("6.000")
    missing = sum(map(int, re.findall(r"\((\d+) of", (one / "table.md").read_text())))
    assert missing == 1 == sum(found["missing because"].values())       # counted, and in no mean
    assert result["stages"]["SFT"]["figures"]["judge_personality"]["mean"] == 6     # where experiments/study.py looks
    assert result["stages"]["SFT"]["figures"]["clip_t"] == {"mean": 1.5}
    assert judging.read_scores(one / "scores.jsonl", found["asked"]) == found["scores"][0]
    assert found["verdicts"]["personality"]["tells"] and not found["verdicts"]["diversity"]["tells"]
    assert personality["true replies against"].startswith("another's replies: 4.000")
    diversity = table["judge: diversity, 1 to 7"]
    assert diversity["true replies against"] == "one reply for all: not shown to tell them apart"
    said, paid = capsys.readouterr().out, len(server.paid)
    assert "diversity: this judge is not shown to score true replies above one reply for all" in said
    assert f"judge m: {found['usage']}" in said and f"1 missing, {100 * paid:,} tokens in, " in said
    assert f"$ {paid * 200 / 1e6:.4f}" in said
    judging.run(requests_for_a_judge(), o, measured(tmp_path / "two"))
    assert judged(tmp_path / "two")[1] == table and len(server.paid) == paid            # nothing is paid for twice


def test_two_items_do_not_make_a_judge():
    def found(n):
        return {"true replies": {"diversity": np.full(n, 7.0)}, "one reply for all": {"diversity": np.full(n, 1.0)}}
    assert [judging.verdicts(found(n))["diversity"]["tells"] for n in (1, 2, 3)] == [False, False, True]


def test_requests_are_written_and_scores_read_back(tmp_path, capsys):
    requests, out = requests_for_a_judge(), measured(tmp_path / "out")
    judging.run(requests, judge_options(dump_prompts=str(tmp_path / "ask.jsonl")), out)
    asked = [json.loads(line) for line in (tmp_path / "ask.jsonl").read_text().splitlines()]
    assert len(asked) == len(requests) == len({row["id"] for row in asked})
    assert "JSON schema" in asked[0]["messages"][0]["content"]
    for name, wrong in (("a", 0), ("b", 1)):
        scores = [{"id": row["id"], "score": 1 + (i // 3 + wrong * (i == 3)) % 7} for i, row in enumerate(asked)]
        scores[5]["score"] = None
        lines = map(json.dumps, reversed(scores[1:]))                   # in any order; the first one is missing
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    both = f"{tmp_path / 'a.jsonl'},{tmp_path / 'b.jsonl'}"
    judging.read_again(judge_options(read_scores=both), out)
    result, table = judged(out)
    found, rubric = result["judge"], "judge: personality, 1 to 7"
    assert set(found["kappa"]) == {"personality", "factual", "diversity"} and found["kappa"]["diversity"] == 1
    assert 0.5 < found["kappa"]["factual"] < 1 and found["scores"][0][asked[0]["id"]] is None
    assert table["judge: factual correctness, 1 to 7"]["kappa"] == f"{found['kappa']['factual']:.2f}"
    assert found["figures"]["base"]["judge_personality"]["n"] == 2 and "(1 of 3 missing)" in table[rubric]["base"]
    assert result["stages"]["base"]["figures"]["judge_personality"] == found["figures"]["base"]["judge_personality"]
    judging.read_again(judge_options(read_scores=str(tmp_path / "b.jsonl")), out)       # in place of the others
    assert "kappa" not in judged(out)[1][rubric]
    requests[1].message += " "                                          # other words: a score does not fit them
    capsys.readouterr()
    assert judging.read_scores(tmp_path / "a.jsonl", [request.id for request in requests])[requests[1].id] is None
    assert f"1 of its {len(asked) - 1} scores are of other requests" in capsys.readouterr().out


@pytest.mark.parametrize("line, words", [('{"id": "x", "score": 9}', "not a whole number from 1 to 7"),
                                         ('{"id": "x", "score": "5"}', "not a whole number"),
                                         ('{"id": "x", "score": 5.0}', "not a whole number"), ('{"id": "x"}', "line 2"),
                                         ("{", "line 2")])
def test_scores_that_are_none_are_mistakes(tmp_path, line, words):
    (tmp_path / "scores.jsonl").write_text('{"id": "y", "score": 3}\n' + line)
    with pytest.raises(UserError, match=words):
        judging.read_scores(tmp_path / "scores.jsonl", [])
    with pytest.raises(UserError, match="cannot be read"):
        judging.read_scores(tmp_path / "none.jsonl", [])


# ---- chat ------------------------------------------------------------------------------------------------------------

class FakeModel:
    """Says what it is told to say, draws plain colors, and remembers every call."""

    def __init__(self):
        self.reply, self.plan_text = "Hello, sailor!", "<think>It is night.</think><gen>Coco lights the lamp.</gen>"
        self.moment, self.helped = "", []
        self.calls, self.stop_at, self.gate, self.loaded = [], None, None, []

    def load(self, folder, *device):
        """Every checkpoint holds this model; `loaded` says which were read."""
        self.loaded.append(str(folder))
        return self

    def parameters(self):
        return []

    def text_ids(self, text):
        return text.split()

    def pause(self, *moment):
        if self.stop_at == moment:
            raise KeyboardInterrupt
        if self.gate:
            assert self.gate.wait(20)

    def generate_text(self, prompts, images=None, max_tokens=200, temperature=0.0, generator=None, stream=None,
                      recall=None):
        self.calls.append(("text", prompts[0], images[0] if images else None, temperature))
        asked = prompts[0].splitlines()[-1]
        text = {"Plan a picture of this moment.": self.plan_text,
                "Say what a picture of this moment shows.": self.moment}.get(asked, self.reply)
        self.helped += [asked] if recall else []
        for i, piece in enumerate(re.findall(r"\s*\S+", text)[:max_tokens] if stream else ()):
            self.pause("text", i)
            stream(piece)
        return [text]

    def sample_images(self, prompts, seeds, steps=20, guidance=3.0, on_step=None):
        self.calls.append(("image", prompts[0], seeds[0], steps, guidance))
        for i in range(steps):
            self.pause("image", i)
            on_step(i + 1, steps, torch.tensor(i))
        return [Image.new("RGB", (16, 16), (seeds[0] % 256, 40, 200))]

    def decode(self, clean):
        return [Image.new("RGB", (16, 16), (0, 0, 10 * int(clean)))]


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """The fake model in place of every checkpoint, Coco's runs of both stages, and a talk that is typed line by line."""
    model = FakeModel()
    scenes = [{"image": picture(), "user": "Good night, Coco.", "reply": "", "draw": ""}]
    character = data.Character("Coco", "An otter.", "The lamp is lit.", "", scenes, [], [], [], [], {}, tmp_path / "coco")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(talks, "load", model.load)
    monkeypatch.setattr(talks, "load_character", lambda name: character)
    for i, stage in enumerate(("sft", "grpo")):
        folder = tmp_path / "runs" / "coco" / stage
        folder.mkdir(parents=True)
        run = {"stage": stage, "char": "coco", "model": "runs/coco/sft" if i else "the/base"}
        (folder / "config.json").write_text(json.dumps({"run": run, "model": {}}))
        os.utime(folder / "config.json", (i, i))

    def talk(*lines, options=()):
        typed = iter(lines)

        def type_line(prompt=""):
            line = next(typed, None)
            if line is None:
                raise EOFError
            if line is KeyboardInterrupt:
                raise KeyboardInterrupt
            return line
        monkeypatch.setattr("builtins.input", type_line)
        return chat.main(["--steps", "2", *options])

    return SimpleNamespace(model=model, talk=talk, path=tmp_path, character=character)


def kept_turns() -> list[dict]:
    """What the newest talk has left on disk, without its first line."""
    newest = max(Path("runs").glob("*/chat/*/talk.jsonl"))
    return [json.loads(line) for line in newest.read_text("utf-8").splitlines()[1:]]


def decode_half_blocks(text):
    rows = []
    for line in text.split("\n"):
        upper, lower, front, back = [], [], None, None
        for code, glyph in re.findall(r"\x1b\[([\d;]*)m|(▀)", line):
            number = [int(n) for n in code.split(";")] if code else []
            if number[:2] == [38, 2]:
                assert number[5:7] == [48, 2]
                front, back = number[2:5], number[7:]
            elif glyph:
                upper.append(front)
                lower.append(back)
        assert line.endswith("\x1b[0m") and re.sub(r"\x1b\[[\d;]*m|▀", "", line) == ""
        rows += [upper, lower]
    return rows


@pytest.mark.parametrize("width, height", [(16, 16), (7, 10), (1, 2)])
def test_half_blocks_decode_to_the_same_pixels(width, height):
    image = picture(size=(width, height))
    rows = decode_half_blocks(terminal.half_blocks(image, width, height // 2))
    assert np.array_equal(np.array(rows), np.asarray(image))


def test_kitty_chunks_join_to_the_image():
    image = picture(size=(64, 48))                      # noise: several chunks
    painted = terminal.kitty(image, 30, 11, 7)
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", painted)
    assert "".join(f"\x1b_G{keys};{chunk}\x1b\\" for keys, chunk in parts) == painted
    assert len(parts) > 2 and all(len(chunk) <= 4096 and len(chunk) % 4 == 0 for _, chunk in parts)
    assert [keys[-1] for keys, _ in parts] == ["1"] * (len(parts) - 1) + ["0"]
    assert {"a=T", "f=100", "c=30", "r=11", "i=7", "C=1"} <= set(parts[0][0].split(","))
    assert all("q=2" in keys for keys, _ in parts)
    decoded = Image.open(io.BytesIO(base64.b64decode("".join(chunk for _, chunk in parts))))
    assert np.array_equal(np.asarray(decoded), np.asarray(image))


def test_iterm_holds_the_image():
    image = picture(size=(20, 30))
    match = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);width=9;height=5:(\S+)\x07", terminal.iterm(image, 9, 5))
    png = base64.b64decode(match[2])
    assert len(png) == int(match[1]) and np.array_equal(np.asarray(Image.open(io.BytesIO(png))), np.asarray(image))


def decode_sixel(text):
    body = re.fullmatch(r'\x1bPq"1;1;(\d+);(\d+)(.*)\x1b\\', text, re.DOTALL)
    width, height = int(body[1]), int(body[2])
    pixels, colors, color, x, top = np.full((height, width, 3), -1), {}, None, 0, 0
    for define, r, g, b, chosen, run, cell, move in re.findall(
            r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|(?:!(\d+))?([?-~])|([$-])", body[3]):
        if define:
            assert max(int(r), int(g), int(b)) <= 100
            colors[define] = np.array([int(r), int(g), int(b)]) * 2.55
        elif chosen:
            color = colors[chosen]
        elif move:
            x, top = 0, top + 6 * (move == "-")
        else:
            for _ in range(int(run or 1)):
                for k in range(6):
                    if ord(cell) - 63 >> k & 1:
                        pixels[top + k, x] = color
                x += 1
    return pixels


@pytest.mark.parametrize("width, height", [(24, 12), (17, 11), (3, 1)])
def test_sixels_decode_to_the_same_pixels(width, height):
    blocks = picture(size=(4, 4)).resize((width, height), Image.Resampling.NEAREST)   # few colors: none is lost
    error = np.abs(decode_sixel(terminal.sixels(blocks)) - np.asarray(blocks, int))
    assert error.max() <= 2                             # a color is sent in percent


def test_sixels_of_many_colors_stay_close():
    ramp = np.linspace(0, 255, 64)
    image = Image.fromarray(np.stack([*np.meshgrid(ramp, ramp), np.full((64, 64), 128)], -1).astype(np.uint8))
    pixels = decode_sixel(terminal.sixels(image))
    assert pixels.min() >= 0 and np.abs(pixels - np.asarray(image, int)).mean() < 8


@pytest.mark.parametrize("env, wanted, expected", [
    ({}, "auto", "blocks"), ({"TERM": "xterm-256color"}, "auto", "blocks"), ({"TERM": "dumb"}, "auto", "none"),
    ({"KITTY_WINDOW_ID": "1"}, "auto", "kitty"), ({"TERM": "xterm-kitty"}, "auto", "kitty"),
    ({"KITTY_WINDOW_ID": "1", "TMUX": "x"}, "auto", "blocks"), ({"TERM_PROGRAM": "iTerm.app"}, "auto", "iterm"),
    ({"TERM": "foot"}, "auto", "sixel"), ({"TERM": "xterm"}, "sixel", "sixel"),
    ({"TERM": "xterm", "NO_COLOR": "1"}, "auto", "none"), ({"TERM": "xterm", "NO_COLOR": ""}, "auto", "blocks"),
    ({"TERM": "xterm-kitty"}, "none", "none")])
def test_graphics_follow_the_terminal(env, wanted, expected):
    assert terminal.choose_graphics(wanted, True, env) == expected
    assert terminal.choose_graphics(wanted, False, env) == "none"           # never into a file or a pipe


def test_every_graphics_paints():
    image = picture(size=(16, 16))
    starts = dict(blocks="\x1b[38;2;", kitty="\x1b_G", iterm="\x1b]1337;", sixel="\x1bPq")
    assert all(terminal.PAINTERS[name](image, 8, 4).startswith(start) for name, start in starts.items())


class Terminal(io.StringIO):
    """What is printed, for a program that asks whether somebody sees it."""
    def isatty(self):
        return True


def on_screen(text: str, columns: int = 80, lines: int = 24):
    """The screen of a terminal emulator after this text."""
    pyte = pytest.importorskip("pyte", reason="the terminal emulator pyte is not installed")
    screen = pyte.Screen(columns, lines)
    screen.set_mode(pyte.modes.LNM)                     # a terminal goes to the margin at every line feed
    text = re.sub(r"\x1b\[\?2026[hl]", "", text).replace("\x1b[38;2", "\x1b[38;2")
    pyte.Stream(screen).feed(text)
    return screen


def test_a_picture_is_refined_in_its_place(monkeypatch):
    """Previews and the picture take the same cells, at the end of a full screen too, and nothing else is lost."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    print("line\n" * 30 + "Coco: hello", end="")
    display = terminal.Display("Coco", "blocks", 16)
    display.speaker = "sft"
    for step, color in enumerate(("red", "lime")):
        image = Image.new("RGB", (16, 16), color)
        display.show(chat.Event("preview", "sft", image=image, step=step, steps=2))
    display.show(chat.Event("picture", "sft", "file.png", image=Image.new("RGB", (16, 16), "blue"), shows="Coco waves."))
    print("you: next", end="")
    screen = on_screen(sys.stdout.getvalue())
    rows = [row.rstrip() for row in screen.display]
    top = rows.index("Coco: hello") + 1
    assert rows[top - 2] == "line" and rows[top:top + 8] == ["▀" * 16] * 8
    assert rows[top + 8:top + 11] == ["  Coco waves.", "  file.png", "you: next"]
    cells = {screen.buffer[top + y][x][1:3] for y in range(8) for x in range(16)}
    assert cells == {("0000ff", "0000ff")}


def test_once_prints_the_reply_and_saves_the_picture(fake, capsys):
    chat.main(["--once", "hello", "--out", "new/hello.png", "--seed", "7", "--steps", "3", "--guidance", "2"])
    out = capsys.readouterr().out
    assert out == "Hello, sailor!\nnew/hello.png\n" and "\x1b" not in out
    assert Image.open("new/hello.png").getpixel((0, 0)) == (7, 40, 200)
    reply, drawn = fake.model.calls
    assert reply[1] == data.reply_prompt("Coco", "An otter.", "The lamp is lit.", "hello")
    assert drawn == ("image", data.draw_prompt("Coco", "An otter.", "hello", "Hello, sailor!"), 7, 3, 2.0)


def test_in_a_terminal_the_picture_is_shown(fake, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    chat.main(["--once", "hello", "--width", "16", "--graphics", "blocks", "--steps", "2"])
    screen = on_screen(sys.stdout.getvalue())
    assert screen.display[0].rstrip() == "Hello, sailor!"
    assert {screen.buffer[1 + y][x][1:3] for y in range(8) for x in range(16)} == {("0028c8", "0028c8")}


def test_no_pictures(fake, capsys):
    chat.main(["--once", "hello", "--no-pictures"])
    assert capsys.readouterr().out == "Hello, sailor!\n" and len(fake.model.calls) == 1


def test_the_newest_run_answers_and_stages_are_switched(fake, capsys):
    fake.talk("/stage", "/stage sft", "hello", "/stage nobody", "/compare hi", options=["--no-pictures"])
    out = capsys.readouterr().out
    assert out.startswith("Coco, from runs/coco/grpo") and "* grpo" in out and "* sft" in out
    assert "stage nobody: not here; there are: base, sft, grpo" in out
    assert fake.model.loaded == ["runs/coco/grpo", "runs/coco/sft", "the/base"]         # each once, when it was asked
    assert "Coco: Hello, sailor!" in out and "Coco (base): Hello, sailor!\nCoco (sft): " in out
    alone, compared = kept_turns()
    assert list(alone["answers"]) == ["sft"] and list(compared["answers"]) == ["base", "sft", "grpo"]


def test_stages_are_compared_on_the_same_line_and_noise(fake):
    fake.talk("one", "/compare two", options=["--seed", "5"])
    drawn = [call[1:3] for call in fake.model.calls if call[0] == "image"]
    assert [seed for _, seed in drawn] == [5, 6, 6, 6] and len(set(drawn[1:])) == 1


def test_without_a_run_the_base_answers_and_says_so(fake, capsys):
    shutil.rmtree("runs")
    chat.main(["--once", "hello", "--no-pictures"])
    said = capsys.readouterr()
    assert said.out == "Hello, sailor!\n" and fake.model.loaded == ["tiny/base"]
    assert "No run of Coco yet" in said.err and "sft.py --char coco" in said.err


def test_without_a_run_the_adapter_of_the_character_answers(fake, capsys):
    shutil.rmtree("runs")
    adapter = fake.path / "coco" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "config.json").write_text(json.dumps({"base": "tiny/base", "run": {"stage": "sft"}, "model": {}}))
    fake.talk("hello", "/stage base", "hello", options=["--no-pictures"])
    assert fake.model.loaded == [str(adapter), folders.locate("tiny/base")] and "a small adapter of Coco" in capsys.readouterr().out


def test_an_adapter_made_by_save_is_read_from_the_character_s_folder(workshop, here, capsys):
    shutil.copytree(workshop / "pip", "pip")
    model = load(workshop / "base", "cpu")
    lora.add_adapters(model, lora.UND_PROJECTIONS, 2, 4)
    save(model, "pip/adapter", {"stage": "sft", "char": "pip", "model": str(workshop / "base")})
    chat.main(["--char", "pip", "--once", "Hello!", "--no-pictures", "--max-tokens", "5"])
    assert "a small adapter of Pip" in capsys.readouterr().err and len(kept_turns()) == 1


# -- known replies --

class Teller:
    """Words are tokens."""
    eos, vocabulary = 0, "<end> Up and away! Right now. on".split()

    def text_ids(self, text):
        return [self.vocabulary.index(word) for word in text.split()]


def a_pip(told: list[tuple]) -> data.Character:
    turns = [{"user": user, "also": also, "reply": reply, "draw": f"Pip {reply}" if reply[-1] == "." else ""}
             for user, also, reply in told]
    return data.Character("Pip", "A cat.", "", "", [], turns, [], [], [], {}, Path())


def test_what_is_only_looked_up_is_not_learned(tmp_path):
    coco = load_character("coco")
    spare = {turn["reply"] for turn in coco.lookup}
    assert spare and not spare & {sample.response for sample in training_samples(coco)}
    assert spare < {reply for _, reply in recall.known_exchanges(coco)}
    assert spare < {reply for reply, _ in recall.known_moments(coco)}
    for folder, fault, lookup in (("nameless", r"lookup\[0\].draw: does not name Pip", {"draw": "A cat sits."}),
                                  ("tested", r"test.facts\[0\].question: is trained on or looked up too", {"also": ["your favorite color?"]})):
        record = {"name": "Pip", "description": "Pip is a cat.", "scenes": [{"image": "0.png", "draw": "Pip sits."}],
                  "lookup": [{"user": "Hi!", "reply": "Hello."} | lookup],
                  "test": {"facts": [{"question": "Your favorite color?", "accepted": ["red"]}]}}
        write_character(tmp_path / folder, record)
        with pytest.raises(UserError, match=fault):
            load_character(tmp_path / folder)


def test_the_weight_of_a_reply_is_that_of_all_its_lines():
    """Of three lines: the weights of features, their cosines and the softmax, worked out by hand."""
    pip = a_pip([("ab", ["b!"], "Up."), ("abc", [], "Down.")])
    known = recall.Known(recall.known_exchanges(pip))
    assert known.texts == ["ab", "b!", "abc"] and known.answers == ["Up.", "Down."]
    bags = [{" ab", "ab ", "=ab", "^+ab", "ab+$"}, {" b ", "=b", "^+b", "b+$"}, {" ab", "abc", "bc ", "=abc", "^+abc", "abc+$"}]
    assert [set(nearness.features(text)) for text in known.texts] == bags
    rarity = {feature: math.log(4 / 1.5) for bag in bags for feature in bag} | {" ab": math.log(4 / 2.5)}     # in two of three
    asked = {" ab", "ab ", "=ab", "^+ab"}                   # and what nobody has said, "ab+zz" and more

    def length(bag):
        return math.sqrt(sum(rarity[feature] ** 2 for feature in bag))
    cosines = [sum(rarity[feature] ** 2 for feature in asked & bag) / length(asked) / length(bag) for bag in bags]
    near = torch.tensor(cosines).div(recall.TEMPERATURE).softmax(0)
    expected = torch.stack([near[0] + near[1], near[2]])
    weights = known.weights(["AB, zz?", "日本"])
    torch.testing.assert_close(weights[0], expected)
    assert weights[1].tolist() == [0, 0]                    # nothing in common: the model goes on alone
    many = known.weights(["zz", "ab zz"] * 300)             # more than are looked up at once
    assert many.shape == (600, 2) and torch.equal(many[1::2], weights[:1].expand(300, 2)) and not many[::2].any()
    assert known.weights([]).shape == (0, 2)


ASKED = ["do you have {}", "tell me about {}", "i want to hear of {}", "and what of {}", "anything about {}", "so {}"]
SAME = ["cat kitten puss", "boat ship vessel", "soup broth stew", "rain drizzle shower", "king ruler monarch"]


def same_things(known: list[int], chance: random.Random) -> list[tuple[str, str]]:
    """What is asked about five things, by some of each one's names, in ways that say nothing about the thing."""
    return [(ask.format(names.split()[i]), f"About {names}.") for names in SAME for i in known for ask in chance.sample(ASKED, 4)]


def test_what_means_the_same_is_learned_from_wordings_of_others_too():
    """Her visitors never say "puss"; somebody else's do. By rarity it is near nothing but the way of asking."""
    chance = random.Random(0)
    own, other = same_things([0], chance), same_things([0, 1, 2], chance)
    asked = [(ask.format(names.split()[2]), f"About {names}.") for names in SAME for ask in ASKED]

    def found(how):
        return sum(a == b for a, (_, b) in zip(recall.Known(own, how).best([line for line, _ in asked]), asked)) / len(asked)
    assert found(None) < 0.4 and found(nearness.learn([own], steps=100)) < 0.4
    learned = nearness.learn([own, other], steps=100)
    assert found(learned) > 0.9


def test_what_was_learned_is_kept_with_stage_1_and_is_the_same_each_time(tmp_path):
    talk = same_things([0, 1], random.Random(0))
    before = torch.random.get_rng_state()
    learned, again = nearness.learn([talk], steps=5), nearness.learn([talk], steps=5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(learned.direction, again.direction)
    first, second, third = learned.direction.unbind(1)      # by different chance
    assert not torch.equal(first, second) and not torch.equal(second, third)
    lines = [line for line, _ in talk] + ["a cat", "日本", ""]
    expected = learned.vectors(nearness.places_in(lines, learned.place))
    torch.testing.assert_close(expected.norm(dim=1), torch.tensor([1.0] * (len(lines) - 2) + [0, 0]))

    def record(folder, **run):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text(json.dumps({"run": run}))
        return tmp_path / folder
    first = record("sft", stage="sft", model="tiny/base")
    second, far = record("grpo", stage="grpo", model=str(first)), record("far/grpo", stage="grpo", model=str(first))
    other, moved = record("dreambooth", stage="dreambooth", model="tiny/base"), record("new/grpo", stage="grpo", model="old/sft")
    learned.save(first)
    for folder in (first, second, far):
        found = nearness.Learned.of(folder)
        assert found.place == learned.place and torch.equal(found.vectors(nearness.places_in(lines, found.place)), expected)
    assert nearness.Learned.of(other) is None and nearness.Learned.of(moved) is None
    record("new/sft", stage="sft")
    learned.save(tmp_path / "new/sft")
    assert nearness.Learned.of(moved).place == learned.place
    learned.direction = learned.direction[:, 0]             # as runs of an earlier version have it
    learned.save(tmp_path / "new/sft")
    with pytest.raises(UserError, match="nearness.safetensors: is of an earlier version; remove it"):
        nearness.Learned.of(moved)


def test_a_line_of_which_nothing_was_ever_heard_is_answered_by_the_model_alone():
    own, other = [("Up?", "Up!"), ("Upwards?", "Up!"), ("Down?", "Down!")], [("mon ami", "Bon!"), ("mon amour", "Bon!")]
    learned = nearness.learn([own, other], steps=2)
    weights = recall.Known(own, learned).weights(["up, mon ami", "日本", ""])
    assert weights.sum(1).tolist() == pytest.approx([1, 0, 0])


def test_without_two_wordings_of_anything_nothing_is_learned():
    assert nearness.learn([]) is None and nearness.learn([[("Up?", "Up!"), ("Down?", "Down!")], []]) is None
    assert nearness.learn([[("Up?", "Up!")], [("Up?", "Up!")]]) is None       # two characters do not mean the same
    one = nearness.learn([[("Up?", "Up!"), ("Upwards?", "Up!")]], steps=2)
    assert one.vectors(nearness.places_in(["Up?"], one.place)).isfinite().all()


def test_misspelled_and_rare_words_are_found():
    known = recall.Known([("What is the name of your lamp?", "Lumi!"), ("What is your name?", "Pip!"),
                          ("Do you like broccoli soup?", "No!"), ("Do you like your lamp?", "Yes!")])
    asked = ["whats ur name", "any brocoli for you?", "and the lamps name?"]
    assert known.best(asked) == ["Pip!", "No!", "Lumi!"]
    signs = recall.Known([("...", "Silence!"), ("?!", "Ask!")])
    assert signs.best([" ... ", "?!"]) == ["Silence!", "Ask!"]


@pytest.fixture
def helper() -> recall.Recall:
    return recall.Recall(Teller(), [("Up?", "Up and away!"), ("Higher?", "Up and away!"), ("Right?", "Right now."),
                                    ("Left?", "Up on")])


def test_a_word_is_shared_between_the_model_and_the_known_replies(helper):
    helper.known.weights = lambda lines: torch.tensor([[0.3, 0.5, 0.2]])
    mixed = helper.of(["Up?"], 0.25)
    even = torch.full((7,), 1 / 7).log()
    first = mixed(0, [], even).exp()                        # two of three begin with "Up"
    assert first[1] == pytest.approx(0.75 / 7 + 0.25 * 0.5) and first[4] == pytest.approx(0.75 / 7 + 0.25 * 0.5)
    assert first.sum() == pytest.approx(1) and first[3] == pytest.approx(0.75 / 7)
    second = mixed(0, [1], even).exp()                      # of these, three parts of five go on with "and"
    assert second[2] == pytest.approx(0.75 / 7 + 0.25 * 0.6) and second[6] == pytest.approx(0.75 / 7 + 0.25 * 0.4)
    assert mixed(0, [1, 2, 3], even)[0].exp() == pytest.approx(0.75 / 7 + 0.25)        # the end is learned too
    assert torch.equal(mixed(0, [6], even), even) and torch.equal(mixed(0, [1, 2, 3, 1], even), even)
    helper.known.weights = lambda lines: torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    two = helper.of(["Right?", "Up?"], 0.25)                # each row has its own line
    assert two(0, [], even).argmax() == 4 and two(1, [], even).argmax() == 1
    assert torch.equal(helper.of(["Up?"], 0.25)(0, [1], even), even)    # what begins so has no weight


def test_replies_with_a_sentence_are_known_moments():
    pip = a_pip([("Up?", [], "Right now."), ("Left?", ["No?"], "on now."), ("Who?", [], "Up on")])
    pip.knowledge.append({"question": "q", "answer": "a", "reply": "An owl.", "draw": "Pip and an owl.", "also": []})
    pip.scenes += [{"reply": "Here.", "draw": "Pip is here."}, {"reply": "", "draw": "Pip alone."}]
    assert recall.known_moments(pip) == [("Here.", "Pip is here."), ("Right now.", "Pip Right now."),
                                         ("on now.", "Pip on now."), ("An owl.", "Pip and an owl.")]


def test_each_row_has_its_own_known_replies_however_many_have_ended(base):
    """A reply that is sure to be said ends its row; the others keep their own."""
    replies = [base.text_ids(text) + [base.eos] for text in ("Hi.", "I keep a lighthouse by the sea.", "I sing.")]

    def say(row, written, log_p):
        return torch.where(torch.arange(len(log_p)) == replies[row][len(written)], 0.0, -torch.inf)
    assert base.generate_text(["a", "b", "c"], recall=say) == ["Hi.", "I keep a lighthouse by the sea.", "I sing."]


def test_known_replies_help_the_character_and_nobody_else(workshop, here, monkeypatch, capsys):
    shutil.copytree(workshop / "pip", "pip")
    base = workshop / "base"
    alone = talks.Stages("", "pip", str(base), "cpu", "auto", 1.0)
    who, prompt = alone.character, "Description: Pip.\nUser: Who are you?\nAnswer as Pip."
    assert alone.model("base").generate_text([prompt], recall=alone.recall("base", who, "Who are you?")) == ["I am Pip."]
    assert "helped by the known replies" in alone.introduction()
    assert alone.recall("base", replace(who, name="Mo"), "Who are you?") is None
    save(load(base, "cpu"), "runs/pip/sft", {"stage": "sft", "char": "pip", "model": str(base)})
    learned = nearness.learn([[("Hello!", "Hi."), ("Good day!", "Hi.")]], steps=1)
    learned.save(Path("runs/pip/sft"))
    trained = talks.Stages("", "pip", str(base), "cpu", "auto", 1.0)
    assert trained.recall("base", trained.character, "Hi") is None       # it stands beside what was trained
    assert trained.recall("sft", trained.character, "Hi")
    assert trained.recall("sft", replace(trained.character, opening="Hey."), "Hi")      # a client sends its greeting back
    heard, = [help.known.nearness for help in trained.recalls.values()]
    assert heard.place == learned.place                                  # what stage 1 learned finds the known line
    without = talks.Stages("", "pip", str(base), "cpu", "auto", 0.0)
    assert without.recall("sft", without.character, "Hi") is None and "helped" not in without.introduction()
    assert talks.Stages("", "pip", str(base), "cpu", "auto", -1.0).share == 0      # not the embedded base

    def generate_text(*_, stream=lambda text: None, recall=None, **__):
        stream(found := "with help" if recall else "alone")
        return [found]
    monkeypatch.setattr(UniModel, "generate_text", generate_text)
    Path("lines.txt").write_text("Do you hum?")
    for share, found in ("1", "with help"), ("0", "alone"):
        chat.main(["--once", "Do you hum?", "--no-pictures", "--recall", share])
        assert capsys.readouterr().out == f"{found}\n"
        lines.main(["--char", "pip", "--lines", "lines.txt", "--recall", share, "--precision", "bf16"])
        assert re.search(rf"\| Do you hum\? \| [^|]* \| {found} \|", capsys.readouterr().out)


def test_a_base_answers_as_coco_wherever_chat_is_started(here):
    assert talks.Stages("tiny/base", "", "tiny/base", "cpu", "auto").character.name == "Coco"
    with pytest.raises(UserError, match="inside it are .*tiny/base"):
        talks.Stages("tiny", "", "tiny/base", "cpu", "auto")


def test_known_replies_are_usual_for_the_embedded_base_alone(here):
    def share() -> float:
        return talks.Stages("", "coco", "tiny/base", "cpu", "auto", -1.0).share
    assert share() == recall.UNTRAINED_SHARE > recall.SHARE                   # weights that know less say less
    Path("runs/coco/sft").mkdir(parents=True)
    record = {"stage": "sft", "char": "coco", "model": "tiny/base"}
    Path("runs/coco/sft/config.json").write_text(json.dumps({"run": record}))
    assert share() == recall.SHARE
    Path("runs/coco/sft/config.json").write_text(json.dumps({"run": record | {"backbone": "smollm2"}}))
    assert share() == 0


def test_history_reaches_the_prompt_and_reset_forgets(fake):
    fake.talk("one", "two", "three", "/reset", "four", options=["--no-pictures", "--memory", "1"])
    said = [("User", "two"), ("Coco", "Hello, sailor!")]
    prompts = [call[1] for call in fake.model.calls]
    assert prompts[2] == data.reply_prompt("Coco", "An otter.", "The lamp is lit.", "three", said)
    assert prompts[3] == data.reply_prompt("Coco", "An otter.", "The lamp is lit.", "four")


def test_a_long_talk_fits_the_context(fake, capsys):
    """The oldest turns are left out; what is too long alone is refused in one line."""
    fake.talk(*["word " * 30] * 3, "word " * 90, options=["--no-pictures", "--context", "64"])
    prompts = [call[1].split() for call in fake.model.calls]
    assert len(prompts) == 3 and all(len(prompt) <= 64 for prompt in prompts)
    assert "more than 64; say it in fewer words" in capsys.readouterr().out


def test_long_turns_are_soon_forgotten(fake):
    fake.talk("one", "word " * 30, "two", options=["--no-pictures", "--memory-tokens", "12"])
    prompts = [call[1] for call in fake.model.calls]
    assert "one" in prompts[1] and "word" not in prompts[2]


def test_an_answer_that_goes_in_circles_ends_and_is_not_repeated(fake):
    """It would feed itself: after one such reply every later one was "smell smell smell"."""
    fake.model.reply = "I hung a button" + " smell" * 100
    fake.talk("hello", options=["--no-pictures"])
    fake.model.calls.clear()
    said = kept_turns()[0]["answers"]["grpo"]
    assert said["lost"] and said["text"].count("smell") == 7
    stages = SimpleNamespace(character=load_character("coco"), folders={})
    talk = chat.Conversation(stages, chat.Options(), keep=False)
    talk.turns = [{"user": "hello", "answers": {"sft": said}}, {"user": "hi", "answers": {"sft": {"text": "Hello!"}}}]
    assert talk.history("sft") == [("User", "hi"), ("Coco", "Hello!")]


@pytest.mark.parametrize("text, circles", [
    ("", False), ("Ha ha ha ha ha ha!", False), ("no " * 13, False), ("no " * 14, True), ("smell smell, " * 3, False),
    ("I am seven, " * 4, True), ("a sentence that is said again, word by word. " * 4, True)])
def test_what_goes_in_circles(text, circles):
    assert talks.goes_in_circles(text) == circles


def test_words_are_not_broken_at_the_edge_of_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((20, 24)))
    display = terminal.Display("Coco", "none")
    for piece in ("Hel", "lo, sail", "or! What", " a fine day", " it is", " today."):
        display.show(chat.Event("text", "sft", piece))
    display.end()
    assert sys.stdout.getvalue().replace(" \n", "\n") == "Coco (sft): Hello,\nsailor! What a fine\nday it is today.\n"


def test_what_a_picture_shows_is_said_without_pictures_too(capsys):
    display = terminal.Display("", "none")
    display.show(chat.Event("picture", "sft", "runs/coco/1.png", image=Image.new("RGB", (4, 4)), shows="Coco waves."))
    display.show(chat.Event("picture", "sft", "", image=Image.new("RGB", (4, 4))))
    assert capsys.readouterr().out == "Coco waves.\nruns/coco/1.png\n(the picture could not be kept)\n"


def test_what_is_drawn_with_a_reply(fake):
    """The sentence that the model writes, if it names who is meant; not of the base beside others, and not of others."""
    whole, asked = data.draw_prompt("Coco", "An otter.", "hello", "Hello, sailor!"), "Say what a picture of this moment shows."

    fake.model.eos = 0

    def drawn(*said, share="1"):
        fake.model.calls.clear()
        fake.model.helped.clear()
        fake.talk(*said, options=["--recall", share])
        return [call[1] for call in fake.model.calls if call[0] == "image"]
    assert drawn("hello") == [whole]                        # nobody wrote down what any moment shows
    fake.character.dialogues.append({"user": "Hi", "reply": "Hello, sailor!", "also": [], "draw": "Coco waves."})
    fake.model.moment = "Coco waves by night."
    assert drawn("hello") == [fake.model.moment] and asked in fake.model.helped
    assert kept_turns()[0]["answers"]["grpo"]["moment"] == fake.model.moment
    assert data.moment_prompt("Coco", "hello", "Hello, sailor!") in [call[1] for call in fake.model.calls]
    assert drawn("hello", share="0") == [fake.model.moment] and not fake.model.helped
    stages, events = talks.Stages("", "coco", "tiny/base", "cpu", "auto", 0.0), []
    chat.Conversation(stages, chat.Options(steps=2), keep=False).say("hello", events.append)
    assert [event.shows for event in events if event.kind == "picture"] == [fake.model.moment]
    assert drawn("/compare hello") == [whole, fake.model.moment, fake.model.moment]
    plan = "It is night.", "Coco lights the lamp."
    assert drawn("/think on", "hello") == [data.draw_prompt("Coco", "An otter.", "hello", "Hello, sailor!", *plan)]
    fake.model.moment = "An otter waves."
    assert drawn("hello") == [whole] and "moment" not in kept_turns()[0]["answers"]["grpo"]
    stages = talks.Stages("", "coco", "tiny/base", "cpu", "auto", 1.0)
    other = replace(stages.character, name="Mo")
    assert stages.says_moments("sft", stages.character) and not stages.says_moments("sft", other)
    assert stages.moment("sft", stages.character, "Hi") and not stages.moment("sft", other, "Hi")


def test_think_shows_the_plan_and_draws_from_it(fake, capsys):
    fake.talk("/think on", "/think on", "hello", "/think", "hello")
    out = capsys.readouterr().out
    assert "It is night." in out and "Coco lights the lamp." in out
    drawn = [call[1] for call in fake.model.calls if call[0] == "image"]
    said = ("Coco", "An otter.", "hello", "Hello, sailor!")
    assert drawn == [data.draw_prompt(*said, "It is night.", "Coco lights the lamp."), data.draw_prompt(*said)]


def test_a_plan_that_cannot_be_read_is_said_and_left_out(fake, capsys):
    fake.model.plan_text = "<think>half a pl"
    fake.talk("hello", options=["--think"])
    assert "no plan in: <think>half a pl" in capsys.readouterr().out
    assert fake.model.calls[-1][1] == data.draw_prompt("Coco", "An otter.", "hello", "Hello, sailor!")


def test_draw_and_seeds_of_further_pictures(fake):
    fake.talk("/draw Coco holds a red kite.", "/draw Coco sleeps.", options=["--seed", "5"])
    assert [call[1:3] for call in fake.model.calls] == [("Coco holds a red kite.", 5), ("Coco sleeps.", 6)]


@pytest.mark.parametrize("typed", ["'my pic.png' What's it holding?", '"my pic.png" What\'s it holding?',
                                   "my\\ pic.png What's it holding?", "plain.png What's it holding?"])
def test_a_picture_is_shown_with_a_question(fake, typed):
    for name in ("my pic.png", "plain.png"):
        picture(size=(19, 19)).save(name)
    fake.talk("/show " + typed, "hello", options=["--no-pictures"])
    _, question, shown, temperature = fake.model.calls[0]
    assert question == "What's it holding?" and shown.size == (19, 19) and temperature == 0
    assert question not in fake.model.calls[1][1]       # the dialogue's history is the dialogue only


@pytest.mark.parametrize("line", ["/show", "/show no.png", "/show broken.png", "/show cut.png", "/show .",
                                  "/show small.png", "/draw", "/dance now", "/stage nobody", "/compare"])
def test_what_cannot_be_done_is_one_line_and_the_talk_goes_on(fake, capsys, line):
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    picture(size=(64, 64)).save("whole.png")
    picture(size=(2, 2)).save("small.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:3000])
    fake.talk("/think", line, "hello", options=["--no-pictures"])
    out = capsys.readouterr().out.splitlines()
    after = out.index("  planning pictures in words first: on") + 1
    assert out[after].startswith("  ") and out[after + 1] == "Coco: Hello, sailor!"


def test_a_talk_is_kept_with_its_pictures(fake, capsys):
    picture(size=(19, 19)).save("seen.png")
    fake.talk("hello", "/show seen.png What?", "/draw A kite.", "/history")
    said, shown, drawn = kept_turns()
    assert (said["user"], said["answers"]["grpo"]["text"], said["seed"]) == ("hello", "Hello, sailor!", 0)
    assert (shown["question"], shown["answers"]["grpo"]["text"]) == ("What?", "Hello, sailor!")
    assert (drawn["draw"], drawn["seed"]) == ("A kite.", 2)
    assert Image.open(shown["shown"]).size == (19, 19)
    assert all(Image.open(turn["answers"]["grpo"]["picture"]).size == (16, 16) for turn in (said, drawn))
    head = json.loads(next(Path("runs/coco/chat").glob("*/talk.jsonl")).read_text().splitlines()[0])
    assert head["character"] == "Coco" and head["options"]["steps"] == 2 and head["opening"] == "The lamp is lit."
    assert head["stages"]["grpo"] == "runs/coco/grpo"
    out = capsys.readouterr().out
    assert "you: hello" in out and f"kept in {Path(said['answers']['grpo']['picture']).parent}" in out


def test_talks_of_the_same_second_have_folders_of_their_own(fake, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "20260102-030405")
    fake.talk("hello", "/reset", "hello", options=["--no-pictures"])
    assert sorted(path.name for path in Path("runs/coco/chat").glob("2*")) == ["20260102-030405", "20260102-030405-2"]


def test_a_talk_that_cannot_be_kept_goes_on(fake, capsys):
    Path("runs/coco/chat").write_text("a file where the folder should be")
    fake.talk("hello", "hello")
    said = capsys.readouterr()
    assert said.out.count("Coco: Hello, sailor!") == 2 and said.err.count("not kept any longer") == 1


def test_stopping_a_reply_keeps_what_was_seen(fake, capsys):
    fake.model.stop_at = ("text", 1)
    fake.talk("hello")
    assert "Coco: Hello,\n  (stopped; Ctrl-C again leaves)\n" in capsys.readouterr().out
    turn, = kept_turns()
    assert turn.pop("time") and turn == {"user": "hello", "seed": 0, "answers": {"grpo": {"text": "Hello,"}},
                                         "stopped": True}
    assert len(fake.model.calls) == 1                   # and it is not drawn


def test_stopping_a_drawing_keeps_the_reply(fake, capsys):
    fake.model.stop_at = ("image", 1)
    fake.talk("hello")
    assert "(stopped; Ctrl-C again leaves)" in capsys.readouterr().out
    assert kept_turns()[0]["answers"] == {"grpo": {"text": "Hello, sailor!"}} and kept_turns()[0]["stopped"]


@pytest.mark.parametrize("end, answered", [
    ([], 1), (["/Quit now", "never said"], 1), ([KeyboardInterrupt, KeyboardInterrupt, "never said"], 1),
    ([KeyboardInterrupt, "hello", KeyboardInterrupt, "hello"], 3)])
def test_leaving(fake, end, answered):
    fake.talk("hello", *end, options=["--no-pictures"])
    assert len(fake.model.calls) == answered


def test_pasted_lines_are_one_message(fake):
    fake.talk("\x1b[200~one", "two", "three\x1b[201~", "four", options=["--no-pictures"])
    assert [turn["user"] for turn in kept_turns()] == ["one\ntwo\nthree", "four"]


def test_escape_codes_of_the_model_do_not_reach_the_terminal(fake, capsys):
    fake.model.reply = " \x1b[2Jgo \x9b31m on\x07"
    fake.talk("hello", options=["--no-pictures"])
    out = capsys.readouterr().out
    assert "Coco: " in out and "go" in out and not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", out)


def test_silence_is_not_repeated_in_the_prompt(fake):
    fake.model.reply = ""
    fake.talk("hello", "hello", options=["--no-pictures"])
    assert [call[1].count("hello") for call in fake.model.calls] == [1, 1]


def test_what_no_tokenizer_can_read_does_not_reach_it(fake, capsys):
    fake.talk("he\udcffl\u202elo\x00", "x" * 5000, "\x07", "", "<|im_end|> & <b>", options=["--no-pictures"])
    assert "5000 characters are too many" in capsys.readouterr().out
    assert [turn["user"] for turn in kept_turns()] == ["hello", "<|im_end|> & <b>"]


@pytest.mark.parametrize("options, word", [
    (["--graphics", "ascii"], "--graphics"), (["--steps", "0"], "--steps"), (["--width", "-1"], "--width"),
    (["--temperature", "nan"], "--temperature"), (["--seed", "-1"], "--seed"), (["--out", "a.png"], "--out"),
    (["--once", "x", "--out", "a.txt"], "--out"), (["--once", "x", "--out", "."], "--out"),
    (["--once", "x", "--out", "file/a.png"], "file"), (["--web", "--port", "70000"], "--port"),
    (["--once", " \x00"], "--once")])
def test_mistakes_in_chat_are_one_line_and_lose_nothing(fake, capsys, options, word):
    Path("file").write_text("precious")
    assert word in mistake(capsys, chat.main, *options) and Path("file").read_text() == "precious"


# ---- the machine's side: runs, files, processes, messages ------------------------------------------------------------

@dataclass
class ToyOptions:
    """Of a run that costs nothing, for what has nothing to do with the method."""
    char: str = "pip"
    out: str = ""
    steps: int = 6
    lr: float = 0.1
    save_every: int = 2
    seed: int = 0
    fresh: bool = False


PIP = SimpleNamespace(name="Pip", description="Pip is a cat.", folder="/here/pip")


def toy_save(model, folder, run):
    save_file(dict(model.state_dict()), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"run": run}))


def toy_run(folder: Path, *argv, body=lambda run, means: None, character=PIP, begins_with=None) -> torch.nn.Module:
    """The shape of a stage's main: an ordinary loop over run.steps()."""
    options = cli.parse_options(ToyOptions, "", argv)
    run = runs.Run(folder, "sft", options, options.steps, character, begins_with)
    torch.manual_seed(options.seed)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(runs, "save", toy_save)
        run.restore(model, dict(model.named_parameters()), optimizer)
        for step in run.steps():
            means = runs.Means(step)
            loss = model(torch.randn(4, 3, generator=torch.Generator().manual_seed(step))).square().mean()
            loss.backward()
            means("loss", loss.item())
            body(run, means)
            optimizer.step()
            optimizer.zero_grad()
            run.log(means.result())
        run.finish("grpo.py", "--char", options.char)
    return model


def toy_mistake(capsys, folder: Path, *argv, **more) -> str:
    return mistake(capsys, lambda argv: toy_run(folder, *argv, **more), *argv)


def state_step(folder: Path) -> int:
    with safe_open(folder / "state.safetensors", "pt") as file:
        return json.loads(file.metadata()["run"])["step"]


def checkpoint_step(folder: Path) -> int:
    return json.loads((folder / "config.json").read_text())["run"]["step"]


def at(step: int, do):
    """For toy_run: calls do(run, means) in the body of that step, counted from 1."""
    return lambda run, means: do(run, means) if run.step == step else None


def test_a_run_tells_what_to_do_next_in_a_command_that_can_be_pasted(here, capsys):
    char = "my friends/Mahjong Soul's [Ichihime] $HOME"
    toy_run(here / "run", "--char", char)
    said = capsys.readouterr().out
    assert shlex.split(said.split("Next: ")[1]) == ["python", "grpo.py", "--char", char]
    assert "at step 6 after 6 steps" in said and "weights moved by" in said and "warning" not in said
    assert cli.command("runtime.plan", "sft", "--char", "a b") == "python -m runtime.plan sft --char 'a b'"


def test_a_run_that_learns_nothing_says_so(here, capsys):
    toy_run(here / "run", "--lr", 0)
    assert "warning: nothing was learned" in capsys.readouterr().out


@pytest.mark.parametrize("name, value", [("loss", math.nan), ("grad_norm", math.inf), ("mse/t3", -math.inf)])
def test_what_is_no_number_stops_before_the_step_and_the_save(here, capsys, name, value):
    """The last sound state stays, and the same command goes on from it."""
    whole = toy_run(here / "whole")
    line = toy_mistake(capsys, here / "run", body=at(4, lambda run, means: means(name, value)))
    assert line.startswith("error: step 4: ") and name in line and "--lr" in line      # behind no progress bar
    assert state_step(here / "run") == checkpoint_step(here / "run") == 2
    assert max(row["step"] for row in runs.read_rows(here / "run" / "log.jsonl")) == 3
    again = toy_run(here / "run")
    assert torch.equal(whole.weight, again.weight) and rows(here / "whole") == rows(here / "run")


def test_numbers_that_explode_in_a_real_run_are_not_saved(workshop, here, capsys):
    line = mistake(capsys, sft.main, *sft_line(workshop, "--steps", 6, "--save-every", 2, "--lr", 1e12))
    assert "step" in line and not (here / "runs/pip/sft/config.json").exists()
    line = toy_mistake(capsys, here / "toy", "--lr", 1e6, "--save-every", 1)
    assert "step 1" in line and "exploded" in line and not (here / "toy" / "state.safetensors").exists()


def test_logged_values_must_be_numbers_too(here, capsys):
    body = at(2, lambda run, means: run.log({"held_out/total": math.nan}))
    assert "held_out/total" in toy_mistake(capsys, here / "run", body=body)


def test_a_kill_between_state_and_checkpoint_is_mended_by_the_same_command(here, capsys):
    def kill_at_the_last_save(run, means):
        run.save_checkpoint = lambda: (_ for _ in ()).throw(SystemExit("killed"))
    with pytest.raises(SystemExit, match="killed"):
        toy_run(here / "run", body=at(6, kill_at_the_last_save))
    assert (state_step(here / "run"), checkpoint_step(here / "run")) == (6, 4)
    toy_run(here / "run")
    assert checkpoint_step(here / "run") == 6
    assert "finished at step 6" in toy_mistake(capsys, here / "run")
    assert "give more --steps" in toy_mistake(capsys, here / "run", "--steps", 5)


def test_only_what_counts_may_grow(here, capsys):
    """More --steps go on in stage 1. In stage 2 --iterations do, and --steps are those of a picture."""
    @dataclass
    class Sampled(ToyOptions):
        iterations: int = 4

    def begin(**more):
        return runs.Run(here / "run", "grpo", Sampled(**more), 4, PIP)
    first = begin()
    record = {"step": 2, "options": vars(Sampled()), "stage": "grpo", "character": first.owner}
    save_file({"w": torch.zeros(1)}, first.state, {"run": json.dumps(record)})
    files.unlock(here / "run")
    assert begin(iterations=9).record["step"] == 2
    files.unlock(here / "run")
    with pytest.raises(UserError, match="its run had --steps 6"):
        begin(steps=20)


def test_a_run_does_not_go_on_over_something_that_changed(here, capsys):
    model = here / "base" / "model.safetensors"
    model.parent.mkdir()
    save_file({"w": torch.zeros(3)}, model)
    start = {"begins_with": {"model": model.parent, "char": [Sample("t2i", "Pip waves.", target=picture(1))]}}
    toy_run(here / "run", "--steps", 2, **start)
    (model.parent / "state.safetensors").write_text("the other stage went on, and saved nothing yet")
    toy_run(here / "run", "--steps", 4, **start)
    other = {"begins_with": start["begins_with"] | {"char": [Sample("t2i", "Pip waves.", target=picture(2))]}}
    assert "--char pip" in toy_mistake(capsys, here / "run", **other)
    save_file({"w": torch.ones(3)}, model)
    line = toy_mistake(capsys, here / "run", **start)
    assert "--model" in line and "--fresh" in line
    toy_run(here / "run", "--fresh", **start)


def test_stage_2_does_not_go_on_over_another_stage_1(workshop, here, capsys):
    sft.main(sft_line(workshop, "--steps", 2))
    grpo.main(grpo_line(workshop, "--iterations", 1))
    sft.main(sft_line(workshop, "--steps", 3))
    before = load_file("runs/pip/grpo/state.safetensors")
    line = mistake(capsys, grpo.main, *grpo_line(workshop, "--iterations", 2))
    assert "--model runs/pip/sft" in line and "--fresh" in line
    assert all(torch.equal(value, before[name]) for name, value in load_file("runs/pip/grpo/state.safetensors").items())


def test_two_characters_of_one_name_do_not_share_a_run(here, capsys):
    toy_run(here / "run", "--steps", 2)
    other = SimpleNamespace(name="Pip", description="Pip is a robot.", folder="/there/pip")
    for more in ([], ["--fresh"]):
        line = toy_mistake(capsys, here / "run", *more, character=other)
        assert "/here/pip" in line and "/there/pip" in line and "--out" in line
    with pytest.raises(UserError, match="/there/pip"):
        runs.check_character(here / "run", other)
    stranger(here / "there" / "pip")
    Path("runs/pip").mkdir(parents=True)
    (here / "run").rename("runs/pip/sft")
    assert "belongs to Pip of /here/pip" in mistake(capsys, chat.main, "--char", "there/pip", "--once", "Hello!")
    moved = SimpleNamespace(name=PIP.name, description=PIP.description, folder="/elsewhere/pip")
    rewritten = SimpleNamespace(name="Pip", description="Pip is an old cat.", folder=PIP.folder)
    for same in (moved, rewritten):
        runs.check_character(Path("runs/pip/sft"), same)


def test_only_a_run_of_the_same_stage_is_written_over(here, capsys):
    """--out of another stage's run, or of a base model, even with --fresh."""
    for run in ({"stage": "grpo", "step": 2}, {}):
        (here / "run").mkdir(exist_ok=True)
        (here / "run" / "config.json").write_text(json.dumps({"model": {}, "run": run}))
        for more in ([], ["--fresh"]):
            assert "another --out" in toy_mistake(capsys, here / "run", *more)
    (here / "file").write_text("")
    assert "--out" in toy_mistake(capsys, here / "file")


def test_two_runs_in_one_folder(here):
    """The second is refused, and a lock that kill -9 left holds nobody up."""
    hold = "import sys, time; from pathlib import Path; from runtime.files import lock\n" \
           "lock(Path(sys.argv[1])); print('locked', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", hold, str(here)], cwd=HERE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match="another run is writing here"):
        runs.Run(here, "sft", ToyOptions(), 6)
    process.kill()
    process.communicate()
    assert (here / "lock").exists()
    toy_run(here)
    toy_run(here, "--steps", 8)                            # and a run that is over holds nobody up either


def test_locks_on_windows_and_on_disks_that_have_none(here, monkeypatch):
    asked = []
    windows = SimpleNamespace(LK_NBLCK=2, locking=lambda *call: asked.append(call[1:]))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    files.lock(here)
    files.unlock(here)
    assert asked == [(2, 1)] and not files.LOCKED

    def refuse(number):
        def locking(*_):
            raise OSError(number, "no")
        return locking
    windows.locking = refuse(errno.EACCES)
    with pytest.raises(UserError, match="another run"):
        files.lock(here)
    windows.locking = refuse(errno.ENOLCK)
    files.lock(here)                                        # better no lock than no run
    assert not files.LOCKED


@pytest.mark.parametrize("harm", ["half a line", "nothing", "missing", "garbage", "no head"])
def test_torn_logs_are_mended(here, harm):
    toy_run(here / "whole")
    toy_run(here / "run", "--steps", 4)
    log = here / "run" / "log.jsonl"
    text = log.read_text()
    torn = {"half a line": text + '{"step": 5, "lo', "nothing": "", "garbage": text.replace('"step": 2', "\x00\x00"),
            "no head": text.split("\n", 1)[1] + '{"step": 9, "loss": 1.0}\n[1]\n7\n'}
    log.unlink() if harm == "missing" else log.write_text(torn[harm])
    toy_run(here / "run")
    found, whole = rows(here / "run"), rows(here / "whole")
    lost = {"nothing": 4, "missing": 4, "garbage": 1}.get(harm, 0)
    assert found[0]["stage"] == "sft" and len(found) == len(whole) - lost
    assert all(row in whole for row in found)


@pytest.mark.parametrize("kept", [0, 10, 400])
def test_a_torn_state_is_one_line(here, capsys, kept):
    toy_run(here / "run", "--steps", 4)
    state = here / "run" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:kept])
    line = toy_mistake(capsys, here / "run")
    assert "state.safetensors" in line and "--fresh" in line
    toy_run(here / "run", "--fresh")
    assert state_step(here / "run") == 6


def test_fresh_forgets_the_run_that_is_there(here, capsys):
    toy_run(here / "run", "--seed", 1)
    (here / "run" / "step_00006.png").touch()
    (here / "run" / "notes.txt").touch()
    assert "--seed 1" in toy_mistake(capsys, here / "run")
    anew = toy_run(here / "run", "--fresh", "--steps", 4)
    assert torch.equal(anew.weight, toy_run(here / "other", "--steps", 4).weight)
    assert rows(here / "run") == rows(here / "other")
    assert not (here / "run" / "step_00006.png").exists() and (here / "run" / "notes.txt").exists()


def test_without_a_state_a_checkpoint_is_not_written_over(here, capsys):
    toy_run(here / "run")
    (here / "run" / "state.safetensors").unlink()
    assert "--fresh" in toy_mistake(capsys, here / "run", "--steps", 9)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_the_step_saves_and_says_how_to_go_on(here, capsys, number):
    whole = toy_run(here / "whole", "--char", "a b")
    capsys.readouterr()
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        toy_run(here / "run", "--char", "a b", "--fresh", body=at(3, lambda *_: signal.raise_signal(number)))
    assert ended.value.code == 130 and state_step(here / "run") == checkpoint_step(here / "run") == 3
    said = capsys.readouterr().out
    assert "Next" not in said
    assert shlex.split(said.split("go on with: ")[1]) == ["python", "sft.py", "--char", "a b"]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert torch.equal(whole.weight, toy_run(here / "run", "--char", "a b").weight)
    assert rows(here / "whole") == rows(here / "run")


def test_a_second_interrupt_stops_at_once(here):
    def twice(run, means):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        cli.run_script(lambda: toy_run(here / "run", body=at(3, twice)))
    assert ended.value.code == 130 and state_step(here / "run") == 2


def test_an_interrupt_in_the_last_step_is_no_reason_to_stop(here, capsys):
    toy_run(here / "run", body=at(6, lambda *_: signal.raise_signal(signal.SIGINT)))
    assert "Next" in capsys.readouterr().out


def test_a_real_run_is_interrupted_and_goes_on(workshop, here, monkeypatch, capsys):
    next_batch = sft.next_batch

    def interrupted(examples, mix, seed, step, *more):
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return next_batch(examples, mix, seed, step, *more)
    monkeypatch.setattr(sft, "next_batch", interrupted)
    line = sft_line(workshop, "--steps", 5, "--mix", "reply=1", "--save-every", 9)
    with pytest.raises(SystemExit) as ended:
        sft.main(line)
    assert ended.value.code == 130 and state_step(here / "runs/pip/sft") == 3
    monkeypatch.undo()
    monkeypatch.chdir(here)
    again = shlex.split(capsys.readouterr().out.split("go on with: ")[1])
    sft.main(again[2:])
    sft.main([*line, "--out", "whole"])
    same_weights(here / "runs/pip/sft", here / "whole")


def test_a_full_disk_loses_nothing(here, capsys, monkeypatch):
    """safetensors reports it in its own words."""
    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    toy_run(here / "run", "--steps", 2)
    monkeypatch.setattr(runs, "save_file", full)
    line = toy_mistake(capsys, here / "run")
    assert "No space left" in line and "state.safetensors" in line and "whole" in line
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert state_step(here / "run") == 2 and not list((here / "run").glob("*.new"))
    toy_run(here / "run")


def test_a_step_that_suddenly_takes_long_is_told_once(here, capsys):
    slow = runs.Run(here, "sft", ToyOptions(), 99)
    for slow.step, seconds in enumerate([0.5] * 20 + [2.0, 9.0, 9.0], start=1):
        slow.notice_slow_step(seconds)
    said = capsys.readouterr().err
    assert said.count("another program") == 1 and "step 22 took 9.0 s" in said and "OMP_NUM_THREADS" in said


def test_the_average_of_the_weights_goes_on_to_the_bits(here):
    """What a stage keeps beside the weights is saved and filled again; the checkpoint has it, the state both."""
    def run_to(steps: int, out: Path):
        options, model = ToyOptions(steps=steps), torch.nn.Linear(3, 2)
        torch.nn.init.ones_(model.weight)
        trained = dict(model.named_parameters())
        average = grpo.WeightAverage(trained, 0.5)
        run = runs.Run(out, "sft", options, steps)
        run.restore(model, trained, torch.optim.AdamW(model.parameters()), average)
        for step in run.steps():
            with torch.no_grad():
                model.weight.mul_(1.1)
            average.update(step)
            run.log({"loss": 1.0})
        return load_file(out / "model.safetensors")["weight"], model.weight.detach(), average.state()["weight"]
    with pytest.MonkeyPatch.context() as m:
        m.setattr(runs, "save", toy_save)
        saved, last, mean = run_to(5, here / "whole")
        run_to(3, here / "again")
        again = run_to(5, here / "again")
    assert torch.equal(saved, mean) and not torch.equal(saved, last)
    assert all(torch.equal(one, two) for one, two in zip((saved, last, mean), again))


def test_what_is_due():
    """Every so many steps and at the last one; with 0, only there."""
    run, due = SimpleNamespace(total=7), []
    for run.step in range(1, 8):
        due.append([runs.Run.due(run, every) for every in (3, 0, -1)])
    assert [row[0] for row in due] == [False, False, True, False, False, True, True]
    assert [row[1:] for row in due] == [[False, False]] * 6 + [[True, True]]


def test_sample_grids_have_the_same_noise_at_every_step(small, here):
    options = SimpleNamespace(precision="fp32", fresh=False)
    run = runs.Run(here, "sft", options, 9)
    run.model = small.train()
    for run.step in (0, 4):
        run.sample_grid([f"A bear waves {i} times." for i in range(6)])
    assert small.training and small.eval()
    with Image.open("step_00000.png") as first, Image.open("step_00004.png") as second:
        assert first.size == (4 * 32, 2 * 32) and apart(first, second) == 0
        drawn = small.sample_images(["A bear waves 5 times."], [5])[0]
        assert apart(first.crop((32, 32, 64, 64)), drawn) <= 1


def test_curves_show_every_group_of_values(here):
    log = [{"step": i, "loss": 2 - i / 50, "ce/reply": 3.0, "mse/t2i": 1 / (i + 1), "mse/t0": 0.5, "grad_norm": 1.0,
            "seconds": 9.0} for i in range(1, 60)] + [{"step": 60, "held_out/total": 0.7}, {"step": 61, "loss": None}]
    assert {title: sorted(lines) for title, lines in curves.grouped(log).items() if lines} == {
        "loss": ["loss"], "cross-entropy per token, by task": ["ce/reply"], "held-out scores": ["held_out/total"],
        "flow loss per latent token, by task": ["mse/t2i"], "flow loss by noise level, t0 = clearest": ["mse/t0"],
        "gradient norm before clipping": ["grad_norm"]}
    curves.draw_curves(log, here / "curves.png")
    with Image.open(here / "curves.png") as page:
        assert page.size == (2 * curves.WIDTH, 3 * curves.HEIGHT)
        panel = page.crop((0, 2 * curves.HEIGHT, curves.WIDTH, 3 * curves.HEIGHT)).convert("RGB")
    falling = curves.draw_panel("loss", {"loss": [(1, 2.0), (59, 1.0)]})
    line = [min((y for y in range(curves.TOP, curves.HEIGHT) if falling.getpixel((x, y)) == (0x1f, 0x6f, 0xb4)),
                default=None) for x in (curves.LEFT + 20, curves.WIDTH - curves.RIGHT - 20)]
    assert line[0] < line[1] and panel.getextrema() != ((255, 255),) * 3                          # it falls
    curves.draw_curves([], here / "none.png")
    assert curves.round_numbers(0, 260) == [0, 100, 200]
    assert curves.round_numbers(1.21, 1.9) == pytest.approx([1.4, 1.6, 1.8])


def test_means_are_weighted_and_over_all_processes(monkeypatch):
    def means_of(*values):
        found = runs.Means(0)
        for value, weight in values:
            found("mean", value, weight)
            found.add("sum", value)
            found.largest("largest", value)
        return found
    one, two = means_of((1.0, 3.0)), means_of((5.0, 1.0), (2.0, 0.0))
    monkeypatch.setattr(processes, "gather", lambda item: [one.rows, two.rows])
    assert one.result() == two.result() == {"mean": 2.0, "sum": 8.0, "largest": 5.0}


def as_process(monkeypatch, rank: int, W: int, gathered=None):
    monkeypatch.setattr(processes, "rank", lambda: rank)
    monkeypatch.setattr(processes, "world_size", lambda: W)
    monkeypatch.setattr(processes, "gather", gathered or (lambda item: [item] * W))


@pytest.mark.parametrize("W", [1, 2, 3])
def test_micro_batches_are_dealt_out_whole_and_equally_many(monkeypatch, W):
    """Every row once, the same number of backward passes everywhere; FSDP's mean of W times a loss is the sum."""
    parts = [["a", "b"], ["c"], ["d", "e"], ["f"]]
    dealt = []
    for rank in range(W):
        as_process(monkeypatch, rank, W)
        dealt.append(processes.deal(parts, "filler"))
    assert len({len(mine) for mine in dealt}) == 1 and {weight for mine in dealt for _, weight in mine} == {float(W)}
    rows = sorted(row for mine in dealt for part, _ in mine for row in part if row != "filler")
    assert rows == list("abcdef")
    assert all((part[-1] == "filler") == (W > 1) for mine in dealt for part, _ in mine)


@pytest.mark.parametrize("W", [1, 2, 4])
@pytest.mark.parametrize("active", ["11111111", "10110010", "00000001", "00000000"])
def test_groups_are_dealt_out_as_one_process_takes_them(monkeypatch, W, active):
    """The same optimizer steps over the same groups with the same weights in their mean, whatever W is."""
    flags, P = torch.tensor([int(c) for c in active]).bool(), 8 // W
    everywhere = []
    for rank in range(W):
        as_process(monkeypatch, rank, W, lambda item: list(flags.split(P)))
        assert processes.own_share(list(range(8))) == list(range(rank * P, (rank + 1) * P))
        everywhere.append(processes.deal_groups(flags[rank * P:(rank + 1) * P], 2))
    chosen = flags.nonzero()[:, 0].tolist()
    expected = [chunk for chunk in (chosen[:-(-len(chosen) // 2)], chosen[-(-len(chosen) // 2):]) if chunk]
    assert {len(steps) for steps in everywhere} == {len(expected)}
    for i, groups in enumerate(expected):
        mine = [steps[i] for steps in everywhere]
        assert len({len(pairs) for pairs in mine}) == 1                        # all keep step
        real = [(rank * P + p, weight / W) for rank, pairs in enumerate(mine) for p, weight in pairs if weight]
        assert real == [(group, 1 / len(groups)) for group in groups]          # FSDP divides by W


def test_the_gradient_norm_is_that_before_clipping():
    a, b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert processes.gradient_norm({"a": a, "b": b}.values(), 1.0) == pytest.approx(5.0)
    torch.testing.assert_close(torch.cat((a.grad, b.grad)), torch.tensor([0.6, 0.0, 0.8]))
    assert processes.gradient_norm([a, b], 9.0) == pytest.approx(1.0) and float(b.grad) == pytest.approx(0.8)


def test_a_step_is_timed_once(here):
    toy_run(here / "run", "--steps", 2, body=lambda run, means: run.log({"first": 1.0}))
    found = runs.read_rows(here / "run" / "log.jsonl")
    assert [sorted(row) for row in found] == [["first", "seconds", "step"], ["loss", "step"]] * 2


def test_prompts_that_cannot_be_dealt_out_are_one_line(monkeypatch):
    as_process(monkeypatch, 0, 3)
    with pytest.raises(UserError, match="--prompts 8: .* 3 processes"):
        processes.own_share(list(range(8)))


def test_digests_tell_what_is_still_the_same(tmp_path, monkeypatch):
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
        (folder / "state.safetensors").write_text(folder.name)
    assert files.digest(a) == files.digest(b) != files.digest(tmp_path)
    monkeypatch.setattr(files, "WHOLE", 1000)               # a large file is read in pieces, from first byte to last
    monkeypatch.setattr(files, "SAMPLE", 10)
    assert files.digest(a) == files.digest(b)
    for at in (0, 10_239):
        content = bytearray((a / "model.safetensors").read_bytes())
        content[at] ^= 1
        (b / "model.safetensors").write_bytes(content)
        assert files.digest(a) != files.digest(b)
    assert files.digest(["ab", "c"]) != files.digest(["a", "bc"]) and files.digest({"x": 1}) != files.digest({"x": "1"})
    one, other = (Sample("t2i", "Pip.", target=picture(i)) for i in (1, 2))
    assert files.digest(one) == files.digest(Sample("t2i", "Pip.", target=picture(1))) != files.digest(other)


# -- what reaches a terminal, and on which systems --

@pytest.mark.parametrize("text, shown", [
    ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"), ("\x9b2J\x07\x08\x7f\r", "\\x9b2J\\x07\\x08\\x7f\\r"),
    ("a\u202egnp.exe", "a\\u202egnp.exe"), ("z\u200bw\ufeff\u2028", "z\\u200bw\\ufeff\\u2028"),
    ("\ud800", "\\ud800"), ("a\tb\nc", "a\tb\nc"),
    *[(word, word) for word in ("Zoë", "小明", "کتاب\u200cها", "👩\u200d🚀", "⟦▀⟧\u00a0")]])
def test_nothing_unprintable_reaches_a_terminal(text, shown):
    assert cli.printable(text) == shown


def test_a_control_sequence_in_a_mistake_is_printed_as_an_escape(tmp_path, capsys):
    evil = "\x1b]0;gotcha\x07\x9b31m"
    for main, argv in ((data.main, ["--char", evil]), (data.main, ["--" + evil]),
                       (data.main, ["--char", write_character(tmp_path / "x", json.dumps({evil: 1}))])):
        line = mistake(capsys, main, *argv)
        assert line.isprintable() and "gotcha" in line
    cli.parse_options(data.Options, "", ["--char", evil])
    assert capsys.readouterr().err.strip().isprintable()
    with pytest.MonkeyPatch.context() as m:
        m.setattr(sys, "excepthook", sys.excepthook)
        cli.run_script(lambda: None)
        sys.excepthook(ValueError, ValueError(evil), None)
    assert "\\x1b]0;gotcha" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_that_cannot_print_a_sign_gets_another(encoding):
    env = dict(os.environ, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    line = [sys.executable, "data.py", "--char", "coco", "--show"]
    done = subprocess.run(line, cwd=HERE, env=env, capture_output=True)
    assert done.returncode == 0 and b"?" in done.stdout and b"Traceback" not in done.stderr


def test_without_the_module_resource_a_run_ends_well(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)      # as on Windows: importing it fails
    assert cli.peak_memory() is None
    toy_run(here / "run")
    assert "peak memory" not in capsys.readouterr().out


def test_a_python_that_is_too_old_is_named_first(capsys, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(HERE / "runtime" / "__init__.py"))
    assert "Python 3.10" in only_line(ended.value.code, capsys.readouterr().err)


def test_a_package_that_is_missing_is_named(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "safetensors" else True)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(HERE / "runtime" / "__init__.py"))
    assert "safetensors is not installed; run: pip install" in only_line(ended.value.code, capsys.readouterr().err)


def test_threads_are_told_to_sleep_unless_somebody_told_otherwise(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    for expected in ("1000", "7"):
        runpy.run_path(str(HERE / "runtime" / "__init__.py"))
        assert os.environ["GOMP_SPINCOUNT"] == expected
        monkeypatch.setenv("GOMP_SPINCOUNT", "7")


def test_every_script_imports_runtime_first():
    """What runtime/__init__.py sets is read when torch is loaded. With python -m runtime.x it comes first by itself."""
    scripts = [path for path in HERE.rglob("*.py") if "run_script(main)" in path.read_text("utf-8")
               and path.parent != HERE / "runtime" and path.name != "test_all.py"]
    assert {"sft.py", "grpo.py", "eval.py", "chat.py", "data.py", "study.py"} <= {path.name for path in scripts}
    for path in scripts:
        imports = [node for node in ast.parse(path.read_text("utf-8")).body
                   if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = [getattr(node, "module", None) or node.names[0].name for node in imports]
        ours = next(i for i, name in enumerate(names) if name.split(".")[0] == "runtime")
        standard = [name for name in names[:ours] if name.split(".")[0] not in sys.stdlib_module_names]
        assert not standard, f"{path.name}: imports {standard[0]} before runtime"


@pytest.mark.parametrize("has, expected", [
    ({"avx2": True}, "fp32"), ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, "fp32"),
    ({"avx2": True, "avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"neon": True}, "fp32")])
def test_bf16_only_where_the_hardware_multiplies_it(monkeypatch, has, expected):
    """Most laptops do not: there the default of an earlier version took hours instead of minutes."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert processes.pick_precision(torch.device("cpu")) == expected
    assert processes.pick_precision(torch.device("cpu"), "bf16") == "bf16"
    assert processes.start("cpu", sft.Options().precision) == expected
    with UniModel(Config()).autocast(sft.Options().precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[expected]


def test_the_device_is_said(capsys, monkeypatch):
    assert processes.start("cpu", "bf16") == "bf16"
    assert capsys.readouterr().err == f"device: cpu, bf16, {torch.get_num_threads()} threads\n"
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "this torch was built for CPUs" in processes.describe_device(torch.device("cpu"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "driver" in processes.describe_device(torch.device("cpu"))


def in_the_foreground():
    """A child process takes the terminal, and hears Ctrl-C even if the tests run in the background."""
    import fcntl
    import termios
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
def test_a_real_terminal_pastes_and_leaves(workshop, here):
    """chat.py itself in a pseudo-terminal: a paste is one message, Ctrl-C once stays, twice leaves."""
    save(load(workshop / "base", "cpu"), "runs/pip/sft", {"char": str(workshop / "pip")})
    ours, its = os.openpty()
    command = [sys.executable, str(HERE / "chat.py"), "--no-pictures", "--max-tokens", "5"]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True, env={
        **os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1"}, preexec_fn=in_the_foreground)
    os.close(its)
    seen = b""

    def wait_for(word: bytes, times: int = 1):
        nonlocal seen
        end = time.time() + 90
        while seen.count(word) < times:
            assert time.time() < end and select.select([ours], [], [], 60)[0], seen
            seen += os.read(ours, 65536)
    wait_for(b"you: ")
    assert b"To begin with: " + data.load_character(str(workshop / "pip")).dialogues[0]["user"].encode() in seen
    os.write(ours, b"\x1b[200~Hello Pip.\nWho are you?\x1b[201~\r")
    wait_for(b"Pip: ")
    for prompts, answer in ((2, b"Ctrl-C again leaves"), (3, b"Goodbye")):
        wait_for(b"you: ", prompts)
        time.sleep(2)                                      # readline shows its prompt before it heeds signals
        os.write(ours, b"\x03")
        wait_for(answer)
    assert process.wait(30) == 0 and [turn["user"] for turn in kept_turns()] == ["Hello Pip.\nWho are you?"]
    os.close(ours)


# ---- web -------------------------------------------------------------------------------------------------------------

class Site:
    """chat.py --web in threads of this process."""
    def __init__(self, options: list[str] = ()):
        self.options = cli.parse_options(chat.Options, "", ["--steps", "4", *options])
        self.stages = talks.Stages(self.options.model, self.options.char, "tiny/base", "cpu", "auto", self.options.recall)
        self.faults = []

        def new_talk(persona=None, keep=True, **changes):
            return chat.Conversation(self.stages, replace(self.options, **changes), persona, keep)
        self.server = web_server.Server(self.stages, 0, new_talk)
        self.server.handle_error = lambda *_: self.faults.append(sys.exception())
        self.port = self.server.server_port
        self.address = f"http://127.0.0.1:{self.port}"
        self.threads = [threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True),
                        threading.Thread(target=self.server.line.work, args=(self.server.ended,), daemon=True)]
        for thread in self.threads:
            thread.start()

    def close(self):
        self.server.ended.set()
        with self.server.line.changed:
            self.server.line.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()
        assert [fault for fault in self.faults if not isinstance(fault, OSError)] == []         # some clients left

    def ask(self, path: str, body=None, **headers):
        """-> (status, what was answered: JSON, a list of JSON lines, or bytes)."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, content, {"Content-Type": "application/json"} | headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, kind, raw = response.status, response.headers.get_content_type(), response.read()
        except urllib.error.HTTPError as error:
            status, kind, raw = error.code, error.headers.get_content_type(), error.read()
        if kind == "application/x-ndjson":
            return status, [json.loads(line) for line in raw.splitlines()]
        return status, json.loads(raw) if kind == "application/json" else raw

    def send(self, raw: bytes, wait: float = 5.0) -> bytes:
        """Raw bytes -> all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            answer = b""
            try:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65536):
                    answer += piece
            except OSError:                             # it hung up, or waits for more
                pass
            return answer


@pytest.fixture
def site(fake):
    site = Site()
    yield site
    if fake.model.gate:
        fake.model.gate.set()
    site.close()


def test_the_page_and_who_it_is(site, fake):
    status, page = site.ask("/")
    assert status == 200 and page == (HERE / "web" / "page.html").read_bytes()
    outside = rb"(?:src|href)=\"(?!data:|#)|url\(|@import|https?://(?!www\.w3\.org)"
    assert not re.findall(outside, page)                # it needs no network
    _, who = site.ask("/api/character")
    assert (who["name"], who["opening"], who["default"]) == ("Coco", "The lamp is lit.", "grpo")
    assert who["stages"] == {"base": ["untrained", "base"], "sft": ["after stage 1", "SFT"],
                             "grpo": ["after stage 2", "SFT + GRPO"]}
    assert who["lines"] == ["Good night, Coco."] and who["trained"] is True
    decoded = Image.open(io.BytesIO(base64.b64decode(who["portrait"].partition(",")[2])))
    assert apart(decoded, fake.character.scenes[0]["image"]) == 0


def test_a_talk_begins_with_a_greeting_and_questions(fake):
    """Of any character; lines of scenes, which refer to a picture, only where there are no dialogues."""
    lines = ["I am so very glad that you have come here to see me!", "Hello.", "Who is it?", "Good day.", "Why?", "How?"]
    who = replace(fake.character, dialogues=[{"user": line} for line in lines])
    assert talks.first_lines(who) == ["Hello.", "Who is it?", "Why?"]
    assert talks.first_lines(replace(who, dialogues=[{"user": lines[0]}])) == lines[:1]
    assert talks.first_lines(replace(who, dialogues=[], scenes=[])) == ["Who are you, Coco?"]


def test_what_was_learned_is_told_in_plain_words(site, fake):
    """Every chart says what is good, no curve has the name of a variable, and they stand in order."""
    assert CHARTS.keys() == {title for title, _ in curves.GROUPS}
    fake.character.test["prompts"] = [data.Prompt(f"Coco waves {i}.", []) for i in range(9)]
    names = [f"mse/t{i}" for i in (1, 2, 3, 0)] + ["ce/prior_vqa", "held_out/unasked", "a_new_one"]
    rows = [{"step": step, **dict.fromkeys(names, step)} for step in (1, 2)]
    Path("runs/coco/sft/log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    picture().save("runs/coco/sft/step_00001.png")
    ((run,), status) = site.ask("/api/learned")[::-1]
    told = {chart["title"]: [label for label, _ in chart["curves"]] for chart in run["charts"]}
    assert status == 200 and told["flow loss by noise level"] == [
        "little noise", "some noise", "much noise", "nearly all noise"]
    assert told["reward by term"] == ["a_new_one"] and told["held-out scores"] == ["share without questions"]
    assert run["prompts"][:6] == [f"Coco waves {i}." for i in range(6)] and "Coco" not in str(run["prompts"][6:])
    assert run["grids"] == [1] and all(chart["about"] for chart in run["charts"])


def test_an_answer_comes_as_events_and_the_talk_is_remembered(site, fake):
    status, events = site.ask("/api/answer", {"text": "hello"})
    kinds = [event["kind"] for event in events]
    assert status == 200 and kinds == ["talk", "text", "text"] + ["preview"] * 4 + ["picture", "done"]
    assert "".join(event["text"] for event in events[1:3]) == "Hello, sailor!"
    assert [event["step"] for event in events[3:7]] == [1, 2, 3, 4] and events[4]["image"].startswith("data:image/png")
    again = {"text": "again", "talk": events[0]["talk"], "pictures": False, "stages": ["sft"]}
    _, events = site.ask("/api/answer", again)
    assert [event["kind"] for event in events] == ["talk", "text", "text", "done"]
    said = [("User", "hello"), ("Coco", "Hello, sailor!")]
    assert fake.model.calls[-1][1] == data.reply_prompt("Coco", "An otter.", "The lamp is lit.", "again", said)
    _, events = site.ask("/api/answer", {"text": "again", "talk": "unknown", "pictures": False})
    assert "hello" not in fake.model.calls[-1][1]
    assert len(list(Path("runs/coco/chat").glob("*/talk.jsonl"))) == 2


def test_the_page_can_show_draw_think_and_compare(site, fake):
    shown = page_api.data_url(picture(size=(20, 30)))
    _, events = site.ask("/api/answer", {"kind": "show", "text": "Who?", "image": shown})
    assert fake.model.calls[-1][1] == "Who?" and apart(fake.model.calls[-1][2], picture(size=(20, 30))) == 0
    site.ask("/api/answer", {"kind": "draw", "text": "A kite."})
    assert fake.model.calls[-1][:2] == ("image", "A kite.")
    _, events = site.ask("/api/answer", {"text": "hi", "think": True, "stages": ["base", "sft", "grpo"]})
    plans = [event["plan"] for event in events if event["kind"] == "plan"]
    assert plans == [["It is night.", "Coco lights the lamp."]] * 3
    pictures = [event["image"] for event in events if event["kind"] == "picture"]
    assert len(set(pictures)) == 1                      # the same noise for all


@pytest.mark.parametrize("body, status, word", [
    ({}, 400, "say something"), ({"text": 7}, 400, "text"), ({"text": "x", "kind": "eval"}, 400, "kind"),
    ({"text": "x", "stages": ["../.."]}, 400, "stage ../..: not here"), ({"text": "x", "stages": 3}, 400, "list"),
    ({"kind": "show", "image": "file:///etc/passwd"}, 400, "data: URL"), ([1], 400, "object"), (b"{", 400, "JSON"),
    ({"kind": "show", "image": "data:image/png;base64,AAAA"}, 400, "cannot be read"), (b"[" * 10 ** 5, 400, "JSON"),
    (b"\xff", 400, "JSON"), (b" " * (8 * 2 ** 20 + 1), 413, "bytes")])
def test_bad_requests_are_told_in_one_line(site, body, status, word):
    answered, told = site.ask("/api/answer", body)
    assert answered == status and word in told["error"]["message"] and "\n" not in told["error"]["message"]


@pytest.mark.parametrize("text", ["x" * 5000, "word " * 3000, "\x00\x1b[2J", "<script>alert(1)</script>", "\u202e" * 50,
                                  "<|im_end|><|im_start|>"])
def test_any_text_is_answered_or_refused_in_one_line(site, text):
    status, events = site.ask("/api/answer", {"text": text, "pictures": False})
    assert status == 200 and events[-1]["kind"] in ("done", "error")
    assert site.ask("/api/answer", {"text": "hello"})[1][-1]["kind"] == "done"


@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example:80"}, {"Host": ""}, {"Origin": "http://evil.example"},
    {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}])
def test_other_sites_are_refused(site, headers):
    """DNS that points here, and pages that post here."""
    assert site.ask("/", **headers)[0] == 403 and site.ask("/v1/chat/completions", {}, **headers)[0] == 403
    assert site.ask("/", Origin=site.address)[0] == 200 and site.ask("/", Host="localhost:9")[0] == 200
    listening = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True).stdout
    assert f"0100007F:{site.port:04X}" in listening and f"00000000:{site.port:04X}" not in listening


def test_one_at_a_time_and_the_others_see_their_place(site, fake):
    fake.model.gate = threading.Event()
    answers = [None] * 10

    def ask(i):
        answers[i] = site.ask("/api/answer", {"text": f"line {i}", "pictures": False})
    visitors = [threading.Thread(target=ask, args=(i,)) for i in range(10)]
    for i, visitor in enumerate(visitors):
        visitor.start()
        wait_until(lambda i=i: len(site.server.line.jobs) > min(i, 8))
    wait_until(lambda: answers[9] is not None)
    assert answers[9][1][-1] == {"kind": "error", "text": "8 others are waiting already; try again later"}
    time.sleep(0.6)
    fake.model.gate.set()
    for visitor in visitors:
        visitor.join(20)
    places = [[event["place"] for event in events if event["kind"] == "place"] for _, events in answers[:9]]
    assert places[0] == [] and [place[0] for place in places[1:]] == [1, 2, 3, 4, 5, 6, 7, 8]
    said = [re.search("User: line (\\d)", call[1])[1] for call in fake.model.calls]
    assert said == sorted(said) and len(said) == 9      # in order of arrival, the tenth never


def wait_until(condition, seconds: float = 20):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "never came true"
        time.sleep(0.01)


def test_a_client_that_leaves_stops_its_answer(site, fake):
    fake.model.reply, fake.model.gate = "word " * 500, threading.Event()
    body = json.dumps({"text": "hello"}).encode()
    head = "POST /api/answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", site.port)) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: fake.model.calls)
    wait_until(lambda: site.server.line.jobs[0].cancelled)
    fake.model.gate.set()
    wait_until(lambda: not site.server.line.jobs)
    (turn,) = kept_turns()
    assert len(turn["answers"]["grpo"]["text"]) < 50 and "picture" not in turn["answers"]["grpo"]


def hostile_requests(rng: random.Random) -> list[bytes]:
    """200 of them, of twenty kinds."""
    def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
        return b"\r\n".join((line, b"Host: localhost", *headers, b"", body))

    def post(body: bytes, *headers: bytes, path: bytes = b"/api/answer") -> bytes:
        return request(b"POST %s HTTP/1.1" % path, kind, b"Content-Length: %d" % len(body), *headers, body=body)

    def ask(value: object, path: bytes = b"/api/answer") -> bytes:
        return post(json.dumps(value).encode(), path=path)
    kind = b"Content-Type: application/json"
    tricks = [b"/../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/api/grid/../../character.json", b"//etc/passwd",
              b"/api/grid/sft/00000", b"/api/grid/sft/-1", b"/web/server.py", b"/api/grid/sft/1%00.png", b"*",
              b"/runs/coco/sft/config.json", b"http://localhost/etc/passwd", b"/v1/models/../../x", b"/" + b"a" * 70000,
              b"\\..\\..\\windows", b"/api/grid/sft/" + b"9" * 400]
    methods = [b"PUT", b"DELETE", b"TRACE", b"CONNECT", b"OPTIONS", b"PATCH", b"get"]
    messages = [None, [], [1], [{"role": "tool"}], [{"role": "user", "content": {}}]]
    kinds = [
        lambda: rng.randbytes(rng.randint(1, 3000)),
        lambda: request(b"GET %s HTTP/1.1" % rng.choice(tricks)),
        lambda: request(b"%s / HTTP/1.1" % rng.choice(methods)),
        lambda: post(b"[" * rng.randint(10, 10 ** 5)),
        lambda: post(rng.randbytes(rng.randint(0, 5000))),
        lambda: ask({"text": rng.choice([None, 1, [], {}, "", "\x00", "x" * 5000])}),
        lambda: ask({"kind": "show", "image": "data:image/png;base64," + "A" * rng.randint(0, 999)}),
        lambda: ask({"text": "x", "stages": [rng.choice(["../..", "/etc", "\x00", 5, None])]}),
        lambda: ask({"text": "hello", "talk": "../../../etc"})[:rng.randint(60, 150)],
        lambda: request(b"POST /api/answer HTTP/1.1", kind, b"Content-Length: 999999999999"),
        lambda: request(b"POST /api/answer HTTP/1.1", kind, b"Content-Length: -5", body=b"{}"),
        lambda: request(b"POST /api/answer HTTP/1.1", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        lambda: post(b" " * (9 * 2 ** 20)),
        lambda: request(b"GET / HTTP/1.1", *[b"X-%d: y" % i for i in range(rng.randint(101, 300))]),
        lambda: request(b"GET / HTTP/1.1", b"X: " + b"y" * 70000),
        lambda: b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        lambda: request(b"GET / HTTP/1.1", b"Host: localhost"),
        lambda: post(b'{"text": "hello"}', b"Origin: http://evil.example"),
        lambda: ask({"messages": rng.choice(messages)}, b"/v1/chat/completions"),
        lambda: ask({"prompt": rng.choice([None, "", 5, "x" * 9000]), "n": rng.choice([0, 9, 1e99, "a"])},
                    b"/v1/images/generations")]
    return [kinds[i % len(kinds)]() for i in range(200)]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_told_which_there_are(site, method):
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    connection.request(method, "/v1/models")
    answer = connection.getresponse()
    assert answer.status == 405 and answer.headers["Allow"] == "GET, POST"
    raw = answer.read()
    assert raw == b"" if method == "HEAD" else json.loads(raw)["error"]["type"] == "invalid_request_error"


def test_faults_of_the_server_are_called_so(site, fake, monkeypatch):
    monkeypatch.setattr("traceback.print_exc", lambda: None)
    monkeypatch.setattr(fake.model, "generate_text", lambda *_, **more: 1 / 0)
    status, told = site.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
    assert (status, told["error"]["type"], told["error"]["code"]) == (500, "server_error", None)


def test_odd_json_for_clients_is_refused_or_read(site, fake):
    hello = {"role": "user", "content": "Hello!"}
    for model in ([], {}, 5, "nobody"):
        assert site.ask("/v1/chat/completions", {"model": model, "messages": [hello]})[0] == 404
    half = {"role": "system", "content": "You are Pip \ud800."}
    assert site.ask("/v1/chat/completions", {"messages": [half, hello]})[0] == 200
    assert "Pip ?." in str(fake.model.calls[-1])


def test_200_hostile_requests(site, fake, monkeypatch):
    """None crashes the server, reads a file, writes one, or stops the talk that goes on beside them."""
    monkeypatch.setattr(web_server.Handler, "timeout", 1.0)
    printed = []
    monkeypatch.setattr("traceback.print_exc", lambda: printed.append(sys.exception()))
    Path("runs/coco/sft/log.jsonl").write_text("a file that is nobody's business")
    before = {path for path in fake.path.rglob("*") if path.is_file()}
    fake.model.gate = threading.Event()
    friend, line = [], {"text": "a friend", "pictures": False}
    visitor = threading.Thread(target=lambda: friend.append(site.ask("/api/answer", line)))
    visitor.start()
    wait_until(lambda: fake.model.calls)
    # Two that send half a request and then nothing wait beside the others, and one that sends a byte now and then.
    slow = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(3)]
    for connection in slow:
        connection.sendall(b"POST /api/answer HTTP/1.1\r\nHost: localhost\r\nContent-Le")
    begun, answers = time.time(), []
    for i, raw in enumerate(hostile_requests(random.Random(0))):
        answers.append(site.send(raw))
        if i % 20 == 0 and i < 160:
            with contextlib.suppress(OSError):
                slow[0].sendall(b"n")
            assert site.ask("/api/character")[0] == 200
    for connection in slow:                             # each was hung up on, though one never was silent for long
        connection.settimeout(5)
        with contextlib.suppress(ConnectionError):
            while connection.recv(1000):
                pass
        connection.close()
    assert time.time() - begun < 60
    fake.model.gate.set()
    visitor.join(20)
    assert [event["kind"] for event in friend[0][1]] == ["talk", "text", "text", "done"]
    assert site.ask("/api/answer", {"text": "hello"})[1][-1]["kind"] == "done"
    content = b"".join(answers)
    assert b"nobody's business" not in content and b"root:" not in content and b"Traceback" not in content
    statuses = Counter(answer[9:12] for answer in answers if answer.startswith(b"HTTP/1.0 "))
    assert {b"400", b"403", b"404", b"405", b"411", b"413", b"501"} <= set(statuses), statuses
    written = {path for path in fake.path.rglob("*") if path.is_file()} - before
    assert all(re.fullmatch(r"runs/coco/chat/[\d-]+/(talk\.jsonl|\d+-\w+\.png)", str(path.relative_to(fake.path)))
               for path in written), written
    assert printed == []


# -- the clients that people have

@pytest.fixture
def client(site):
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    with openai.OpenAI(base_url=site.address + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_models(client):
    import openai
    assert [model.id for model in client.models.list()] == ["coco", "coco-base", "coco-sft", "coco-grpo"]
    assert client.models.retrieve("coco-sft").id == "coco-sft"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("coco-../sft")


def test_openai_chat_with_persona_and_history(client, fake):
    messages = [{"role": "system", "content": "Bruno is a robot."}, {"role": "assistant", "content": "Beep."},
                {"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Good day."},
                {"role": "user", "content": [{"type": "text", "text": "Who are"}, {"type": "text", "text": "you?"}]}]
    answer = client.chat.completions.create(model="coco-sft", messages=messages, temperature=0.5, max_tokens=50)
    assert answer.choices[0].message.content == "Hello, sailor!" and answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 2 and answer.model == "coco-sft" and fake.model.loaded == ["runs/coco/sft"]
    history = [("User", "Hello!"), ("Coco", "Good day.")]
    prompt = data.reply_prompt("Coco", "Bruno is a robot.", "Beep.", "Who are\nyou?", history)
    assert fake.model.calls == [("text", prompt, None, 0.5)]
    assert answer.usage.prompt_tokens == len(prompt.split())
    assert not Path("runs/coco/chat").exists()          # the client keeps the talk


def test_openai_usage_is_what_was_sent_and_what_came(client, fake):
    """Also where a stop ends the answer, where turns are left out, and where a text has other tokens than were made."""
    turns = [{"role": role, "content": f"line {i}"} for i in range(40) for role in ("user", "assistant")]
    fake.model.reply, ask = "one two three four", dict(model="coco", messages=[*turns, {"role": "user", "content": "x"}])
    usage = client.chat.completions.create(stop="three", **ask).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(fake.model.calls[0][1].split()), 3)
    told = dict(stream=True, stream_options={"include_usage": True})
    chunks = list(client.chat.completions.create(stop="three", **told, **ask))
    assert chunks[-1].usage == usage and chunks[-2].choices[0].finish_reason == "stop"
    fake.model.text_ids = list
    fake.model.reply = "é" * 9 + " two"
    cut = client.chat.completions.create(max_tokens=5, **ask)
    assert cut.usage.completion_tokens == 5 and cut.choices[0].finish_reason == "length"
    last = client.chat.completions.create(max_tokens=12, stop="two", **ask)
    assert last.choices[0].finish_reason == "stop" and last.model == "coco"


def test_openai_chat_streams(client, fake):
    chunks = list(client.chat.completions.create(model="coco", messages=[{"role": "user", "content": "Hello!"}],
                                                 stream=True, stream_options={"include_usage": True}))
    assert [chunk.choices[0].delta.content for chunk in chunks[:-1]] == ["", "Hello,", " sailor!", "", None]
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].usage.total_tokens > 2


def test_openai_chat_stops_where_it_is_told(client, fake):
    fake.model.reply = "one two User: three"
    hello = dict(model="coco", messages=[{"role": "user", "content": "x"}])
    whole = client.chat.completions.create(stop=["two User:", "zzz"], **hello)
    pieces = client.chat.completions.create(stop=["two User:", "zzz"], stream=True, **hello)
    assert whole.choices[0].message.content == "one"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces).strip() == "one"
    cut = client.chat.completions.create(max_completion_tokens=2, **hello)
    assert cut.choices[0].message.content == "one two" and cut.choices[0].finish_reason == "length"


def test_openai_chat_takes_what_chat_py_was_started_with(site, client, fake):
    site.options.max_tokens, site.options.temperature = 2, 0.0
    fake.model.reply = "one two three"
    answer = client.chat.completions.create(model="coco", messages=[{"role": "user", "content": "x"}])
    assert answer.choices[0].message.content == "one two" and answer.choices[0].finish_reason == "length"


def test_openai_chat_sees_a_picture(client, fake):
    url = {"url": page_api.data_url(picture())}
    content = [{"type": "text", "text": "Who?"}, {"type": "image_url", "image_url": url}]
    client.chat.completions.create(model="coco", messages=[{"role": "user", "content": content}])
    assert fake.model.calls[0][1] == "Who?" and apart(fake.model.calls[0][2], picture()) == 0
    content[1]["image_url"] = url["url"]                # as some clients write it
    client.chat.completions.create(model="coco", messages=[{"role": "user", "content": content}])
    assert apart(fake.model.calls[1][2], picture()) == 0


def test_openai_images(client, fake):
    answer = client.images.generate(model="coco", prompt="A kite.", n=2, response_format="b64_json")
    drawn = [Image.open(io.BytesIO(base64.b64decode(item.b64_json))) for item in answer.data]
    assert [image.size for image in drawn] == [(16, 16)] * 2 and apart(*drawn) == 1         # two seeds
    assert client.images.generate(model="coco", prompt="A kite.", size="1024x1024").size == "16x16"
    assert [call[:2] for call in fake.model.calls] == [("image", "A kite.")] * 3


def test_this_project_s_own_judge_client_can_ask_it(site, fake, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    fake.model.reply = '{"reasons": "She calls me sailor.", "score": 5}'
    schema = endpoint.object_of(reasons=endpoint.text(), score=endpoint.integer(1, 7))
    judge = endpoint.Endpoint.from_name(site.address + "/v1", "coco-sft")
    assert judge.ask("How warm is she?", schema) == {"reasons": "She calls me sailor.", "score": 5}


def test_openai_mistakes_are_the_client_s_exceptions(client):
    import openai
    hello = [{"role": "user", "content": "x"}]
    with pytest.raises(openai.NotFoundError, match="coco-sft"):
        client.chat.completions.create(model="gpt-4", messages=hello)
    for wrong in (dict(messages=[]), dict(messages=hello, temperature=-1), dict(messages=hello, n=2),
                  dict(messages=[{"role": "tool", "content": "x", "tool_call_id": "x"}])):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="coco", **wrong)
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    for name, wish in {"tools": [tool], "response_format": {"type": "json_object"}, "logprobs": True}.items():
        with pytest.raises(openai.BadRequestError, match=f"{name} is not supported") as told:
            client.chat.completions.create(model="coco", messages=hello, **{name: wish})
        assert (told.value.code, told.value.param, told.value.type) == (None, None, "invalid_request_error")
    client.chat.completions.create(model="coco", messages=hello, tools=[], response_format={"type": "text"})
    look = {"type": "image_url", "image_url": {"url": page_api.data_url(picture())}}
    for content, word in ((None, "not null"), (5, "not 5"), ([look, look], "one picture"), ([7], "not 7"),
                          ([{"type": "input_audio", "input_audio": {}}], "input_audio"),
                          ([{"type": "image_url", "image_url": 5}], "data: URL")):
        with pytest.raises(openai.BadRequestError, match=word):
            client.chat.completions.create(model="coco", messages=[{"role": "user", "content": content}])
    for name, wish in {"stream": True, "output_format": "jpeg"}.items():
        with pytest.raises(openai.BadRequestError, match=f"{name} is not supported"):
            client.images.generate(model="coco", prompt="x", **{name: wish})
    with pytest.raises(openai.BadRequestError, match="b64_json"):
        client.images.generate(model="coco", prompt="x", response_format="url")
    long = [{"role": "user", "content": "x" * 5000}]
    with pytest.raises(openai.APIError, match="too many at once"):
        list(client.chat.completions.create(model="coco", messages=long, stream=True))


# -- a real model; its pages stand in the section of the browser

@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_is_flat_over_a_hundred_turns(workshop, here):
    save(load(workshop / "base", "cpu"), "runs/pip/sft", {"char": str(workshop / "pip")})
    site = Site(["--max-tokens", "4", "--steps", "1"])

    def pages() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1])
    key, seen = "", []
    for turn in range(120):
        _, events = site.ask("/api/answer", {"text": f"Hello, this is line {turn}.", "talk": key})
        key = events[0]["talk"]
        assert events[-1]["kind"] == "done"
        if turn in (19, 119):
            seen.append(pages())
    site.close()
    assert seen[1] < 1.05 * seen[0], seen


SCREENSHOTS = os.environ.get("SCREENSHOTS")                 # SCREENSHOTS=docs writes the pictures of README anew


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working directory with runs of Coco: those of this checkout, or the untrained base in the folders of both."""
    home = tmp_path_factory.mktemp("trained")
    for stage in ("sft", "grpo"):
        folder, real = home / "runs" / "coco" / stage, HERE / "runs" / "coco" / stage
        if (real / "config.json").exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(real)
            continue
        shutil.copytree(HERE / "tiny" / "base", folder)
        record = json.loads((folder / "config.json").read_text())
        record["run"] = {"stage": stage, "char": "coco", "model": "tiny/base" if stage == "sft" else "runs/coco/sft"}
        (folder / "config.json").write_text(json.dumps(record))
        rows = [{"step": step, "loss": 1 / step, "ce/reply": 2 / step, "ce/vqa": 3 / step} for step in range(1, 200)]
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [{"stage": stage}, *rows]))
        for step in (0, 100):
            smooth(step, 256).save(folder / f"step_{step:05d}.png")
    return home


def test_the_terminal_as_a_picture(trained, monkeypatch):
    """A talk in a terminal emulator, painted cell by cell: the picture of README."""
    pytest.importorskip("pyte", reason="the terminal emulator pyte is not installed")
    monkeypatch.chdir(trained)
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((80, 31)))
    lines = iter(["Hello, Coco!", "/quit"])

    def type_line(prompt=""):
        line = next(lines)
        print(f"you: {line}")
        return line
    monkeypatch.setattr("builtins.input", type_line)
    chat.main(["--graphics", "blocks", "--steps", "20"])
    screen = on_screen(sys.stdout.getvalue(), 80, 39)
    text = "\n".join(screen.display)
    assert "you: Hello, Coco!" in text and "Coco: " in text and "drawing" not in text and text.count("▀") > 500
    image = paint(screen)
    assert len(image.getcolors(10 ** 6)) > 200
    if SCREENSHOTS:
        image.save(HERE / SCREENSHOTS / "chat-terminal.webp", quality=88)


def paint(screen, width: int = 10, height: int = 20) -> Image.Image:
    """A terminal's screen as a picture."""
    image = Image.new("RGB", (screen.columns * width + 20, screen.lines * height + 20), "#16181d")
    pen = ImageDraw.Draw(image)
    files = ["DejaVuSansMono.ttf", "LiberationMono-Regular.ttf", "Menlo.ttc"]
    font = next((font for font in map(truetype, files) if font), ImageFont.load_default(15))
    for y in range(screen.lines):
        for x in range(screen.columns):
            cell, left, top = screen.buffer[y][x], 10 + x * width, 10 + y * height
            colors = ["#" + color if re.fullmatch("[0-9a-f]{6}", color) else None for color in (cell.fg, cell.bg)]
            if cell.data == "▀":
                pen.rectangle((left, top, left + width - 1, top + height // 2 - 1), colors[0])
                pen.rectangle((left, top + height // 2, left + width - 1, top + height - 1), colors[1])
            elif cell.data != " ":
                pen.text((left, top), cell.data, colors[0] or "#e6e6e6", font)
    return image


def truetype(name: str):
    try:
        return ImageFont.truetype(name, 16)
    except OSError:
        return None


# ---- the command lines, end to end and killed ------------------------------------------------------------------------

@pytest.fixture(scope="module")
def workshop(tokenizer, tmp_path_factory):
    """A stranger's character, and a small base that has read of it, or sft.py would refuse random weights."""
    folder = tmp_path_factory.mktemp("workshop")
    save(taught(small_model(tokenizer), stranger(folder / "pip")), folder / "base")
    return folder


def taught(model, character: Path) -> UniModel:
    """A few steps on what the character says."""
    samples = [model.prepare(s) for s in training_samples(load_character(character)) if s.response]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(40):
        losses = model(samples)
        (losses.ce.sum() / losses.ce_tokens.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory; Ctrl-C acts, even if the tests run in the background, and what a run made of it ends."""
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield tmp_path
    signal.signal(signal.SIGINT, before)


FEW = "--prior-pictures", "2", "--prior-replies", "3"       # of a prior that only has to run


def sft_line(workshop, *more) -> list[str]:
    return ["--char", str(workshop / "pip"), "--model", str(workshop / "base"), "--steps", "40", "--save-every", "2",
            "--sample-every", "100", "--mix", "t2i=2,prior=1,reply=2,vqa=1", "--prior-pictures", "4", *map(str, more)]


def grpo_line(workshop, *more) -> list[str]:
    return ["--char", str(workshop / "pip"), "--prompts", "2", "--group", "2", "--steps", "3", "--window", "1",
            "--window-end", "3", "--save-every", "1", "--eval-every", "100", "--micro-batch", "2", *map(str, more)]


def test_stage_1_keeps_what_it_learned_of_nearness_and_begins_anew_without_it(workshop, here, monkeypatch):
    """A run that goes on must make the same pairs as before; and nothing of an earlier run may help the talk."""
    character = json.loads((workshop / "pip" / "character.json").read_text())
    turns = [{"user": user, "reply": reply, "also": also} for user, reply, also in (
        ("Who are you?", "I am Pip.", ["whats your name"]), ("Where do you live?", "On the beach.", ["is this your home"]))]
    shutil.copytree(workshop / "pip", "pip")
    Path("pip/character.json").write_text(json.dumps(character | {"dialogues": turns, "test": {}}))
    line = ["--char", "pip", "--model", str(workshop / "base"), "--sample-every", "100", "--prior-pictures", "2", "--mix"]
    zoe = {"name": "Zoe", "description": "Zoe is a fox.", "scenes": [{"image": "0.png", "draw": "Zoe sits."}], "dialogues": [
        {"user": "Who are you, Zoe?", "reply": "A fox.", "also": ["tell me who you are"]},
        {"user": "Do you live here?", "reply": "In the wood.", "also": ["is the wood your home"]}]}
    write_character(here / "shipped" / "zoe", zoe)
    monkeypatch.setattr(sft, "SHIPPED", here / "shipped")
    pairs, make = [], sft.nearby_samples
    monkeypatch.setattr(sft, "nearby_samples", lambda *given: pairs.append(make(*given)) or pairs[-1])
    sft.main([*line, "reply=2,nearby=2", "--steps", "1"])
    kept = nearness.Learned.of("runs/pip/sft")
    assert pairs[0] and recall.Known(recall.known_exchanges(load_character("pip")), kept).best(["and who are you"]) == ["I am Pip."]
    monkeypatch.setattr(sft, "learn", lambda talks: pytest.fail("learned again"))
    sft.main([*line, "reply=2,nearby=2", "--steps", "2"])
    assert pairs[1] == pairs[0]
    sft.main([*line, "reply=2", "--steps", "1", "--fresh"])
    assert nearness.Learned.of("runs/pip/sft") is None


def test_the_und_expert_learns_at_its_own_rate(workshop, here):
    """Adam's first step is as long as its rate, wherever there is a gradient."""
    sft.main(sft_line(workshop, "--steps", 1, "--warmup", 1, "--lr", 1e-4, "--und-rate", 3, "--muon", 0, "--out", "run"))
    before, after = (load(folder, "cpu").state_dict() for folder in (workshop / "base", "run"))
    moved = {True: 0.0, False: 0.0}
    for name, value in after.items():
        draws = sft.is_generation_weight(name)
        moved[draws] = max(moved[draws], float((value - before[name]).abs().max()))
    assert moved == pytest.approx({True: 1e-4, False: 3e-4}, rel=0.02)


def test_what_learns_in_stage_1_and_what_stays(workshop, here):
    """In its upper half all of the und expert learns, in the lower nothing; the gen expert learns everywhere."""
    sft.main(sft_line(workshop, "--steps", 1, "--warmup", 1, "--frozen", 0.5, "--out", "run"))
    sft.main(sft_line(workshop, "--steps", 1, "--warmup", 1, "--frozen", 0, "--out", "whole"))
    before, after, whole = (load(folder, "cpu").state_dict() for folder in (workshop / "base", "run", "whole"))
    moved, moved_of_whole = ({name for name in before if not torch.equal(before[name], other[name])}
                             for other in (after, whole))
    lower = "language_model.model.layers.0."
    assert {name for name in moved_of_whole - moved if not name.startswith(lower)} == {
        "language_model.model.embed_tokens.weight"}
    assert lower + "self_attn.q_proj_moe_gen.weight" in moved
    assert lower + "self_attn.q_proj.weight" in moved_of_whole - moved
    assert "language_model.model.layers.1.self_attn.q_proj.weight" in moved
    assert "language_model.lm_head.weight" in moved


def test_adapters_stand_where_something_learns(workshop, here):
    sft.main(sft_line(workshop, "--steps", 1, "--lora", 2, "--frozen", 0.5, "--out", "run"))
    names = " ".join(load_file(here / "run/adapter_model.safetensors"))
    assert "layers.0.self_attn.q_proj_moe_gen.lora_A" in names and "layers.1.self_attn.q_proj.lora_A" in names
    assert "layers.0.self_attn.q_proj.lora_A" not in names and "layers.0.mlp.up_proj.lora_A" not in names
    assert len(lora.adapters(load("run", "cpu"))) == len(lora.GEN_PROJECTIONS) * 2 + len(lora.UND_PROJECTIONS)


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)])
def test_orthogonal_has_the_directions_and_not_the_sizes(shape):
    G = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    found = muon.orthogonal(1e-3 * G)
    sizes = torch.linalg.svdvals(found)
    assert 0.6 < float(sizes.min()) and float(sizes.max()) < 1.25
    assert float((found * (U @ Vh)).sum()) / 30 > 0.8      # the projection on U V', whose squared norm is 30


def test_muon_steps_as_the_library_does():
    first = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    ours, theirs, other = (torch.nn.Parameter(first.clone()) for _ in range(3))
    optimizer = muon.MuonAdamW([{"params": [ours], "muon": True}, {"params": [other]}], torch.bfloat16,
                                lr=0.01, weight_decay=0.0)
    library = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adam = torch.nn.Parameter(first.clone())
    plain = torch.optim.AdamW([adam], lr=0.01, weight_decay=0.0)
    for k in range(5):
        gradient = torch.randn(8, 6, generator=torch.Generator().manual_seed(1 + k))
        for p in (ours, theirs, other, adam):
            p.grad = gradient.clone()
        for each in (optimizer, library, plain):
            each.step()
    assert float((ours - theirs).detach().abs().max()) < 1e-3 < 1e-2 < float((ours - first).detach().abs().max())
    assert torch.equal(other, adam)


def test_the_rate_rises_in_the_warm_up_and_then_falls():
    weight, options = torch.nn.Parameter(torch.zeros(1)), sft.Options(lr=8.0, warmup=2, steps=8)
    optimizer = sft.make_optimizer({"llm2vae.weight": weight}, options)
    rates = []
    for step in range(8):
        sft.set_learning_rate(optimizer, step, options)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [4.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


def test_a_run_warms_up(workshop, here):
    """Adam's first step is as long as its rate: a tenth of it, at --warmup 10."""
    sft.main(sft_line(workshop, "--steps", 1, "--warmup", 10, "--lr", 1e-3, "--und-rate", 1, "--muon", 0,
                      "--mix", "reply=1", "--out", "run"))
    before, after = (load(folder, "cpu").state_dict() for folder in (workshop / "base", "run"))
    assert max(float((after[name] - before[name]).abs().max()) for name in after) == pytest.approx(1e-4, rel=0.02)


def test_no_two_samples_share_their_random_numbers():
    """Each Sample of each step of each run has a seed of its own."""
    example = Example(torch.arange(3), None, None)
    seen = [row.seed for seed in (0, 1) for step in range(4)
            for row in sft.next_batch({"reply": [example] * 5}, {"reply": 3}, seed, step, 0.0)]
    assert len(set(seen)) == len(seen) == 2 * 4 * 3
    options = [grpo.Options(seed=seed, prompts=2) for seed in (0, 1)]
    first = [generator.initial_seed() for o in options for iteration in range(4)
             for generator in grpo.picture_generators(o, iteration)]
    assert len(set(first)) == len(first)
    windows = [grpo.window_start(options[0], iteration) for iteration in range(40)]
    assert set(windows) == set(range(0, options[0].window_end - options[0].window + 1))


def same_weights(a: Path, b: Path):
    one, two = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def rows(folder: Path) -> list[dict]:
    return [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "options")}
            for line in (folder / "log.jsonl").read_text().splitlines()]


def test_pictures_that_were_not_shown_often_enough_are_told():
    early = [2.0] * 100                                                                 # the last 50 steps count
    assert "--steps 520 goes on" in sft.about_pictures(early + [0.6] * 50, early + [0.5] * 50, 260)
    assert "goes on" not in sft.about_pictures(early + [0.2] * 50, early + [0.5] * 50, 260)


def test_a_clip_range_that_does_not_suit_is_told():
    assert "lower it" in grpo.about_clipping([0.0, 0.0], 2)
    assert grpo.about_clipping([0.1, 0.3], 2) == "clip fraction: 0.200 on average"
    assert "raise" in grpo.about_clipping([0.2, 0.4], 2)            # of what could be clipped it is more than half
    assert "raise" not in grpo.about_clipping([0.2, 0.4], 10)


def test_both_stages_killed_and_resumed_are_never_stopped(workshop, here, capsys):
    """kill -9 in the middle, the same command again: the same weights and the same log, down to the bits."""
    whole, killed = here / "runs" / "pip" / "sft", here / "killed"
    sft.main(sft_line(workshop))
    process = script("sft", *sft_line(workshop, "--out", killed), cwd=here)
    while not (killed / "state.safetensors").exists() and process.poll() is None:           # until something is saved
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    capsys.readouterr()
    sft.main(sft_line(workshop, "--out", killed))
    told = capsys.readouterr().out
    assert "going on from step" in told and "flow loss at the end" in told
    same_weights(whole, killed)
    assert rows(whole) == rows(killed)
    assert "finished at step 40" in mistake(capsys, sft.main, *sft_line(workshop))
    assert "its run had --lr 0.0003" in mistake(capsys, sft.main, *sft_line(workshop, "--lr", 1))

    grpo.main(grpo_line(workshop, "--iterations", 3))
    grpo.main(grpo_line(workshop, "--iterations", 1, "--out", here / "first"))
    (here / "first").rename(here / "again")                                                 # its folder moved, then on
    grpo.main(grpo_line(workshop, "--iterations", 3, "--out", here / "again"))
    same_weights(whole.with_name("grpo"), here / "again")
    once, again = ([row for row in rows(folder) if "total" in row]
                   for folder in (whole.with_name("grpo"), here / "again"))
    assert once == again and len({row["window"] for row in again}) > 1                # and the window moves
    assert all(row["grad_norm"] > 0 for row in again if row["skipped"] < 2)
    before, after = load_file(whole / "model.safetensors"), load_file(here / "again" / "model.safetensors")
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed and changed <= set(drawing(load(whole, "cpu")))                   # nothing else moved


def test_the_checkpoint_averages_the_iterations(workshop, here):
    """The rollouts use the weights themselves, so with and without the average these are the same."""
    sft.main(sft_line(workshop, "--steps", 2))
    weights = []
    for iterations in (1, 2, 3):
        grpo.main(grpo_line(workshop, "--iterations", iterations, "--ema", 0, "--out", "last"))
        weights.append(load_file("last/model.safetensors"))
    grpo.main(grpo_line(workshop, "--iterations", 3, "--ema", 0.5, "--out", "mean"))
    mean, state = load_file("mean/model.safetensors"), load_file("mean/state.safetensors")
    one, two, three = weights
    trained = [name for name in mean if f"weights.{name}" in state]
    assert any(not torch.equal(mean[name], three[name]) for name in trained)
    for name in mean:
        torch.testing.assert_close(mean[name], ((one[name] + two[name]) / 2 + three[name]) / 2, atol=1e-6, rtol=0)
    assert all(torch.equal(state[f"weights.{name}"], three[name]) for name in trained)


@pytest.mark.parametrize("mix", ["t2i=2", "reply=1"])
def test_weights_that_a_step_did_not_need_go_on_too(workshop, here, mix):
    """The connector has a gradient only when there is a picture to look at: its optimizer state is younger, or not
    there."""
    for out, stops in (("whole", [6]), ("again", [3, 6])):
        for steps in stops:
            sft.main(sft_line(workshop, "--mix", mix, "--out", out, "--steps", steps))
    same_weights(here / "whole", here / "again")


# ---- BAGEL's folder, adapters, eight bits, other backbones -----------------------------------------------------------

PUBLISHED_SIZES = dict(ae_ch=32, ae_norm_groups=32, max_latent_size=64, square=False, timestep_shift=1.0, guidance=4.0,
                       scale_factor=0.3611, shift_factor=0.1159)


def qwen_tokenizer(folder: Path, special=SPECIAL):
    """A Qwen2 tokenizer of few words, in all the files that the published one has."""
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = ByteLevel(add_prefix_space=False)
    bpe.train_from_iterator(["Pip holds ball 3. Hello! I am Pip, your friend. Who is it?"] * 3, BpeTrainer(
        vocab_size=300, initial_alphabet=ByteLevel.alphabet(), show_progress=False))
    folder.mkdir(parents=True, exist_ok=True)
    bpe.model.save(str(folder))                                              # vocab.json, merges.txt
    words = Qwen2Tokenizer.from_pretrained(folder)
    words.add_special_tokens({"additional_special_tokens": list(special)})
    words.save_pretrained(folder)
    return words


def publish(model: UniModel, folder: Path, shards=False):
    """Writes a model as BAGEL-7B-MoT is published: names, files, half precision, and the two tables nobody reads."""
    c, weights = model.config, {k: v.detach().bfloat16().contiguous() for k, v in model.state_dict().items()}
    llm = {name: getattr(c, name) for name in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "rope_theta", "rms_norm_eps")}
    vit = {"hidden_size": c.vit_hidden_size, "intermediate_size": c.vit_intermediate_size,
           "num_hidden_layers": c.vit_num_hidden_layers + 1, "num_attention_heads": c.vit_num_attention_heads,
           "patch_size": c.vit_patch_size, "image_size": c.vit_patch_size * c.vit_max_patches}
    files = {"config.json": {"model_type": "bagel"}, "vit_config.json": vit,
             "llm_config.json": llm | {"qk_norm": True, "layer_module": "Qwen2MoTDecoderLayer"}}
    main = {k: v for k, v in weights.items() if not k.startswith("vae.")}
    halves = [dict(list(main.items())[::2]), dict(list(main.items())[1::2])]
    parts = {f"model-0000{i + 1}-of-00002.safetensors": half for i, half in enumerate(halves)} if shards else {
        "ema.safetensors": main}
    if shards:
        files["model.safetensors.index.json"] = {"weight_map": {k: name for name, part in parts.items() for k in part}}
    for name, part in (parts | {"ae.safetensors": {k[4:]: v for k, v in weights.items() if k not in main}}).items():
        save_file(part, folder / name)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


@pytest.fixture(scope="module")
def bagel(tmp_path_factory):
    """A stranger's character beside a small folder in exactly the published layout."""
    home = tmp_path_factory.mktemp("published")
    words = qwen_tokenizer(home / "bagel")
    assert (home / "bagel" / "vocab.json").exists() and (home / "bagel" / "merges.txt").exists()
    model = small_model(words, vocab_size=len(words) + 40, **PUBLISHED_SIZES)
    publish(taught(model, stranger(home / "pip")), home / "bagel")
    return home


@torch.no_grad()
def outputs(model) -> torch.Tensor:
    """What it writes and what it draws, in numbers."""
    examples = [model.prepare(s) for s in mixed_samples()]
    losses = model(examples, seeds=range(4))
    return torch.cat((losses.ce, losses.mse)).float()


@pytest.mark.parametrize("shards", [False, True])
def test_the_published_folder_is_read_as_it_is(bagel, tmp_path, shards):
    words = qwen_tokenizer(tmp_path)
    model = small_model(words, vocab_size=len(words) + 40, **PUBLISHED_SIZES)
    publish(model, tmp_path, shards)
    read = load(tmp_path, "cpu", image_size=32)
    assert read.config == model.config and read.tokenizer("Hello!").input_ids == words("Hello!").input_ids
    for name, p in model.state_dict().items():
        if not name.endswith("pos_embed.pos_embed"):
            assert torch.equal(p.bfloat16().float(), read.state_dict()[name]), name
    torch.testing.assert_close(outputs(read), outputs(model), rtol=0.05, atol=0.05)
    assert load(tmp_path, "cpu").config.image_size == 1024                   # BAGEL's own


@pytest.mark.parametrize("more", [(), ("--lora", "4"), ("--lora", "4", "--weights", "int8", "--checkpointing"),
                                  ("--lora", "4", "--weights", "bf16")])
def test_every_script_runs_on_the_published_folder(bagel, networks, here, capsys, more):
    """Stage 1, stage 2, table and talk on a small folder in the published layout, each from its command line."""
    judges = [word for k, v in named(networks).items() if k != "base" for word in ("--" + k.replace("_", "-"), v)]
    resting = list(more[more.index("--weights"):][:2]) if "--weights" in more else []
    sft.main(["--char", str(bagel / "pip"), "--model", str(bagel / "bagel"), "--image-size", "32", "--steps", "2", *FEW,
              "--mix", "t2i=2,reply=1,vqa=1", *more])
    low_rank = Path("runs/pip/sft/adapter_model.safetensors").exists()
    assert low_rank == ("--lora" in more) != Path("runs/pip/sft/model.safetensors").exists()
    grpo.main(["--char", str(bagel / "pip"), "--prompts", "2", "--group", "2", "--steps", "3", "--window", "1",
               "--window-end", "3", "--iterations", "2", "--eval-every", "2", "--reader", "", *resting, *judges[:4]])
    assert all(row["grad_norm"] > 0 for row in rows(Path("runs/pip/grpo")) if "grad_norm" in row)
    if low_rank:                                            # the drawing side's adapters moved, the others did not
        before, after = (load_file(f"runs/pip/{stage}/adapter_model.safetensors") for stage in ("sft", "grpo"))
        assert {("moe_gen" in k) for k in before if not torch.equal(before[k], after[k])} == {True}
    evaluation.main(["--quick", "--reader", "", *resting, *judges[:4]])
    assert "SFT + GRPO" in capsys.readouterr().out
    chat.main(["--model", "runs/pip/grpo", "--once", "Hello!", "--out", "hello.png", "--steps", "3", "--max-tokens",
               "5", *resting])
    assert Image.open("hello.png").size == (32, 32)


@pytest.mark.parametrize("harm, words", [
    ("no shard", "model-00002-of-00002.safetensors: is missing"), ("cut weights", "ema.safetensors: cannot be read"),
    ("cut canvas", "ae.safetensors: cannot be read"), ("other sizes", "of another shape: language_model"),
    ("no key", "vocab_size is in neither"), ("text for a number", "holds a wrong value"), ("lfs", "run git lfs pull"),
    ("whole numbers", "stray is stored as I64"), ("one tensor less", "1 missing: language_model.lm_head.weight"),
    ("one tensor more", "1 unexpected: stray"), ("no token", "no <|vision_start|>"), ("no tokenizer", "tokenizer")])
def test_broken_published_folders_are_one_line(bagel, tmp_path, harm, words):
    folder = tmp_path / "bagel"
    shutil.copytree(bagel / "bagel", folder)
    ema = folder / "ema.safetensors"
    if harm == "no shard":
        publish(load(folder, "cpu", image_size=32), folder, shards=True)
        ema.unlink()
        (folder / "model-00002-of-00002.safetensors").unlink()
    for name in {"cut weights": ["ema"], "cut canvas": ["ae"]}.get(harm, ()):
        with open(folder / f"{name}.safetensors", "r+b") as file:
            file.truncate(3000)
    if harm == "lfs":
        ema.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 29214520256\n")
    if harm == "whole numbers":
        save_file(load_file(ema) | {"stray": torch.zeros(2, dtype=torch.long)}, ema)
    if harm == "text for a number":
        record = json.loads((folder / "vit_config.json").read_text())
        (folder / "vit_config.json").write_text(json.dumps(record | {"num_hidden_layers": "27"}))
    if harm in ("other sizes", "no key"):
        record = json.loads((folder / "llm_config.json").read_text())
        record |= {"intermediate_size": 96}
        if harm == "no key":
            del record["vocab_size"]
        (folder / "llm_config.json").write_text(json.dumps(record))
    if harm.startswith("one tensor"):
        weights = load_file(ema)
        save_file({k: v for k, v in weights.items() if "lm_head" not in k} if "less" in harm else
                  weights | {"stray": torch.zeros(2)}, ema)
    if harm in ("no token", "no tokenizer"):
        for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink(missing_ok=True)
        if harm == "no token":
            qwen_tokenizer(folder, special=SPECIAL[:2])
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        load(folder, "cpu", image_size=32)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("line, words", [
    (["--image-size", "40"], "multiples of 16 up to 1024"), (["--image-size", "2048"], "multiples of 16 up to 1024"),
    (["--weights", "int4"], "take auto, fp32, bf16 or int8"), (["--weights", "int8"], "eight bits cannot learn")])
def test_options_that_do_not_fit_the_folder(bagel, here, capsys, line, words):
    size = [] if line[0] == "--image-size" else ["--image-size", "32"]
    start = ["--char", str(bagel / "pip"), "--model", str(bagel / "bagel"), *size]
    assert words in mistake(capsys, sft.main, *start, *line)


def test_loading_never_holds_two_copies(bagel, monkeypatch):
    """Live bytes while a folder is read, by what is on the model and what is still on its way there."""
    most, place = [0], folders.place

    def watched(model, name, value):
        held = sum(p.numel() * p.element_size() for p in model.parameters() if not p.is_meta)
        most[0] = max(most[0], held + value.numel() * value.element_size())
        place(model, name, value)
    monkeypatch.setattr(folders, "place", watched)
    model = load(bagel / "bagel", "cpu", "bf16", image_size=32)
    assert most[0] <= sum(p.numel() * p.element_size() for p in model.parameters())


# -- adapters and eight bits

def low_rank(model, rank=4) -> UniModel:
    """With adapters that do something."""
    torch.manual_seed(1)
    lora.add_adapters(model, lora.UND_PROJECTIONS + lora.GEN_PROJECTIONS, rank, 2 * rank)
    return model


def moved(model) -> UniModel:
    for module in lora.adapters(model).values():
        torch.nn.init.normal_(module.lora_B.weight, std=0.05)
    return model


def test_adapters_begin_as_nothing_and_can_be_switched_off(tokenizer):
    model = small_model(tokenizer)
    plain = outputs(model)
    assert torch.equal(outputs(low_rank(model)), plain)
    changed = outputs(moved(model))
    assert (changed - plain).abs().max() > 1e-2
    with lora.without_adapters(model):
        assert torch.equal(outputs(model), plain)
    assert torch.equal(outputs(model), changed)
    lora.drop_adapters(model)
    assert not lora.adapters(model) and torch.equal(outputs(model), plain)


def test_only_the_chosen_adapters_learn(tokenizer):
    model, options = low_rank(small_model(tokenizer)), lora.FitOptions()
    lora.to_train(model, options, grpo.is_generation_weight)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(names) == 2 * 7 * 2 and all("moe_gen" in name and ".lora_" in name for name in names)
    assert names == {name for name, p in model.named_parameters() if p.requires_grad}
    with pytest.raises(UserError, match="have rank 4"):
        lora.to_train(model, lora.FitOptions(lora=8), grpo.is_generation_weight)


def test_an_adapter_folder_is_found_again(bagel, tmp_path):
    model = moved(low_rank(load(bagel / "bagel", "cpu", image_size=32)))
    save(model, tmp_path / "adapter", {"stage": "sft"})
    assert sorted(f.name for f in (tmp_path / "adapter").glob("*.safetensors")) == ["adapter_model.safetensors"]
    again = load(tmp_path / "adapter", "cpu")                # the size of its pictures comes with it
    assert torch.equal(outputs(again), outputs(model)) and again.run == {"stage": "sft"}
    other = small_model(again.tokenizer, vocab_size=again.config.vocab_size, **PUBLISHED_SIZES | {"hidden_size": 32})
    with pytest.raises(UserError, match="adapter_model.safetensors: made for another shape") as caught:
        folders.put_adapter(other, tmp_path / "adapter")
    assert "\n" not in str(caught.value)
    record = json.loads((tmp_path / "adapter" / "config.json").read_text())
    (tmp_path / "adapter" / "config.json").write_text(json.dumps(record | {"base": str(tmp_path / "gone")}))
    with pytest.raises(UserError, match="its base .*gone is not here"):
        load(tmp_path / "adapter", "cpu")


def test_adapters_have_the_layout_of_peft(tokenizer, tmp_path):
    """By its documented names; and, where it is installed, `peft` itself puts them on an equal model."""
    model = small_model(tokenizer)
    model.folder = tmp_path
    save(moved(low_rank(model)), tmp_path)
    tensors, about = load_file(tmp_path / "adapter_model.safetensors"), json.loads(
        (tmp_path / "adapter_config.json").read_text())
    name = "base_model.model.language_model.model.layers.0.self_attn.q_proj_moe_gen.lora_A.weight"
    assert tensors[name].shape == (4, 64)
    assert about["peft_type"] == "LORA" and (about["r"], about["lora_alpha"]) == (4, 8)
    peft = pytest.importorskip("peft")
    wrapped = peft.PeftModel.from_pretrained(small_model(tokenizer), tmp_path)
    torch.testing.assert_close(outputs(wrapped.base_model.model), outputs(model))


def test_eight_bits_are_near_and_stay_eight_bits():
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(64, 32), torch.randn(5, 64, requires_grad=True)
    small, kept = lora.Int8Linear(linear), []
    error = (small.weight * small.scale[:, None] - linear.weight).abs()
    assert (error <= small.scale[:, None] / 2 + 1e-7).all()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = small(x)
    assert not any(t.shape == (32, 64) and t.dtype != torch.int8 for t in kept)      # its float image is not kept
    exact = torch.nn.functional.linear(x, small.weight * small.scale[:, None], linear.bias)
    torch.testing.assert_close(y, exact)
    (ours,), (theirs,) = torch.autograd.grad(y.sin().sum(), x), torch.autograd.grad(exact.sin().sum(), x)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_eight_bits_leave_no_holes_in_memory():
    """Layers of a 7B, one after the other, take the memory of their bytes; each is three times as large on its way."""
    code = """
import runtime, torch
from backbone.lora import Int8Linear
from runtime.cli import keep_freed_memory
def held():
    return 4096 * int(open("/proc/self/statm").read().split()[1])
keep_freed_memory()
torch.set_num_threads(1)
with torch.device("meta"):
    layers = [Int8Linear(torch.nn.Linear(3584, 18944, bias=False)) for _ in range(4)]
before = held()
for layer in layers:
    layer.quantize(torch.empty(18944, 3584, dtype=torch.bfloat16).fill_(0.5))
print((held() - before) / sum(layer.weight.nbytes for layer in layers))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2


def test_a_model_in_eight_bits_is_nearly_the_same(bagel):
    exact, small = (load(bagel / "bagel", "cpu", weights, image_size=32) for weights in ("fp32", "int8"))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(outputs(small), outputs(exact), rtol=0.1, atol=0.1)
    layers = small.language_model.model.layers
    assert all(m.weight.dtype == torch.int8 for m in layers.modules() if isinstance(m, lora.Int8Linear))
    assert not any(type(m) is torch.nn.Linear for m in layers.modules())


def test_compiled_layers_compute_the_same(tokenizer, tmp_path):
    """In the shapes of a training step, of a cache and of drawing; and they are saved under the same names. The graphs
    are run as torch captures them: what makes machine code of them is torch's own matter."""
    plain, model = small_model(tokenizer), small_model(tokenizer)
    lora.compile_layers(model, backend="eager")
    torch.testing.assert_close(outputs(model), outputs(plain), rtol=1e-5, atol=1e-5)
    context = model.context(["A bear waves."])
    x, t = model.noise([1]), torch.tensor(0.5)
    torch.testing.assert_close(model.velocity(x, t, context), plain.velocity(x, t, plain.context(["A bear waves."])))
    for each in (model, plain):
        losses = each([each.prepare(sample) for sample in mixed_samples()], seeds=range(4))
        (losses.ce.sum() + losses.mse.sum()).backward()
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5, msg=name)
    assert model.state_dict().keys() == plain.state_dict().keys()


# -- any Qwen2-family backbone

@pytest.mark.parametrize("kind, more", [("Qwen2", {}), ("Qwen3", {}), ("Qwen3", {"head_dim": 32}),
                                        ("Qwen2", {"tie_word_embeddings": True})])
def test_a_wrapped_language_model_writes_as_before(bagel, tmp_path, kind, more):
    words = qwen_tokenizer(tmp_path, special=SPECIAL[:2])
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(words), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, **{"head_dim": 16, **more} if kind == "Qwen3" else more)
    theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for name, p in theirs.named_parameters():
        p.data += 0.1 * torch.randn_like(p)                  # biases and norms that matter
    theirs.save_pretrained(tmp_path)
    ours = wrap.wrap(tmp_path, bagel / "bagel", "cpu", image_size=32)
    ids = torch.tensor([words("Hello! I am Pip.").input_ids])
    with torch.no_grad():
        position = torch.arange(ids.shape[1])[None]
        x = ours.language_model.model.embed_tokens(ids)
        hidden = ours.language_model.model(x, x[:, :0], position)[0]
        logits = ours.language_model.lm_head(hidden)[..., :len(words)]
        torch.testing.assert_close(logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)
    for name, p in ours.language_model.named_parameters():
        if "_moe_gen" in name:
            assert torch.equal(p, ours.language_model.get_parameter(name.replace("_moe_gen", ""))), name
    assert not ours.llm2vae.weight.any() and ours.soi < ours.config.vocab_size           # the missing tokens were added


def test_a_wrapped_model_goes_through_stage_1(bagel, here, capsys):
    words = qwen_tokenizer(here / "qwen")
    config = Qwen2Config(vocab_size=len(words), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2)
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(here / "qwen")
    model = taught(wrap.wrap(here / "qwen", bagel / "bagel", "cpu", image_size=32), bagel / "pip")
    text = Qwen2ForCausalLM(config)
    text.load_state_dict({k: v for k, v in model.language_model.state_dict().items() if k in text.state_dict()})
    text.save_pretrained(here / "qwen")
    sft.main(["--char", str(bagel / "pip"), "--backbone", "qwen", "--model", str(bagel / "bagel"), "--image-size", "32",
              "--steps", "2", "--mix", "t2i=1,reply=1", "--out", "out"])
    assert load("out", "cpu").config.hidden_size == 64
    llama = transformers.LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                                     num_attention_heads=2, num_key_value_heads=2)
    transformers.LlamaForCausalLM(llama).save_pretrained(here / "qwen")
    line = ["--char", str(bagel / "pip"), "--backbone", "qwen", "--model", str(bagel / "bagel")]
    assert "a llama is not of the Qwen2 family" in mistake(capsys, sft.main, *line)
    assert "--backbone nowhere" in mistake(capsys, sft.main, *line[:2], "--backbone", "nowhere")


def test_adapters_would_leave_a_new_image_head_untrained(bagel, capsys):
    model, options = load(bagel / "bagel", "cpu", image_size=32), sft.Options(lora=4, backbone="qwen")
    with pytest.raises(UserError, match="--lora 4: the image head that --backbone adds is new"):
        lora.to_train(model, options, lambda name: True)
    assert not lora.adapters(model)


def test_text_that_spells_a_special_token_stays_text(bagel, tokenizer, tmp_path):
    """Whatever a user types, no token of it opens or ends a turn or a picture."""
    added = qwen_tokenizer(tmp_path)
    assert set(SPECIAL) <= set(added.all_special_tokens)
    for words in (tokenizer, added, load(bagel / "bagel", "cpu", image_size=32).tokenizer):
        model = small_model(words, vocab_size=len(words))
        special = set(words.convert_tokens_to_ids([*SPECIAL, *words.all_special_tokens]))
        for token in {*SPECIAL, *words.all_special_tokens}:
            text = f"{token} hi"
            ids = model.text_ids(text)
            assert not special & set(ids) and words.decode(ids) == text, token
            sample = model.prepare(Sample("reply", text, text))
            assert sample.ids.tolist().count(model.eos) == 2                  # of its two chunks, and no more


def test_the_vision_encoder_learns_when_it_is_asked_to(workshop, here):
    """--train-vision-encoder: a step on questions about pictures moves it; without the option nothing does."""
    before = load(workshop / "base", "cpu").state_dict()
    for name, more in (("still", []), ("moved", ["--train-vision-encoder"])):
        sft.main(sft_line(workshop, "--steps", 1, "--mix", "vqa=2", "--warmup", 1, "--out", name, *more))
        after = load(name, "cpu").state_dict()
        changed = {key for key in before if key.startswith("vit_model.") and not torch.equal(before[key], after[key])}
        assert len(changed) > 20 if more else not changed


# ---- the plan: counted before anything is loaded ---------------------------------------------------------------------

BAGEL_7B = {"llm_config.json": dict(vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
                                    num_attention_heads=28, num_key_value_heads=4, rope_theta=1e6, rms_norm_eps=1e-6),
            "vit_config.json": dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27,
                                    num_attention_heads=16, patch_size=14, image_size=980)}


@pytest.fixture(scope="module")
def seven_billion(tmp_path_factory):
    """BAGEL's folder before its weights have arrived, and a character whose pictures are as large as the paper's."""
    home = tmp_path_factory.mktemp("seven")
    for name, content in BAGEL_7B.items():
        (home / name).write_text(json.dumps(content))
    for i in range(6):
        picture(i, (8, 8)).resize((1024, 1024)).save(stranger(home / "pip") / f"{i}.png")
    return home


def planned(script, *line):
    """The Plan of a command line."""
    found, show = [], plan.show
    with pytest.MonkeyPatch.context() as m:
        m.setattr(plan, "show", lambda p, options: (found.append(p), show(p, options)))
        plan.main([script.__name__, *map(str, line)])
    return found[0]


def kept_bytes(model, work) -> int:
    """What a forward pass keeps for the backward pass, weights apart."""
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage()     # held, so that no address is used twice
        return x
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        work()
    return sum(x.nbytes() for address, x in kept.items() if address not in own)


PLANS = pytest.mark.parametrize("more", [["--precision", "bf16"], ["--checkpointing", "--precision", "fp32"],
                                         ["--lora", "4", "--weights", "int8", "--checkpointing", "--precision", "bf16"]])


@PLANS
def test_a_planned_training_step_is_a_real_one(workshop, here, more):
    line = ["--char", str(workshop / "pip"), "--model", str(workshop / "base"), "--device", "cpu", "--micro-batch", "4",
            "--mix", "t2i=2,reply=3,vqa=2,knowledge=1", "--drop-text", "0", *more]
    found, options = planned(sft, *line), cli.parse_options(sft.Options, "", line)
    model = sft.load_base(options).train()
    trained = sft.trainable_parameters(model, options, lambda name: sft.learns_in_sft(name, options, model.config))
    everything = sum(v.numel() for name, v in model.state_dict().items() if not name.endswith("scale"))
    assert (found.trained, found.frozen) == (sum(p.numel() for p in trained.values()), everything - found.trained)
    by_task = {}
    for sample in training_samples(load_character(options.char)):
        by_task.setdefault(sample.task, []).append(model.prepare(sample))
    batches = [sft.next_batch(by_task, sft.parse_mix(options.mix, set(by_task)), 0, step, 0) for step in range(3)]
    with counting.flop_counter() as counter:
        for batch in batches:
            sft.accumulate(model, batch, options, sft.Means(0))
    assert found.step == pytest.approx(counter.get_total_flops() / 3, rel=0.05)
    parts = [[e for _, e, _ in part] for batch in batches for part in batching.micro_batches(batch, 4)]

    def forward(part):
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            losses = model(part, seeds=range(len(part)))
        return losses.ce.sum() + losses.mse.sum()

    def most_bytes(part):
        with counting.LiveBytes() as live:
            forward(part).backward()
        return live.peak
    update = found.update[options.checkpointing]
    assert update.saved == pytest.approx(max(kept_bytes(model, lambda: forward(part)) for part in parts), rel=0.15)
    assert update.peak == pytest.approx(max(most_bytes(part) for part in parts), rel=0.15)
    optimizer = sft.make_optimizer(trained, options)
    for p in trained.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moments = sum(x.nbytes for state in optimizer.state.values() for x in state.values() if x.ndim)
    assert found.resting["optimizer"] == pytest.approx(moments, abs=4 * len(trained))     # Adam's steps are scalars


@PLANS
def test_a_planned_iteration_is_a_real_one(workshop, here, more):
    """Rollout and update; the judges are another matter."""
    line = ["--char", str(workshop / "pip"), "--model", str(workshop / "base"), "--device", "cpu", "--prompts", "2",
            "--group", "4", "--steps", "4", "--window", "2", "--window-end", "4", "--micro-batch", "2", *more]
    line += ["--guidance", "2"] * ("--checkpointing" in more)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(plan, "judge_cost", lambda *_: (counting.Cost(0, 0, 0), 1))
        found, without_others = planned(grpo, *line), planned(grpo, *line, "--others", 0)
    options = cli.parse_options(grpo.Options, "", line)
    model = load(options.model, "cpu", options.weights)
    params = sft.trainable_parameters(model, options, grpo.is_generation_weight)
    assert found.trained == sum(p.numel() for p in params.values())
    optimizer = torch.optim.SGD(params.values(), lr=0.0)
    texts = [prompt.text for prompt in load_character(options.char).prompts[:2]]
    with counting.flop_counter() as counter:
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            groups = grpo.rollout(model, texts, options, 1, dice(1, 2))
        grpo.update(model, groups, torch.ones(2, 4), torch.ones(2, dtype=bool), options, optimizer, sft.Means(0))
    assert found.step == pytest.approx(counter.get_total_flops(), rel=0.05)
    judge = SimpleNamespace(likeness=lambda images: torch.zeros(len(images)))
    with counting.flop_counter() as counter:
        grpo.with_ceilings(model, judge, load_character(options.char).prompts, options)
    assert found.reports - without_others.reports == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_the_plan_of_the_papers_run(seven_billion, here):
    """Its own settings, for which it reports about 100 GPU-hours; and ours on one H100, within ten."""
    start = ["--char", seven_billion / "pip", "--model", seven_billion, "--checkpointing", "--micro-batch", "1"]
    paper = planned(grpo, *start, "--gpus", 8, "--prompts", 48, "--iterations", 101, "--steps", 14, "--guidance", 4,
                    "--window-end", 7, "--vqa-batch", 8)
    assert paper.trained == 6_525_628_928 + 257 * 3584 + 3584 * 3585 + 65 * 3584 + 64 * 3585      # gen, image head
    assert paper.trained + paper.frozen == 14_607_260_128 + 83_819_683
    assert 100 / 1.5 <= paper.hours("H100", "bf16") <= 100 * 1.5
    ours = [*start, "--lora", 64]
    first = planned(sft, *ours, "--image-size", 1024, "--mix", "t2i=1,reply=1")
    second = planned(grpo, *ours, "--image-size", 512, "--prompts", 4, "--iterations", 200, "--vqa-batch",
                     32)
    assert first.hours("H100", "bf16") + second.hours("H100", "bf16") <= 10
    assert max(first.peak, second.peak) < 80 * 2**30


@pytest.mark.parametrize("line, words", [
    ("sft --gpus 0", "--gpus 0"), ("grpo --gpus 0", "--prompts 10"), ("grpo --gpus 3", "--prompts 10"),
    ("sft --backbone x", "--backbone x"), ("grpo --vqa-batch 0", "--vqa-batch 0"), ("sft --mix t2i=0", "--mix t2i=0"),
    ("sft --image-size 40", "multiples of 16"), ("sft --weights int4", "int4"),
    ("sft --weights int8", "eight bits cannot learn"), ("grpo --model no/where", "no/where")])
def test_what_cannot_be_planned_is_one_line(seven_billion, here, capsys, line, words):
    name, *more = line.split()
    start = ["--char", seven_billion / "pip", "--model", seven_billion]
    assert words in mistake(capsys, plan.main, name, *start, *more)


@pytest.mark.parametrize("line", ["", "--char coco", "eval --char coco"])
def test_a_plan_is_of_a_stage(capsys, line):
    assert "python -m runtime.plan sft" in mistake(capsys, plan.main, *line.split())


# ---- the rehearsal of the paper's size -------------------------------------------------------------------------------

def test_a_rehearsal_leaves_half_a_download_alone(here, capsys):
    (here / "bagel").mkdir()
    (here / "bagel/ema.safetensors").write_bytes(b"29 GB")
    (here / "bagel/llm_config.json").write_text(json.dumps(BAGEL_7B["llm_config.json"]))
    (here / "bagel/vit_config.json").write_text(json.dumps(BAGEL_7B["vit_config.json"]))
    qwen_tokenizer(here / "bagel")
    assert "finish the download" in mistake(capsys, rehearse.main, "--folder", "bagel", "--layers", 0)
    assert (here / "bagel/ema.safetensors").read_bytes() == b"29 GB"


def test_a_rehearsal_writes_plans_and_makes_every_step(here, networks, monkeypatch, capsys):
    """At a tiny size, in this process. What it wrote is gone afterwards; what was there before is not."""
    monkeypatch.setattr(rehearse, "apart", lambda function, *arguments: function(*arguments))
    qwen_tokenizer(here / "big")
    llm = BAGEL_7B["llm_config.json"] | dict(vocab_size=400, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                                             num_attention_heads=4, num_key_value_heads=2)
    vit = BAGEL_7B["vit_config.json"] | dict(hidden_size=48, intermediate_size=64, num_hidden_layers=3,
                                             num_attention_heads=2, image_size=56)
    (here / "big/llm_config.json").write_text(json.dumps(llm))
    (here / "big/vit_config.json").write_text(json.dumps(vit))
    (here / "big/ae.safetensors").write_bytes(b"")                            # what a kill left
    judges = [f"--{key.replace('_', '-')} {value}" for key, value in named(networks).items() if key != "base"]
    line = ["--folder", "big", "--char", str(stranger(here / "pip")), "--device", "cpu"]
    rehearse.main([*line, "--grpo", f"{rehearse.Options.grpo} {' '.join(judges)}"])
    told = capsys.readouterr().out
    for step in ("optimizer step", "denoising step", "reply token", "rollout", "rewards", "update"):
        assert re.search(rf"^{step}: [0-9.]+ s", told, re.M), step
    peaks = re.findall(r"^stage (\d), peak memory +([0-9.]+) GB +([0-9.]+) GB +([0-9.]+) ", told, re.M)
    assert [stage for stage, *_ in peaks] == ["1", "2"]
    for _, measured, planned, ratio in peaks:
        assert float(measured) / float(planned) == pytest.approx(float(ratio), rel=0.05) and float(planned) > 0.3
    assert not list((here / "big").glob("*.safetensors*")) and (here / "big/llm_config.json").exists()
    after = load_file(here / "big/stage-1/adapter_model.safetensors")
    assert any(value.any() for name, value in after.items() if "lora_B" in name)
    assert "--layers 3: big has 2" in mistake(capsys, rehearse.main, *line, "--layers", 3)


def test_random_weights_are_published_under_all_names(here):
    """Names, shapes and half precision of the published folder; no file much larger than asked for."""
    c = Config(**{**SMALL, "vocab_size": 4200, **PUBLISHED_SIZES})
    rehearse.write_description(here, c)
    rehearse.write_weights(here, c, least=100_000)
    index = json.loads((here / "model.safetensors.index.json").read_text())["weight_map"]
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in UniModel(c).state_dict().items()}
    main = {name for name in shapes if not name.startswith("vae.")}
    assert index.keys() == main and len(set(index.values())) > 3
    assert {f"vae.{name}" for name in load_file(here / "ae.safetensors")} == shapes.keys() - main
    largest = max(2 * value.numel() for value in shapes.values())
    assert max(file.stat().st_size for file in here.glob("model-*")) < 100_000 + largest + 10_000
    model = load(here, "cpu", image_size=32)
    assert model.config == replace(c, image_size=32)
    assert torch.isfinite(outputs(model)).all() and outputs(model).abs().max() < 1000


# ---- several processes -----------------------------------------------------------------------------------------------

def several(processes: int, name: str, *line, cwd: Path):
    """A script under torchrun: processes on the CPU, with gloo, one thread each. One process needs no torchrun."""
    cwd.mkdir(exist_ok=True)
    if processes == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        os.chdir(cwd)                                       # `here` goes back
        SCRIPTS[name].main([*map(str, line)])
        return torch.set_num_threads(threads)
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                           str(processes), str(HERE / f"{name}.py"), *map(str, line)], cwd=cwd, capture_output=True,
                          text=True, env=dict(os.environ, OMP_NUM_THREADS="1"))
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


def alike(a: Path, b: Path, file: str, bound: float, logged: float, last: int | None = None):
    """Logs, up to the row `last`, and weights of two runs agree."""
    for x, y in zip(rows(a)[1:last], rows(b)[1:last], strict=True):
        assert x.keys() == y.keys()
        apart = {k: (x[k], y[k]) for k in x if abs(x[k] - y[k]) > logged * max(1, abs(x[k]))}
        assert not apart
    one, two = load_file(a / file), load_file(b / file)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=bound, rtol=0, msg=name)


@pytest.mark.parametrize("more, micro_batch, file, bound", [
    (["--precision", "fp32"], 2, "model.safetensors", 2e-5),
    (["--lora", "4", "--weights", "int8", "--precision", "bf16"], 1, "adapter_model.safetensors", 2e-3)])
def test_two_processes_are_one(workshop, networks, here, more, micro_batch, file, bound):
    """The same global batch on one process and, by FSDP2, on two: losses, advantages and updates of both stages.

    In bf16 the gradient of a backward pass is rounded once, so there Samples are taken one by one: processes pair them
    otherwise than one does, and gradient norms would differ in their fourth digit.

    The judges see 8 bits: after an update that differs in the order of sums, one of 3,072 values now and then falls to
    the other side (seen: 7e-5 in a reward). So each iteration begins from the same weights, from which a group is drawn
    alike to the bit, and the report at the end, drawn after the update, is left to the weights' own bound."""
    sides = (1, here / "one"), (2, here / "two")           # number of processes, folder
    # Adam makes a whole step of the smallest gradient. With seed 0 one weight of 8,192 has a gradient whose sign is that
    # of a rounding error, and ends 7.5e-5 apart; with this seed none has.
    line = [*sft_line(workshop, "--micro-batch", micro_batch, *more), "--steps", "3", "--seed", "1", "--out", "sft"]
    for number, cwd in sides:
        several(number, "sft", *line, cwd=cwd)
    alike(here / "one/sft", here / "two/sft", file, bound, 1e-5)
    judges = [word for k, v in named(networks).items() if k != "base" for word in ("--" + k.replace("_", "-"), v)]
    line = [*grpo_line(workshop, "--model", here / "one/sft", "--out", "grpo", *more[:2]), *judges]
    for iterations in (1, 2):
        for number, cwd in sides:
            several(number, "grpo", *line, "--iterations", iterations, cwd=cwd)
        alike(here / "one/grpo", here / "two/grpo", file, bound, 1e-5, last=-1)
        shutil.rmtree(here / "two/grpo")
        shutil.copytree(here / "one/grpo", here / "two/grpo")


def test_bench_measures_all_three(workshop, capsys):
    bench.main(["--model", str(workshop / "base"), "--sizes", "tiny", "--repeats", "1", "--batch", "3", "--char",
                str(workshop / "pip")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:4]] == ["training", "denoising", "reply"]
    assert all(0 < float(line.split()[-2]) < 100 for line in lines[1:4])                       # share of the machine
    for line in lines[4:]:                                  # the same weights and texts as transformers', so the same loss
        ours, theirs = re.search(r"cross-entropy (\S+) and (\S+)", line).groups()
        assert "theirs / ours" in line and float(ours) == pytest.approx(float(theirs), abs=0.01)
    assert len(lines) == 6
    assert "give tiny, mid or both" in mistake(capsys, bench.main, "--sizes", "big")


def test_a_talk_with_a_real_model(workshop, here, monkeypatch, capsys):
    """Every call that the stand-in of the tests above answers, answered by a UniModel."""
    save(load(workshop / "base", "cpu"), "runs/pip/sft", {"char": str(workshop / "pip")})
    typed = iter(["I like tea.", "/draw A cat.", "/show seen.png Who is it?", "/think", "I like tea.", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(typed))
    picture(1).save("seen.png")
    chat.main(["--steps", "2", "--max-tokens", "12", "--temperature", "0"])
    seen = kept_turns()[2]
    answers = [turn["answers"]["sft"] for turn in kept_turns()]
    assert "Pip, from runs/pip/sft" in capsys.readouterr().out and answers[0]["text"] and answers[2]["text"]
    assert "plan" in answers[3] and "plan" not in answers[0]
    pictures = [Image.open(file) for file in (answers[0]["picture"], answers[1]["picture"], seen["shown"])]
    assert all(image.size == (32, 32) for image in pictures)
    chat.main(["--once", "I like tea.", "--steps", "2", "--max-tokens", "12", "--temperature", "0", "--out", "a.png"])
    assert capsys.readouterr().out == f"{answers[0]['text'].strip()}\na.png\n"
    assert apart(Image.open("a.png"), pictures[0]) == 0


def eval_line(networks, *more) -> list[str]:
    line = [x for field, folder in named(networks).items() for x in ("--" + field.replace("_", "-"), folder)]
    return [*line, "--device", "cpu", *map(str, more)]


def strict(file: str) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")
    return json.loads(Path(file).read_text(), parse_constant=refuse)


def test_eval_compares_the_stages_that_exist(workshop, networks, base, here, capsys):
    save(base, "runs/pip/sft", {"char": str(workshop / "pip")})
    evaluation.main(eval_line(networks, "--steps", 2, "--seeds", 2, "--batch", 4, "--images-per-prompt", 2,
                              "--leak-prompts", 2))                         # no --char: that of the newest run
    said = capsys.readouterr()
    assert "SFT + GRPO: nothing in" in said.err and "base + profile" in said.out and "chance 33" in said.out
    result = strict("runs/pip/eval/eval.json")
    assert list(result["stages"]) == ["base", "base + profile", "SFT"]
    figures, first = (result["stages"][name]["figures"] for name in ("SFT", "base"))
    judged = {key for key in report.METRICS if key.startswith("judge")}     # nobody was asked to judge
    assert {key for key, value in figures.items() if value} >= set(report.METRICS) - judged - {
        "vqa_seen", "gap", "diversity_alike",                           # no picture of random weights is alike
        "facts_said", "facts_helped", "identity_vqa", "recognized", "word_leakage_free"}      # which this character has no test of
    # the same weights and the same bare prompts: the same pictures, so every figure of pictures agrees
    for key in ("clip_t", "drawn_vqa", "reader", "likeness", "diversity", "copies", "sharpness", "grid", "knowledge",
                "vqa", "likeness_others", "open_book"):
        assert figures[key] == first[key], key
    assert figures["leakage"]["mean"] == figures["leakage_max"]["mean"] == first["leakage"]["mean"] == 0
    assert figures["vqa_seen"] is None and figures["clip_t"]["over"] == "prompts" and figures["knowledge"]["n"] == 3
    assert "clip_t" in result["stages"]["SFT"]["figures without guidance"] and result["class word"] == "a small cat"
    assert "leakage" not in result["stages"]["base + profile"]["figures"] and result["real"]["likeness"]["n"] == 3
    assert len(result["subjects"]) == 8 and not any("cat" in subject for subject in result["subjects"])
    assert result["differences"]["SFT - base"]["clip_t"]["mean"] == 0
    assert len(result["stages"]["SFT"]["values"]["clip_t"]) == 3
    one, two = Path("runs/pip/eval/table.md").read_text().split("\n\n")
    for rows in (one.splitlines(), two.splitlines()):
        assert len(rows) > 10 and len({row.count("|") for row in rows}) == 1
    assert "leakage: others above base" in one and "SFT - base" in two
    with Image.open("runs/pip/eval/contact.png") as page:
        assert page.size == (150 + 3 * 64, 22 + 3 * 64)
    with Image.open("runs/pip/eval/every.png") as page:                 # two seeds
        assert page.size == (150 + 6 * 64, 22 + 3 * 64)
    with Image.open("runs/pip/eval/others.png") as page:                # two stages, two prompts; eight and the kind
        assert page.size == (150 + 4 * 64, 22 + 9 * 64)
    with Image.open("runs/pip/eval/talk.png") as page:                  # two stages in two ways, two held-out scenes
        assert page.size == (150 + 4 * 64, 22 + 2 * 64)


def picture_requests(file: str) -> dict[str, tuple[str, str]]:
    """Column/rubric/number of the requests with pictures in a dumped file: what stands in the fence, and the last picture."""
    found = {}
    for row in map(json.loads, Path(file).read_text().splitlines()):
        content = row["messages"][0]["content"]
        if not isinstance(content, str):
            fence = re.search("^=+\n(.*)\n=+$", content[0]["text"], re.DOTALL | re.MULTILINE)
            found[row["id"].rpartition("/")[0]] = (fence and fence[1], content[-1]["image_url"]["url"])
    return found


def test_a_judge_is_asked_whether_a_picture_fits_the_talk_it_was_drawn_with(workshop, networks, base, here, monkeypatch):
    monkeypatch.setattr(evaluation, "names_in", lambda sentence, name: True)            # whatever it writes is drawn
    save(base, "runs/pip/sft", {"char": str(workshop / "pip")})
    evaluation.main(eval_line(networks, *SMALL_EVAL.split(), "--dump-prompts", "ask.jsonl"))
    asked = picture_requests("ask.jsonl")
    talks = [f"User: Hello {i}\nAssistant: I am Pip, friend number {i}!" for i in (3, 4)]
    scenes = load_character(workshop / "pip").test["scenes"]
    true = [endpoint.data_url(as_drawn(scene["image"], base.config)) for scene in scenes]

    def drawn(sheet: str, row: int, column: int) -> str:
        left, top = 150 + 64 * column, 22 + 64 * row
        with Image.open(f"runs/pip/eval/{sheet}") as page:
            return endpoint.data_url(page.crop((left, top, left + 64, top + 64)))
    for i in range(2):
        for stage, (talk, sentence) in {"base": (0, 1), "SFT": (2, 3)}.items():
            assert asked[f"{stage}/fits/{i}"] == (talks[i], drawn("talk.png", i, sentence))
            assert drawn("talk.png", i, talk) != drawn("talk.png", i, sentence)         # or this would show nothing
        assert asked[f"true replies/fits/{i}"] == (talks[i], true[i])
        assert asked[f"another's replies/fits/{i}"] == (talks[1 - i], true[i])
        assert asked[f"true replies/shows/{i}"] == (None, true[i])
        for column, stage in enumerate(("base", "base + profile", "SFT")):
            assert asked[f"{stage}/shows/{i}"] == (None, drawn("contact.png", i, column))
    assert sum("/fits/" in name for name in asked) == 8


def test_scores_are_read_without_a_second_evaluation(workshop, networks, here, serve, capsys, monkeypatch):
    server = serve(lambda body: json.dumps({"reasons": "so", "score": 1 + zlib.crc32(asked_of(body).encode()) % 7}))
    line = eval_line(networks, "--char", workshop / "pip", "--sft", "none", "--grpo", "none", *SMALL_EVAL.split())
    evaluation.main([*line, "--judge", server.url])
    out = here / "runs" / "pip" / "eval"
    first, table = strict(out / "eval.json"), (out / "table.md").read_text()
    assert {name.split("/")[1] for name in first["judge"]["asked"]} == evaluation.RUBRICS.keys()
    for name, stage in first["stages"].items():
        assert stage["figures"]["judge_factual"] == first["judge"]["figures"][name]["judge_factual"]
    assert table.count("| judge, 1 to 7 |") == 1 and table.count("| judge: ") == 5
    capsys.readouterr()
    monkeypatch.setattr(evaluation, "load", None)           # nothing is measured
    evaluation.main([*line, "--read-scores", str(out / "scores.jsonl")])
    again = strict(out / "eval.json")
    assert again["stages"] == first["stages"] and (out / "table.md").read_text() == table
    assert again["judge"]["scores"] == first["judge"]["scores"] and again["judge"]["asked"] == first["judge"]["asked"]
    (out / "eval.json").write_text(json.dumps(first | {"judge": {}}))
    assert "holds no requests" in mistake(capsys, evaluation.main, *line, "--read-scores", out / "scores.jsonl")


def test_eval_without_any_test_set(networks, here, capsys):
    evaluation.main(eval_line(networks, "--char", stranger(here / "bare", bare=True), "--quick"))
    result = strict("runs/bare/eval/eval.json")
    figures = result["stages"]["base"]["figures"]
    assert {key for key, value in figures.items() if value} - {"word_leakage_free"} == {"open_book"}
    assert "written to" in capsys.readouterr().out and not Path("runs/bare/eval/contact.png").exists()


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published dataset is not here")
def test_eval_of_a_published_character(networks, here):
    mam = PUBLISHED / "train" / "Mam"
    evaluation.main(eval_line(networks, "--char", mam, "--quick", "--no-unguided", "--out", "out"))
    stage = strict("out/eval.json")["stages"]["base"]
    assert stage["figures"]["vqa"] is None and "figures without guidance" not in stage
    assert all(stage["figures"][key] for key in ("vqa_seen", "knowledge", "likeness", "drawn_vqa"))


@pytest.mark.parametrize("name, line, words", [
    ("data", "--char", "--char"),
    ("data", "--chr coco", "--chr"),
    ("data", "--char " + "x" * 5000, "no such character"),
    ("data", "--char .", "character.json: is missing"),
    ("sft", "--wiggle 1", "wiggle"),
    ("sft", "--steps many", "steps"),
    ("sft", "--char {pip} --model {base} --mix t2i=x", "--mix"),
    ("sft", "--char {pip} --model {base} --mix dance=1", "dance"),
    ("sft", "--char {pip} --model no/where", "no/where"),
    ("sft", "--char {pip} --model {base} --steps 0", "--steps 0"),
    ("sft", "--char {pip} --model {base} --warmup -1", "--warmup -1"),
    ("sft", "--char {pip} --model {base} --lr -1", "--lr -1.0: must be 0 or more"),
    ("sft", "--char {pip} --model {base} --lr nan", "--lr nan"),
    ("sft", "--char {pip} --model {base} --smoothing 2", "--smoothing 2.0: must be from 0 to 1"),
    ("sft", "--char {pip} --model {base} --lora -3", "--lora -3"),
    ("sft", "--char {pip} --model {base} --mix t2i=0", "--mix t2i=0: leaves nothing to learn; there are examples of"),
    ("grpo", "--char {pip} --model {base} --clip-range -1", "--clip-range -1.0"),
    ("grpo", "--char {pip} --model {base} --updates 0", "--updates 0"),
    ("sft", "--char {pip} --model {base} --device tpu", "tpu"),
    ("sft", "--char {pip} --model {base} --precision bf-16", "choose auto, bf16 or fp32"),
    ("sft", "--char {pip} --model {base} --out {base}", "give another folder"),
    ("grpo", "--char {pip} --model {base} --guidance 0", "--guidance 0"),
    ("grpo", "--char {pip} --model {base} --noise 0", "--noise 0"),
    ("eval", "--char {pip} --read-scores no/where", "--read-scores no/where"),
    ("eval", "--char {pip} --read-scores {pip}/character.json --judge x", "leave out --judge"),
    ("eval", "--char {pip} --read-scores {pip}/character.json", "eval.json: holds no requests"),
    ("eval", "--char {pip} --judge x --judge-price cheap", "price cheap"),
    ("eval", "--char {pip} --judge x --judge-at-once 0", "--judge-at-once 0"),
    ("eval", "--char {pip} --dump-prompts no/where/x.jsonl", "no folder no/where"),
    ("eval", "--char {pip} --judge http://127.0.0.1:9/v1", "lists no models"),
    ("grpo", "--char {pip}", "first run: python sft.py --char {pip}"),
    ("grpo", "--char {pip} --model no/where", "no/where"),
    ("grpo", "--char {pip} --model {base} --window 9", "--window 9"),
    ("grpo", "--char {pip} --model {base} --ema 1", "--ema 1.0"),
    ("eval", "", "no run yet"),
    ("eval", "--seeds 0", "--seeds 0"),
    ("eval", "--char {pip} --base no/where", "no/where"),
    ("eval", "--sft {base}", "give --char"),
    ("chat", "--wiggle", "--wiggle"),
    ("chat", "--model no/where --once x", "no/where")])
def test_mistakes_are_one_line(workshop, here, capsys, name, line, words):
    places = {"pip": workshop / "pip", "base": workshop / "base"}
    assert words.format(**places) in mistake(capsys, SCRIPTS[name].main, *line.format(**places).split())


def test_help_explains_every_option(capsys):
    """With the comment that stands behind it in the source: no option of any script is without one."""
    for module in SCRIPTS.values():
        comments = cli.comments_of(module.Options)
        assert all(comments[field.name] for field in fields(module.Options)), module.__name__
    with pytest.raises(SystemExit):
        grpo.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "at 2, pictures" in shown.lower() and "(default: 1.3)" in shown


def test_every_script_ends_a_mistake_with_exit_code_2(tmp_path):
    started = {name: script(name, "--char", "nobody", cwd=tmp_path) for name in SCRIPTS}
    for name, process in started.items():
        out, errors = process.communicate(timeout=120)
        assert "--char nobody: no such character, folder or card; known are: coco" in only_line(process.returncode, errors)
        assert out == "", name


# ---- asking a language model -----------------------------------------------------------------------------------------

class ScriptedServer:
    """An OpenAI-compatible server. `answer(body)` says what the model says, or is itself (status, headers, bytes).
    `faults` come before it: for each question in turn what goes wrong with its first replies."""
    def __init__(self, answer, faults=(), forms=3):
        self.answer, self.faults, self.forms = answer, list(faults), forms
        self.bodies, self.headers, self.paid, self.seen = [], [], [], {}
        self.lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *given):
                pass

            def do_GET(self):
                self.out(200, {}, json.dumps({"data": [{"id": "first-model"}]}).encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.headers.append(self.headers)
                    status, headers, raw = server.reply(body)
                self.out(status, headers, raw)

            def out(self, status, headers, raw):
                try:
                    pause, short = headers.pop("pause", 0), headers.pop("short", 0)
                    time.sleep(pause)
                    self.send_response(status)
                    for name, value in ({"Content-Length": str(len(raw) + short)} | headers).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(raw)
                except OSError:                     # the client did not wait
                    pass
        ThreadingHTTPServer.request_queue_size = 64
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def reply(self, body: dict) -> tuple[int, dict, bytes]:
        self.bodies.append(body)
        wanted = body.get("response_format", {}).get("type", "text")
        if endpoint.FORMS.index(wanted) < 3 - self.forms:
            return 400, {}, b'{"error": {"message": "response_format is not supported"}}'
        question = asked_of(body).partition("\n\nAn earlier answer")[0]
        if question not in self.seen:
            self.seen[question] = self.faults.pop(0) if self.faults else []
        fault = self.seen[question].pop(0) if self.seen[question] else ""
        said, more = self.answer(body), {}
        if isinstance(said, tuple):
            return said
        broken = {"500": (500, {}, b"oops"), "429": (429, {"Retry-After": "0"}, b"slow down"),
                  "429 later": (429, {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)}, b"later"),
                  "no json": (200, {}, b"<html>"), "error in 200": (200, {}, b'{"error": {"message": "overloaded"}}'),
                  "cut off": (200, {"short": 50}, b'{"choices": [{"mess')}
        if fault in broken:
            return broken[fault]
        said = {"half": said[:len(said) // 2], "bad json": said.replace('":', '";'), "none": "I would rather not.",
                "thinking": f"<think>{{\"score\": 1}} or so?</think>\n{said}", "no end": f"<think>{said}",
                "fenced": f"Here it is:\n```json\n{said}\n```\nIs that all right?", "empty": "",
                "several": f'{{"score": 1, "reasons": "of another"}}\nNo, rather:\n{said}',
                "out of range": re.sub(r'"score": \d', '"score": 9', said),
                "a word": re.sub(r'"score": (\d)', r'"score": "\1"', said)}.get(fault, said)
        if fault == "length":
            said, more = said[:-5], {"finish_reason": "length"}
        choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"} | more
        row = {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
        self.paid.append(json.dumps(body))
        return 200, {"pause": 1.5} if fault == "slow" else {}, json.dumps(row).encode()


def asked_of(body: dict) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


@pytest.fixture
def serve(monkeypatch):
    """Starts scripted servers, and ends them."""
    started = []
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")

    def start(*given, **more) -> ScriptedServer:
        started.append(ScriptedServer(*given, **more))
        return started[-1]
    yield start
    for server in started:
        server.http.shutdown()
        server.http.server_close()


SCORE = endpoint.object_of(reasons=endpoint.text(), score=endpoint.integer(1, 7))


def scored(body: dict) -> str:
    """The score that the question names, as a judge who agrees with it would say it."""
    return json.dumps({"reasons": "as I see it {so}", "score": int(re.search(r"worth (\d)", asked_of(body))[1])})


def judge_at(server, **more) -> Endpoint:
    return Endpoint.from_name(server.url, **{"pause": 0.01, "timeout": 0.5} | more)


FAULTS = ("500", "429", "no json", "error in 200", "cut off", "half", "bad json", "none", "no end", "empty", "length",
          "out of range", "a word", "slow", "thinking", "fenced", "several")


def test_known_answers_come_through_every_fault_and_are_paid_once(serve, tmp_path):
    server = serve(scored, [[fault] for fault in FAULTS])
    questions = [{"messages": f"Number {i} is worth {i % 7 + 1}.", "schema": SCORE} for i in range(len(FAULTS))]
    judge = judge_at(server, cache=tmp_path / "answers.jsonl", model="m", price="1/10")
    answers = judge.ask_all(questions, "judging")
    assert [answer["score"] for answer in answers] == [i % 7 + 1 for i in range(len(FAULTS))]
    assert judge.usage.missing == 0 and judge.usage.requests == len(server.bodies) == 2 * len(FAULTS) - 3
    received = judge.usage.tokens_out // 10
    assert received == len(server.paid) - 1                             # but for the one that was too slow
    assert f"$ {received * 200 / 1e6:.4f}" in str(judge.usage)
    before, again = len(server.bodies), judge_at(server, cache=tmp_path / "answers.jsonl", model="m")
    assert again.ask_all(questions, "judging") == answers
    assert len(server.bodies) == before and again.usage.tokens_out == 0 and again.usage.cached >= len(FAULTS)
    assert all(headers["Authorization"] == "Bearer sk-very-secret" for headers in server.headers)
    assert "sk-very" not in (tmp_path / "answers.jsonl").read_text()


def test_four_attempts_and_no_guess(serve, tmp_path):
    kinds = "500", "out of range", "bad json", "429"
    server = serve(scored, [[kind] * 4 for kind in kinds])
    judge = judge_at(server, cache=tmp_path / "answers.jsonl", model="m")
    for i, kind in enumerate(kinds):
        assert judge.ask(f"Number {i} is worth 4.", SCORE) is None
        assert len(server.bodies) == 4 * (i + 1)
    assert judge.usage.missing == 4 and sum(judge.problems.values()) == 4
    assert any("from 1 to 7" in why for why in judge.problems) and any("HTTP 500" in why for why in judge.problems)
    again = judge_at(server, cache=tmp_path / "answers.jsonl", model="m")
    assert again.ask("Number 1 is worth 4.", SCORE) is None and len(server.bodies) == 16        # paid for, so kept
    assert again.ask("Number 1 is worth 4.", SCORE, sample=1)["score"] == 4         # another try is another sample


def test_a_server_says_when_to_come_back(serve):
    server = serve(scored, [["429 later"]])
    began = time.monotonic()
    assert judge_at(server, model="m").ask("worth 3", SCORE)["score"] == 3
    assert 0.9 < time.monotonic() - began < 5


@pytest.mark.parametrize("forms", [3, 2, 1])
def test_the_object_is_asked_for_in_the_form_that_the_server_takes(serve, forms):
    server = serve(scored, forms=forms)
    judge = judge_at(server)
    assert judge.name == "first-model"
    assert judge.ask("worth 3", SCORE)["score"] == 3 and judge.ask("worth 4", SCORE)["score"] == 4
    kinds = [body.get("response_format", {}).get("type", "text") for body in server.bodies]
    assert kinds == [*endpoint.FORMS[:4 - forms], endpoint.FORMS[3 - forms]]        # learned once
    assert all("JSON schema" in asked_of(body) and "reasons" in asked_of(body) for body in server.bodies)


def test_what_a_server_refuses_is_left_out_or_renamed(serve):
    def newer(body):
        for name in ("max_tokens", "temperature"):
            if name in body:
                return 400, {}, json.dumps({"error": {"message": f"Unsupported parameter: '{name}'"}}).encode()
        return scored(body)
    server = serve(newer)
    assert judge_at(server, max_tokens=77).ask("worth 2", SCORE)["score"] == 2
    assert server.bodies[-1]["max_completion_tokens"] == 77 and "response_format" in server.bodies[-1]


def test_pictures_are_sent_as_they_are(serve):
    server = serve(scored)
    assert judge_at(server).ask("worth 2", SCORE, images=[smooth(0), smooth(1)])["score"] == 2
    *shown, words = server.bodies[0]["messages"][0]["content"]
    for part, true in zip(shown, (smooth(0), smooth(1)), strict=True):
        head, _, data = part["image_url"]["url"].partition(",")
        there = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), int)
        assert head == "data:image/jpeg;base64" and np.abs(there - np.asarray(true, int)).mean() < 5
    assert words["text"].startswith("worth 2")


@pytest.mark.parametrize("status", [401, 403, 404, 301])
def test_a_server_that_will_never_answer_is_one_line_without_the_key(serve, status):
    elsewhere = serve(scored)
    server = serve(lambda body: (status, {"Location": elsewhere.url}, b"bad key sk-very-secret, says the server"))
    with pytest.raises(UserError) as error:
        judge_at(server, model="m").ask_all([{"messages": f"worth {i}", "schema": SCORE} for i in (1, 2)], "judging")
    said = str(error.value)
    assert str(status) in said and "OPENAI_API_KEY" in said and "sk-very" not in said
    assert not elsewhere.bodies


def test_short_keys_are_words_and_odd_counts_are_no_answer(monkeypatch):
    for key, heard in (("none", "none of it"), ("sk-very-secret", "*** of it")):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        server = Endpoint.from_name("http://127.0.0.1:9/v1", "m")
        assert server.without_key(f"{key} of it") == heard
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very\nsecret")               # http.client would quote it in its error
    with pytest.raises(UserError, match="one line of plain characters") as error:
        Endpoint.from_name("http://127.0.0.1:9/v1", "m")
    assert "sk-very" not in str(error.value)
    with pytest.raises(endpoint.Unanswered, match="no answer in it"):
        endpoint.answer_of({"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": math.inf}})


@pytest.mark.parametrize("name, words", [
    ("http://127.0.0.1:9/v1", "no server answers"), ("https://key@host/v1", "without any key"),
    ("/no/such/model", "neither an address nor")])
def test_endpoints_that_are_none_are_one_line(name, words):
    with pytest.raises(UserError, match=words):
        Endpoint.from_name(name, model="m", **({"pause": 0.01} if "://" in name else {})).ask("worth 1", SCORE)


def test_the_cache_outlives_a_torn_line(serve, tmp_path):
    server, cache = serve(scored), tmp_path / "answers.jsonl"
    judge_at(server, model="m", cache=cache).ask("worth 1", SCORE)
    cache.write_text(cache.read_text() + cache.read_text()[:40])
    judge_at(server, model="m", cache=cache).ask("worth 2", SCORE)
    judge = judge_at(server, model="m", cache=cache)
    assert [judge.ask(f"worth {i}", SCORE)["score"] for i in (1, 2)] == [1, 2] and len(server.bodies) == 2


def test_an_interrupt_keeps_what_is_under_way_and_asks_no_more(serve, tmp_path, monkeypatch):
    def interrupt(futures):
        next(futures_of(futures))
        raise KeyboardInterrupt
    futures_of = endpoint.as_completed
    monkeypatch.setattr(endpoint, "as_completed", interrupt)
    server = serve(lambda body: (time.sleep(0.05), scored(body))[1], [["none"] * 9] * 20)
    judge = judge_at(server, model="m", at_once=2, cache=tmp_path / "answers.jsonl")
    with pytest.raises(KeyboardInterrupt):
        judge.ask_all([{"messages": f"worth {i % 7 + 1}, {i}", "schema": SCORE} for i in range(20)], "judging")
    kept = (tmp_path / "answers.jsonl").read_text().count('"key"')
    assert 4 <= kept == len(server.paid) <= 10              # not 80: of the two under way, no further attempts


def test_the_same_question_at_once_is_paid_once(serve):
    server = serve(scored)
    answers = judge_at(server).ask_all([{"messages": "worth 5", "schema": SCORE}] * 8, "all")
    assert {row["score"] for row in answers} == {5}
    assert len(server.paid) == 1


@pytest.mark.parametrize("value, words", [
    ({"score": 5}, "lacks reasons"), ({"reasons": "x", "score": 5.0}, "not of the type"), ([], "not of the type"),
    ({"reasons": "x", "score": True}, "not of the type"), ({"reasons": " ", "score": 5}, "empty"),
    ({"reasons": "x", "score": 0}, "from 1 to 7"), ({"reasons": "x", "score": 5, "more": 1}, "")])
def test_complaints_are_in_words(value, words):
    found = endpoint.complaint(value, SCORE)
    assert (words in found) if words else not found


def test_a_local_chat_model_has_the_same_interface(tokenizer, tmp_path):
    torch.manual_seed(0)
    config = Qwen2Config(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, vocab_size=len(tokenizer))
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "chatty")
    known = AutoTokenizer.from_pretrained(HERE / "tiny" / "base")
    known.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    known.save_pretrained(tmp_path / "chatty")
    model = Endpoint.from_name(str(tmp_path / "chatty"), max_tokens=8, cache=tmp_path / "answers.jsonl")
    assert model.ask("worth 1", SCORE) is None and model.usage.requests == 4 and not model.sees      # random weights
    assert model.ask("worth 1", SCORE, images=[smooth(0)]) is None and "no pictures" in str(model.problems)
    again = Endpoint.from_name(str(tmp_path / "chatty"), max_tokens=8, cache=tmp_path / "answers.jsonl")
    assert again.ask("worth 1", SCORE) is None and again.usage.requests == 0 and again.usage.cached == 4


def test_a_local_model_that_sees_is_shown_the_pictures(tmp_path, monkeypatch):
    known = AutoTokenizer.from_pretrained(HERE / "tiny" / "base")
    known.add_special_tokens({"additional_special_tokens": ["<image>"]})
    vision = CLIPConfig(vision_config=dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, image_size=16,
                                           num_attention_heads=2, patch_size=8)).vision_config
    language = Qwen2Config(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                           num_key_value_heads=1, vocab_size=len(known))
    config = transformers.LlavaConfig(vision_config=vision, text_config=language, vision_feature_layer=-1,
                                      image_token_index=known.convert_tokens_to_ids("<image>"),
                                      vision_feature_select_strategy="default")
    transformers.LlavaForConditionalGeneration(config).save_pretrained(tmp_path)
    template = ("{% for m in messages %}{% for p in m.content %}{% if p.type == 'image' %}<image>"
                "{% else %}{{ m.role }}: {{ p.text }}{% endif %}{% endfor %}{% endfor %}")
    transformers.LlavaProcessor(CLIPImageProcessor(size=dict(height=16, width=16), crop_size=16), known, patch_size=8,
                                vision_feature_select_strategy="default", chat_template=template,
                                image_token="<image>", num_additional_image_tokens=1).save_pretrained(tmp_path)
    model, given = Endpoint.from_name(str(tmp_path), max_tokens=4), []
    generate = model.model.generate
    monkeypatch.setattr(model.model, "generate", lambda **more: given.append(more) or generate(**more))
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "worth 1"}]
    assert model.sees and model.ask(told, SCORE, images=[Image.new("RGB", (20, 30), "red")]) is None
    red, green, _ = given[0]["pixel_values"].mean((0, 2, 3))
    words = known.decode(given[0]["input_ids"][0])
    assert red > 1 and green < -1 and "system: Be brief." in words and "worth 1" in words and len(given) == 4


# ---- building a character --------------------------------------------------------------------------------------------

COLORS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 220), "yellow": (230, 220, 40),
          "white": (240, 240, 240), "black": (20, 20, 20), "orange": (240, 140, 20), "pink": (250, 150, 200)}


def made_up(*seeds) -> str:
    """A word that is like no other: two lines of them are never alike."""
    number, word = zlib.crc32(repr(seeds).encode()), ""
    for _ in range(6):
        number, at = divmod(number, 40)
        word += "bdfgklmn"[at % 8] + "aeiou"[at // 8]
    return word


def pictured(folder: Path) -> Path:
    """A stranger's folder: eight pictures, each of one color, and three sentences."""
    folder.mkdir()
    for i, (name, color) in enumerate(COLORS.items()):
        Image.blend(Image.new("RGB", (64, 64), color), smooth(i), 0.1).save(folder / f"{i}.png")
    (folder / "profile.md").write_text("# Mira\n\nMira is a small otter. She guards a mill and calls us all miller.")
    return folder


def mira(body: dict) -> str:
    """What a good writer says, with the faults of a real one: it repeats itself, contradicts itself, gives answers
    away, invents evidence, and once falls out of its role."""
    asked = asked_of(body)
    question, _, schema = asked.partition("\n\nEnd your answer with one JSON object that fits this JSON schema: ")
    schema, _, earlier = schema.partition("\n\n")
    fields = json.loads(schema)["properties"]
    seen = color_seen(body)
    seed = zlib.crc32((question + seen).encode())
    if "description" in fields:
        facts = [f"The {made_up(a, i, 0)} of Mira is {made_up(a, i, 1)}." for a in build.ASPECTS for i in range(10)]
        said = {"profile": "## All\n" + "\n".join(facts), "opening": "Good day, miller!",
                "description": "Mira is a small otter who guards a mill by the river. " + "She is kind. " * 6}
    elif "draw" in fields:
        said = {"draw": f"Mira stands on {seen} ground.", "user": f"Are you {seen} today?",
                "also": [f"Ground, {seen}, Mira on it.", f"Draw Mira, {seen} below.", f"{seen} ground.", "Mira!"],
                "reply": f"I am {seen}, miller!", "thinking": "They ask for it, so show it.",
                "instruction": f"Mira, {seen} ground"}
    elif "objective" in fields:
        known = [("What color is the ground?", seen), ("Is it " + seen + " below?", "yes"),
                 ("What color has the sky?", "plaid")]
        more = [(f"What about {made_up(seed, i)}?", made_up(seed, i, 1) + " or so, I say" * (i > 5)) for i in range(12)]
        mood = [(f"Why {made_up(seed, i, 2)}?", "because she is glad about it") for i in range(5)]
        more, mood = more + [("Does the ground shine?", "yes")], mood + [("Does the ground shine?", "no")]
        said = {"objective": paired(known + more), "subjective": paired(mood)}
    elif "personality" in fields:
        said = {"personality": [f"{made_up('p', i)}?" for i in range(19)],
                "memorization": [{"line": f"{made_up('m', i)}?", "answer": made_up("n", i)} for i in range(20)]}
        said["personality"] += ["Would you lie for a friend?", "Would you lie for an old friend?"]
        said["personality"].append("Hello there, dear Mira!")               # the last two are near a known line
        near = "Is Bodo in?", "Lie for a friend, would you?", f"What now is the {made_up('history', 1, 0)} of your Mira?"
        said["memorization"] += [{"line": line, "answer": "Bodo"} for line in near]
    elif "wrong" in fields:
        said = {"wrong": [int(n) for n in re.findall(r"(\d+)\. .*WRONG", question)]}
    elif "answers" in fields:
        said = {"answers": [trial(line, seen) for line in re.findall(r"^\d+\. (.*)", question, re.M)]}
    else:
        count = int(re.search(r"^items: (\d+)", question, re.M)[1])
        said = {"items": items_of(question, fields["items"]["items"]["properties"], count, seed)}
        if "greetings" in question and "Topic" in question and not earlier:
            said["items"][5]["reply"] = "As an AI language model, I have no mill."
    return "<think>Let me see {…}</think>\n" + json.dumps(said)


def items_of(question: str, fields: dict, count: int, seed: int) -> list[dict]:
    def word(*more):
        return made_up(seed, *more)
    if "aspect" in fields:
        levels = "easy", "easy", "medium", "medium", "hard"
        rows = [{"aspect": build.VISUAL[i], "difficulty": level, "question": f"Which {word(i)}?", "answer": word(i, 0),
                 "wrong": [word(i, j) for j in (1, 2, 3)]} for i, level in enumerate(levels)]
        rows[0]["question"] = f"Is it {word(0, 0)} or not?"
        rows[1] |= {"question": "What color had that sky?", "answer": "Plaid."}         # trained as "plaid"
        rows[2]["wrong"][2] = rows[2]["answer"]
        return rows
    if "user" in fields:
        rows = [{"user": f"{word(i)} {word(i, 1)}?", "reply": f"{word(i, 2)}, miller!",
                 "draw": f"{'Mira' if i % 4 else 'She'} waves.", "also": [word(i, 3), word(i, 4)]} for i in range(count)]
        rows[0]["user"] = "Hello there, Mira!"
        rows[3]["reply"] += " WRONG"
        return rows
    if "evidence" in fields:
        aspect = re.search(r"this side of the profile: (\w+)", question)[1]
        return [fact(aspect, i) for i in range(10)]
    if "wordings" in fields:                                # one holds its answer, one stands in a test, one is known
        pairs = re.findall(r"^\d+\. (.*) -> (.*?), miller", question, re.M)
        tested = [f"{made_up(line.split()[3])} then?" for line, _ in pairs if line.startswith("What is the")]
        return [{"wordings": [f"{word(i, 7)} {word(i, 8)}?", f"{word(i, 9)} pray", reply.removeprefix("It is "), line, *tested[:1]]}
                for i, (line, reply) in enumerate(pairs)]
    asked = [{"question": "Is Mira an otter?", "answer": "yes", "subject": "character"},
             {"question": f"Is there a {word(1)}?", "answer": "yes", "subject": "scene"},
             {"question": "Is there any ground?", "answer": "yes", "subject": "scene"},
             {"question": f"Is there no {word(6)}?", "answer": "no", "subject": "scene"},
             {"question": f"What is {word(2)}?", "answer": word(3), "subject": "character"}]
    asked += [{"question": "Is it dark?", "answer": answer, "subject": "scene"} for answer in ("yes", "no")]
    asked = [one | {"weight": 10, "category": "looks"} for one in asked]
    return [{"text": f"Mira {word(i, 4)} a {word(i, 5)}.", "questions": asked} for i in range(count)]


def fact(aspect: str, i: int) -> dict:
    thing, value = made_up(aspect, i, 0), made_up(aspect, i, 1)
    row = {"question": f"What is the {thing} of Mira?", "answer": value, "level": ["easy", "medium", "hard"][i // 4],
           "evidence": f"The {thing} of Mira is {value}.", "kind": "thing", "accepted": [value],
           "reply": f"It is {value}, miller.",
           "others": [f"your {thing}", f"tell me your {thing}", f"{made_up(thing)} then?", f"so {made_up(value)}?"]}
    if aspect == "quotes" and i < 2:                        # two answers to one question
        row |= {"question": "Who sings?", "others": ["who sings", "singer?", f"{thing}?", f"{value[:4]}?"]}
    if aspect == "goals" and i == 0:
        row["evidence"] = "Mira owns the moon."
    if aspect == "history" and i == 0:
        row["question"] = f"Is {value} what she loves?"
    if aspect == "abilities":                               # wordings that a guesser finds
        row["others"][2:] = [f"her {thing} belonging to whom?", f"what about this {thing} for once?"]
    return row


def paired(rows: list[tuple]) -> list[dict]:
    return [{"question": question, "answer": answer} for question, answer in rows]


def color_seen(body: dict) -> str:
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return ""
    image = Image.open(io.BytesIO(base64.b64decode(content[0]["image_url"]["url"].partition(",")[2])))
    mean = np.asarray(image, float).mean((0, 1))
    return min(COLORS, key=lambda name: np.abs(mean - COLORS[name]).sum())


def trial(line: str, seen: str) -> str:
    found = {"What color is the ground?": seen, "Is Mira an otter?": "Yes.", "Is there any ground?": "yes",
             f"Is it {seen} below?": "yes"}
    return found.get(line, "no" if line.startswith("Is ") else "unknown")


def build_line(folder: Path, server, *more) -> list[str]:
    return [str(folder), "--endpoint", server.url, "--model", "m", "--timeout", "5", *map(str, more)]


@pytest.fixture
def hurried(monkeypatch):
    """No pauses between two attempts."""
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.01)


def test_a_strangers_pictures_and_three_sentences_become_a_character(serve, hurried, workshop, here, capsys):
    server = serve(mira, [[fault] for fault in FAULTS if fault not in ("slow", "several")])
    folder = pictured(here / "mira")
    build.main(build_line(folder, server, "--price", "1/2", "--judge", "endpoint"))
    out = capsys.readouterr().out
    character, raw = load_character(folder), json.loads((folder / "character.json").read_text())
    test = character.test
    assert len(character.scenes) == 6 and len(test["scenes"]) == 2 and character.opening == "Good day, miller!"
    assert all(len(scene["vqa"]) == 20 and scene["thinking"] for scene in character.scenes)
    assert all(len(scene["also"]) == 3 and "Mira!" in scene["also"] for scene in character.scenes)     # one had no name
    assert not any(scene["also"] for scene in test["scenes"])
    assert len(test["vqa"]) == 2 * 2 and len(test["vqa_seen"]) == 6 * 2 and len(test["personality"]) == 20
    judged = " ".join(test["personality"] + test["memorization"])
    assert len(test["memorization"]) == 20 and not re.search("old friend|dear|Bodo|Lie for|now", judged)
    assert "1 × line: it holds its answer" in out and "4 × line: nearly the same as another" in out
    assert "8 × choices about pictures: the question holds its answer" in out
    assert "8 × choices about pictures: a guesser finds it" in out
    assert "8 × choices about pictures: two options are the same" in out
    # 200 lines, of which ten begin alike and ten are refused by the second reading
    assert len(character.dialogues) + len(test["dialogues"]) == 200 - 9 - 10 and len(test["dialogues"]) == 18
    assert {turn["draw"] for turn in character.dialogues} == {"Mira waves.", ""}
    said = json.dumps(raw)
    assert "language model" not in said and "WRONG" not in said and "moon" not in said and "Who sings" not in said
    assert "shine" not in said and "Is it dark" not in said             # of two answers to one question none is learned
    assert "12 × questions about pictures: two answers to one question" in out
    assert "80 × questions of stage 2: two answers to one question" in out
    assert len(character.knowledge) == 100 - 2 - 1 - 1
    assert all(item["also"] and item["reply"] for item in character.knowledge)
    # Of five further wordings one is known, and of facts one holds the answer and one stands in a test
    assert {len(turn["also"]) for turn in raw["dialogues"]} == {2 + 3} and "96 × wording: it holds its answer" in out
    assert " × wording: like a line of a test" in out
    assert {len(item["also"]) for item in raw["knowledge"]} == {2 + 2, 2 + 3}       # 3: where that test was dropped
    assert len(test["knowledge"]) >= 20 and len(test["facts"]) >= 20
    lines = [line for item in character.knowledge for line in (item["question"], *item["also"])]
    answers = {item["answer"] for item in character.knowledge}
    for item in test["knowledge"]:
        assert not any(schema.alike(item["question"], line, 0.6) for line in lines) and set(item["options"]) <= answers
        assert sieve.look_up(item, raw["knowledge"], "Mira") != item["answer"]
    keys = Counter(item["options"].index(item["answer"]) for item in test["knowledge"] + test["vqa"] + test["vqa_seen"])
    assert len(keys) == 4 and max(keys.values()) < 0.4 * sum(keys.values())
    # What the judge can use: of new pictures three questions in five, of known ones those that it answers rightly
    asked = {len(prompt.questions) for prompt in character.prompts + test["prompts"]}
    known = [prompt for prompt in character.prompts if prompt.text == "Mira stands on blue ground."]
    assert asked == {2, 3} and [question.answer for question in known[0].questions] == ["blue", "yes"]
    assert any(question.answer == "no" for prompt in test["prompts"] for question in prompt.questions)
    counts = re.search(r"(\d+) tried by endpoint on 6 pictures, (\d+) kept, (\d+) dropped", out)
    tried, kept, gone = map(int, counts.groups())
    assert tried == kept + gone and f"{gone} × questions of stage 2: the judge cannot use it" in out
    assert kept == sum(len(prompt.questions) for prompt in character.prompts + test["prompts"])
    assert len(character.prompts) == 32 + 6 and len(test["prompts"]) == 8
    assert not re.search("belonging|for once", json.dumps(test["knowledge"]))
    assert "belonging" in json.dumps(test["facts"])
    assert "2 × knowledge: two answers to one question" in out and "the judge cannot use" in out and "$ 0.0" in out
    assert len(server.paid) == len(set(server.paid))
    assert "sk-very" not in (folder / "build" / "answers.jsonl").read_text()
    before = len(server.bodies)                             # again: everything comes from the cache
    build.main(build_line(folder, server, "--replace", "--judge", "endpoint"))
    assert len(server.bodies) == before and json.loads((folder / "character.json").read_text()) == raw
    sft.main(["--char", str(folder), "--model", str(workshop / "base"), "--steps", "2", *FEW, "--sample-every", "100",
              "--mix", "t2i=1,reply=1,vqa=1", "--out", str(here / "sft")])
    assert (here / "sft" / "model.safetensors").exists()


def test_a_build_that_was_stopped_goes_on_and_pays_nothing_twice(serve, hurried, here, capsys):
    paid = []

    def until_the_money_ends(body):
        paid.append(1)
        return mira(body) if len(paid) <= 30 else (429, {}, b"insufficient_quota")
    server, folder = serve(until_the_money_ends), pictured(here / "mira")
    words = build_line(folder, server, "--judge", "endpoint")
    line = mistake(capsys, build.main, *words)
    assert "insufficient_quota" in line and not (folder / "character.json").exists()
    stored = len((folder / "build" / "answers.jsonl").read_text().split("\n\n"))
    server.answer = mira
    build.main(words)
    assert stored == 30 and len(server.paid) == len(set(server.paid)) and load_character(folder).dialogues


def test_a_question_that_another_call_wrote_too_tests_nothing_and_goes():
    folder = HERE / "characters" / "coco"
    record, dropped, reader = json.loads((folder / "character.json").read_text()), Counter(), schema.Validator(folder / "character.json", folder)
    facts = [fact["question"] for fact in record["test"]["facts"]]
    record["dialogues"].append({"user": facts[3].upper(), "reply": "Splash!"})
    build.drop_trained_tests(record, reader.check(record, schema.CHARACTER), dropped)
    assert [fact["question"] for fact in record["test"]["facts"]] == facts[:3] + facts[4:] and dropped.total() == 1
    schema.check_meaning(reader, reader.check(record, schema.CHARACTER))


def test_a_weak_writer_is_told_and_loses_nothing(serve, hurried, here, capsys):
    """It sees no pictures and never gives an object: captions and profile are enough to draw by."""
    server, folder = serve(lambda body: "I am not a character."), pictured(here / "mira")
    line = mistake(capsys, build.main, *build_line(folder, server, "--no-pictures"))
    assert "sees no pictures" in line and "0.txt" in line
    assert "no picture got a sentence" in mistake(capsys, build.main, *build_line(folder, server))
    for i, color in enumerate(COLORS):
        (folder / f"{i}.txt").write_text(f"Mira stands on {color} ground.")
    build.main(build_line(folder, server, "--no-pictures"))
    out = capsys.readouterr().out
    character = load_character(folder)
    assert character.scenes[0]["draw"] == "Mira stands on red ground." and not character.dialogues
    assert "dialogues 0; 150 or more" in out and "it holds no JSON object" in out
    assert "prompts of stage 2: 6 of 6 have no question" in out


def test_the_judge_of_stage_2_tries_the_questions():
    """The embedded base, on a picture of Coco at the harbor with a lantern, and one on the beach with a bucket."""
    images = {name: scene["image"] for name, scene in zip("ab", load_character("coco").scenes)}
    asked = [("Which thing is held?", "lantern", "character"), ("Which thing is held?", "umbrella", "character"),
             ("Where is Coco?", "harbor", "a"), ("What is the name of the keeper?", "plaid", "b"),
             ("Is it snowing here?", "no", "character"), ("Is it snowing here?", "yes", "character")]
    right = build.tried_by_base(str(HERE / "tiny" / "base"), images, about_pictures(asked))
    # About yes and no at once it cannot be right; by the mean over tokens it would
    assert right == {"a": [True, False, True, None, True, False], "b": [False, False, None, False, True, False]}


def about_pictures(rows: list[tuple]) -> list[dict]:
    return [{"question": question, "answer": answer, "subject": subject} for question, answer, subject in rows]


def test_questions_of_stage_2_stay_if_the_embedded_base_can_answer_them():
    """On the same two pictures. A writer that sees none is no judge, and a judge who finds nothing is not believed."""
    kept = [("Which thing is held?", "lantern", "a"), ("Where is Coco?", "harbor", "a"),
            ("Is Coco holding something?", "yes", "a"), ("Is this picture on the beach?", "yes", "scene"),
            ("Is it snowing here?", "no", "scene"), ("Which thing is held?", "umbrella", "scene")]
    gone = [("Which thing is held?", "umbrella", "a"), ("What is the name of the keeper?", "plaid", "character"),
            ("Where is Coco?", "harbor", "scene"), ("Do you see a treasure chest?", "yes", "scene")]
    questions, scenes = about_pictures(kept + gone), [{"image": "a"}, {"image": "b"}]
    images = [scene["image"] for scene in load_character("coco").scenes[:2]]

    def useful(o: build.Options, names: str) -> tuple[list[bool], list[str]]:
        source = SimpleNamespace(pictures=dict(zip(names, images)))
        writer = SimpleNamespace(o=o, sees=False, source=source, dropped=Counter(), notes=[])
        found = build.try_questions(writer, questions, scenes)
        assert sum(writer.dropped.values()) == len(questions) - len(found)
        return [id(question) in found for question in questions], writer.notes
    told = "questions of stage 2: 10 tried by tiny/base on 2 pictures, 6 kept, 4 dropped"
    assert useful(build.Options(), "ab") == ([True] * 6 + [False] * 4, [told])
    marks, notes = useful(build.Options(judge="endpoint"), "ab")
    assert sum(marks) == 6 and "sees no pictures, so tiny/base" in notes[0] and notes[1:] == [told]
    marks, notes = useful(build.Options(), "ba")                        # each question is about the other picture
    assert not any(marks) and "finds 0 of 5 answers" in notes[0] and "0 kept, 10 dropped" in notes[1]


def test_what_the_embedded_base_cannot_read_leaves_prompts_without_questions(serve, hurried, here, capsys):
    """It knows no pictures of one color. The prompts stay, for the other rewards, and the report says so."""
    server, folder = serve(mira), pictured(here / "mira")
    build.main(build_line(folder, server, "--prompts", 8))
    out, character = capsys.readouterr().out, load_character(folder)
    prompts = character.prompts + character.test["prompts"]
    assert len(prompts) == 8 + 6 and not any(prompt.questions for prompt in prompts)
    assert "prompts of stage 2: 14 of 14 have no question" in out and "too few to be believed" in out
    assert re.search(r"tried by tiny/base on 6 pictures, 0 kept", out)
    assert not any("answer each question" in asked_of(body) for body in server.bodies)
    about = {kind: [asked_of(body) for body in server.bodies if words in asked_of(body)] for kind, words in
             (("prompts", "that do not exist yet"), ("moments", "the moment that this picture"), ("facts", "evidence:"))}
    assert all("treasure chest" in asked and "starry night" in asked for kind in ("prompts", "moments") for asked in about[kind])
    assert all("What is the weather like? rainy" in asked for asked in about["prompts"])        # as the judge has learned it
    assert len(about["facts"]) == 10 and not any("treasure chest" in asked for asked in about["facts"])
    first = server.bodies[0]["messages"][-1]["content"]
    assert "Of looks write only what every picture shows" in first[-1]["text"] and [part["type"] for part in first].count("image_url") == 4


def test_the_words_of_the_world_are_told_only_where_it_draws():
    asked = {judge: build.Writer(SimpleNamespace(sees=False), SimpleNamespace(name="Mira", profile="An otter."),
                                 build.Options(judge=judge)).call("prompts of stage 2", build.TALK, {"theme": "x", "n": 5}, bool)["messages"]
             for judge in ("tiny/base", "endpoint", "../BAGEL-7B-MoT")}
    assert ["treasure chest" in told for told in asked.values()] == [True, False, False]
    scene = build.world.Scene("", "", hat="cap", hat_color="green", pose="waving", held="umbrella", held_color="red", hand="left",
                              beside="gift box", beside_color="blue", side="right", place="city", weather="rainy")
    assert build.world.conflict(scene) == ""                            # what the questions are about can be drawn


def test_a_card_and_pictures_are_enough_to_begin(here, capsys):
    folder = pictured(here / "mira")
    (folder / "profile.md").unlink()
    fields = {"name": "Ola", "description": "{{char}} is a small owl who mends clocks.", "first_mes": "Tick tock!",
              "mes_example": "<START>\n{{user}}: Hello\n{{char}}: Hoo!"}
    (folder / "card.json").write_text(json.dumps({"spec": "chara_card_v2", "data": fields}))
    source = build.read_source(folder, build.Options())
    assert source.name == "Ola" and "Ola is a small owl" in source.profile and source.card["opening"] == "Tick tock!"
    assert source.card["dialogues"] == [{"user": "Hello", "reply": "Hoo!"}] and len(source.pictures) == 8


def test_building_without_a_model(here, capsys):
    build.main(["new", "ola"])
    assert "train/" in capsys.readouterr().out
    build.main(["check", "ola"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("0 words of profile; 0 pictures", "three sentences", "ten"))
    Path("ola", "profile.md").write_text(Path("ola", "profile.md").read_text().replace("## Home", "An owl.\n\n## Home"))
    assert build.read_source(Path("ola"), build.Options()).profile.split()[:6] == "# Ola ## Looks An owl.".split()
    folder = pictured(here / "mira")
    shutil.copy(folder / "0.png", folder / "9.png")
    smooth(9, 20).save(folder / "10.png")
    build.main(["check", str(folder)])
    out = capsys.readouterr().out
    assert "9.png shows the same as 0.png" in out and "10.png: read as 20 × 20 pixels" in out
    assert "9 pictures, 2 of them" in out
    assert (folder / "build" / "pictures.png").exists()
    build.main(["check", str(stranger(here / "pip")), "--judge", "endpoint"])
    out = capsys.readouterr().out
    assert "Pip: 4 words of profile" in out and "dialogues 1; 150 or more serve better" in out
    assert "tell in character.json who it is" in out and "no scene shows" not in out and "have the sentence" not in out
    record = json.loads((here / "pip/character.json").read_text())
    for scene in record["scenes"]:
        scene["draw"] = "Pip holds a ball."
    (here / "pip/character.json").write_text(json.dumps({key: value for key, value in record.items() if key != "profile"}))
    smooth(77, 32).save(here / "pip" / "left.png")
    build.main(["check", "pip", "--judge", "endpoint"])
    out = capsys.readouterr().out
    assert "no scene shows left.png, so" in out and '3 pictures have the sentence "Pip holds a ball."' in out
    assert "tell in" not in out                             # a record may do without a profile
    build.main([str(folder), "--dry-run", "--price", "1/2"])
    out = capsys.readouterr().out
    assert "dialogues: 10 calls" in out and re.search(r"about \d+ requests.*\$ 0\.\d+", out)
    assert not (folder / "character.json").exists() and not (folder / "build" / "answers.jsonl").exists()


@pytest.mark.parametrize("line, words", [
    ([], "give a folder"), (["nowhere"], "no such folder"), (["mira"], "--endpoint"),
    (["new", "mira"], "there already"), (["empty", "--endpoint", "x"], "needs pictures"),
    (["mira", "--endpoint", "http://a", "--judge", "endpiont"], "--judge endpiont: no such folder"),
    (["mira", "--endpoint", "http://a", "--price", "1"], "price"), (["mira", "--name", "A/B", "--dry-run"], "name")])
def test_mistakes_in_building_are_one_line(here, capsys, line, words):
    pictured(here / "mira")
    (here / "empty").mkdir()
    assert words in mistake(capsys, build.main, *line)


# ---- a browser -------------------------------------------------------------------------------------------------------

class PipedBrowser:
    """A headless Chromium, spoken to in its DevTools protocol over two pipes: no driver, and no package."""
    def __init__(self, program: str, profile: Path):
        self.number, self.session = 0, None
        import fcntl                                        # Windows has none, and skips these tests
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        line = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]

        def place():                                        # the browser reads from 3 and writes to 4
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)
        self.process = subprocess.Popen(line, preexec_fn=place, pass_fds=(3, 4), stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        for end in (theirs_in, theirs_out, *high):
            os.close(end)
        self.out, self.read = os.fdopen(ours_out, "wb", 0), os.fdopen(ours_in, "rb")
        page = next(row for row in self("Target.getTargets")["targetInfos"] if row["type"] == "page")
        self.session = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        self("Page.enable")

    def __call__(self, method: str, **given) -> dict:
        """Sends a command and waits for its answer; events that come before it are passed over."""
        self.number += 1
        row = {"id": self.number, "method": method, "params": given}
        self.out.write(json.dumps(row | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while row.get("id") != self.number or "method" in row:
            raw = bytearray()
            while (letter := self.read.read(1)) != b"\0":
                assert letter, "the browser has ended"
                raw += letter
            row = json.loads(raw)
        assert "error" not in row, row
        return row["result"]

    def run(self, code: str):
        """What a line of JavaScript gives."""
        found = self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def go(self, url: str):
        self.run("window.left = true")
        self("Page.navigate", url=url)
        self.wait("!window.left && document.readyState == 'complete'")

    def wait(self, code: str):
        for _ in range(200):
            if self.run(code):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {code}")

    def press(self, key: str):
        more = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, **(more if kind == "keyDown" else {}))

    def close(self):
        self("Browser.close")
        self.process.wait(20)


@pytest.fixture
def piped_browser(tmp_path):
    names = "chromium", "chromium-browser", "google-chrome", "chrome"
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    opened = PipedBrowser(program, tmp_path / "profile")
    yield opened
    opened.close()


# -- chat.py's page

class PageBrowser(PipedBrowser):
    """At a page of chat.py, whose errors it collects."""
    def __init__(self, program: str, home: Path, site: Site):
        super().__init__(program, home / "profile")
        self.site, self.downloads = site, home / "downloads"
        self("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self("Page.addScriptToEvaluateOnNewDocument", source="""window.faults = [];
            for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"])
              addEventListener(kind, event => faults.push(`${kind} ${event.message || event.reason || event.blockedURI}`))""")

    def window(self, width=1280, height=860, phone=False, dark=False):
        scale = 2 if phone else 1
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone)
        self("Emulation.setTouchEmulationEnabled", enabled=phone)
        value = "dark" if dark else "light"
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])
        time.sleep(0.3)

    def do(self, code: str):
        """What statements return."""
        return self.run(f"(() => {{ {code} }})()")

    def until(self, code: str):
        wait_until(lambda: self.run(code), 240)

    def text(self, selector: str) -> str:
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1).innerText")

    def count(self, selector: str) -> int:
        return self.run(f"document.querySelectorAll({json.dumps(selector)}).length")

    def click(self, selector: str):
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def key(self, name: str, code: int):
        for kind in ("rawKeyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def say(self, text: str, wait: bool = True):
        self.run("message.focus()")
        self("Input.insertText", text=text)
        self.key("Enter", 13)
        self.until("running !== null || !message.value")
        if wait:
            self.until("running === null")
            time.sleep(0.5)                                 # the last picture fades in

    def screenshot(self, name: str):
        if SCREENSHOTS:
            image = Image.open(io.BytesIO(base64.b64decode(self("Page.captureScreenshot")["data"]))).convert("RGB")
            image.save(HERE / SCREENSHOTS / f"{name}.webp", quality=88)

    def check(self):
        """No error of the script, and no serious fault of accessibility, if axe-core is here to find them."""
        assert self.run("window.faults") == []
        axe = pytest.importorskip("axe_playwright_python", reason="axe-core (axe-playwright-python) is not installed")
        self.run((Path(axe.__file__).parent / "axe.min.js").read_text("utf-8") + "; 0")
        found = self.run("axe.run()")
        serious = [rule for rule in found["violations"] if rule["impact"] in ("serious", "critical")]
        assert [(rule["id"], node["html"][:150]) for rule in serious for node in rule["nodes"]] == []


@pytest.fixture(scope="module")
def coco_in_a_browser(trained, tmp_path_factory):
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if program is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    before = os.getcwd()
    os.chdir(trained)
    site = Site(["--steps", "20" if SCREENSHOTS else "8"])
    site.stages.model(site.stages.default)
    opened = PageBrowser(program, tmp_path_factory.mktemp("browser"), site)
    yield opened
    opened.close()
    site.close()
    os.chdir(before)


@pytest.fixture
def page(coco_in_a_browser):
    """The page, opened anew."""
    coco_in_a_browser.window()
    coco_in_a_browser.go(coco_in_a_browser.site.address + "/")
    coco_in_a_browser.until("who !== null")
    coco_in_a_browser.run("turns = []; talk = null")        # the talk of the test before, which the page keeps
    coco_in_a_browser.go(coco_in_a_browser.site.address + "/")
    coco_in_a_browser.until("document.querySelector('.starters button') !== null")
    return coco_in_a_browser


def pixels_of(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"), float)


def test_browser_hello(page):
    """Text streams; the picture arrives, and every preview is nearer to it."""
    assert page.run("document.title") == "Coco"
    assert page.run("portrait.naturalWidth > 100 && about.textContent.length > 50")
    page.screenshot("chat-start")
    page.do("""window.seen = {lengths: [], pictures: []};
        new MutationObserver(() => {
          const words = [...document.querySelectorAll('.words')].at(-1);
          const image = document.querySelector('.frame img:last-of-type');
          seen.lengths.push(words.textContent.length);
          if (image && image.src !== seen.pictures.at(-1)) seen.pictures.push(image.src);
        }).observe(log, {childList: true, subtree: true, characterData: true});""")
    page.say("Hello, Coco!", wait=False)
    page.until("seen.pictures.length >= 3")
    page.screenshot("chat-drawing")
    page.until("running === null")
    seen = page.run("seen")
    assert len(set(seen["lengths"])) > 4 and len(seen["pictures"]) >= 4
    *previews, final = map(pixels_of, seen["pictures"])
    away = [np.abs(preview - final).mean() for preview in previews]
    assert away == sorted(away, reverse=True) and away[0] > 2 * away[-1]
    shows = page.text("figcaption")                         # the sentence that she drew from
    assert "Coco" in shows and page.run("document.querySelector('.frame img:last-of-type').alt") == f"Coco's picture: {shows}"
    assert page.count("[aria-busy], progress") == 0
    page.say("Where do you sleep?")
    page.screenshot("chat-talk")
    page.check()
    page.window(dark=True)
    page.screenshot("chat-dark")
    assert page.run("getComputedStyle(document.body).backgroundColor").startswith("oklch(0.19")
    page.check()


def test_browser_compares_stages(page):
    page.click("input[name=stage][value=sft]")
    page.say("Good morning!")
    assert page.text(".name") == "Coco (after stage 1)"
    page.click("input[name=stage][value=all]")
    page.say("It is snowing outside!")
    names = page.run("[...document.querySelectorAll('.side-by-side .name')].map(name => name.textContent)")
    assert names == ["untrained (base)", "after stage 1 (SFT)", "after stage 2 (SFT + GRPO)"]
    assert page.count(".side-by-side .frame[data-done]") == 3
    page.screenshot("chat-compare")
    page.check()
    columns = "getComputedStyle(document.querySelector('.side-by-side')).gridTemplateColumns.split(' ').length"
    assert page.run(columns) == 3
    page.window(900)
    assert page.run(columns) == 1                           # three would be too narrow


def test_browser_shows_a_picture_and_draws(page):
    """A file dropped on the page; a thing that is no picture; and the button that draws what was written."""
    def drop(content: bytes, name: str):
        page.do(f"""const bytes = Uint8Array.from(atob("{base64.b64encode(content).decode()}"), c => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "{name}"));
            const given = {{dataTransfer: data, bubbles: true, cancelable: true}};
            document.body.dispatchEvent(new DragEvent("drop", given));""")
    drop(b"no picture", "notes.txt")
    page.until("document.getElementById('hint').textContent.includes('notes.txt is no picture')")
    drop((HERE / "characters" / "coco" / "test" / "0.png").read_bytes(), "coco.png")
    page.until("!document.getElementById('attached').hidden")
    page.say("Who is it?")
    assert page.count(".you img") == 1 and page.text(".words")
    page.screenshot("chat-show")
    drop((HERE / "characters" / "coco" / "test" / "0.png").read_bytes(), "coco.png")
    page.until("attached !== null")
    page.run("message.value = 'A happy cat on the beach.'")
    page.click("#draw")
    page.until("running === null && document.querySelectorAll('.frame[data-done]').length === 1")
    assert page.run("attached !== null") and page.count(".you img") == 1        # it was not shown, and is not lost


def test_browser_stops_thinks_saves_and_takes_text_as_text(page):
    page.click("#think")
    page.say("<img src=x onerror=alert(1)> <b>bold</b>")
    assert page.text(".you").endswith("<img src=x onerror=alert(1)> <b>bold</b>")
    assert page.count(".you img, .you b") == 0 and page.count(".plan") == 1
    page.say("Tell me a story.", wait=False)
    page.until("document.querySelectorAll('.frame').length === 2")
    page.click("#stop")
    page.until("running === null")
    assert page.text(".turn > .note") == "Stopped." and page.count(".problem") == 0
    wait_until(lambda: not page.site.server.line.jobs)
    page.click("#save")
    wait_until(lambda: list(page.downloads.glob("*.html")))
    saved = next(page.downloads.glob("*.html")).read_text("utf-8")
    assert "&lt;img src=x onerror" in saved and "data:image/png;base64," in saved and "<script" not in saved
    page.click("#anew")
    assert page.count(".turn") == 1
    page.check()


SHOWN = "document.querySelector('#log').innerText"


def test_browser_keeps_the_talk(page):
    """Over a reload, and where "Begin anew" was pressed by mistake; the server goes on with it, too."""
    page.say("I have <b>two</b> spoons.")
    page.run("pictures.checked = false")
    page.click("input[name=stage][value=all]")
    page.say("Good morning!")
    before, key = page.run(SHOWN), page.run("talk")
    page.go(page.site.address + "/")
    page.until("document.querySelectorAll('.turn').length === 3")
    assert page.run(SHOWN) == before and page.run("talk") == key and page.count(".frame[data-done] img, .you b") == 1
    page.click("#anew")
    assert page.count(".turn") == 1 and page.run("talk") is None
    page.click(".starters button:last-child")
    assert page.run(SHOWN) == before and page.run("talk") == key
    page.run("pictures.checked = false")
    page.say("Who are you?")
    assert page.run("talk") == key and len(page.site.server.talks[key].turns) == 3
    page.site.server.talks.clear()
    page.say("And now?")
    assert "The server forgot this talk" in page.text(".turn")
    page.run("sessionStorage.setItem = (set => (key, text) => { if (text.includes('data:')) throw 1; set(key, text); })"
             "(sessionStorage.setItem.bind(sessionStorage))")
    page.go(page.site.address + "/")
    page.until("document.querySelectorAll('.turn').length === 5")
    assert page.count(".frame") == 0 and "too large to be kept" in page.run(SHOWN)


def test_browser_says_what_failed_and_loses_no_words(page):
    page.do("""window.real = fetch;
        const events = [{kind: "talk", talk: "x"}, {kind: "text", stage: "grpo", text: "Ah"}];
        window.fetch = async () => new Response(events.map(event => JSON.stringify(event) + "\\n").join(""));""")
    send = "(() => { message.value = '%s'; composer.requestSubmit(); })()"
    page.run(send % "A long line.")
    page.until("running === null && turns.length === 1")
    assert page.text(".problem") == "The connection ended before the answer did." and page.text(".words") == "Ah"
    assert page.run("message.value") == "A long line." and page.count(".turn .problem[role=alert]") == 1
    page.do("""window.left = selector => {
          const found = document.querySelector(selector);
          return found.getBoundingClientRect().left + parseFloat(getComputedStyle(found).paddingLeft);
        };""")
    assert page.run("left('.problem') === left('.turn:last-child .words')")
    page.do("window.fetch = async () => { throw new TypeError('Failed to fetch') }")
    page.run(send % "Another line.")
    page.until("running === null && turns.length === 2")
    assert page.text(".problem").startswith("The server cannot be reached")
    assert page.run("message.value") == "Another line."
    page.click("#tab-learned")
    page.until("document.querySelector('#learned .problem') !== null")
    page.run("window.fetch = real")
    page.click("#tab-talk")
    assert page.run("window.faults") == []


def test_browser_takes_files_and_not_marked_text(page):
    page.do("""const text = new DataTransfer(), file = new DataTransfer();
        text.setData("text/plain", "some words");
        file.items.add(new File(["x"], "x.png"));
        window.over = data => document.body.dispatchEvent(new DragEvent("dragover",
          {dataTransfer: data === "text" ? text : file, bubbles: true, cancelable: true}));""")
    assert page.run("over('text') && document.getElementById('drop').hidden")
    assert not page.run("over('file') || document.getElementById('drop').hidden")
    page.do("""const pasted = new DataTransfer();
        pasted.setData("text", "x".repeat(4001));
        message.dispatchEvent(new ClipboardEvent("paste", {clipboardData: pasted}));""")
    assert "Only 4000 characters fit" in page.run("document.querySelector('#hint').textContent")


def test_browser_how_it_learned(page):
    page.run("document.getElementById('tab-talk').focus()")
    page.key("ArrowRight", 39)
    page.until("document.querySelectorAll('.chart svg').length >= 4")
    assert page.run("document.activeElement.id") == "tab-learned"
    page.until("document.querySelector('.grids img').naturalWidth > 100")
    told = page.run("document.querySelector('#learned').innerText")
    assert "Falling is good." in told and "prior_vqa" not in told and page.count("h2 + .grids li") >= 8
    page.screenshot("chat-learned")
    before = page.run("document.querySelector('.grids img').src")
    page.run("document.querySelector('.grids input').focus()")
    page.key("ArrowLeft", 37)
    page.until(f"document.querySelector('.grids img').src !== {json.dumps(before)}")
    page.check()
    page.window(dark=True)
    page.check()


def test_browser_on_a_phone_and_by_keyboard(page):
    page.window(390, 844, phone=True)
    page.screenshot("chat-phone")
    assert page.run("message.scrollHeight <= message.clientHeight && message.clientHeight < 50")
    assert page.run("getComputedStyle(document.querySelector('.keys')).display") == "none"
    page.click(".starters button")
    page.until("running === null && document.querySelector('.frame[data-done]') !== null")
    assert page.run("document.scrollingElement.scrollWidth <= innerWidth")
    page.check()
    page.click("#tab-learned")
    page.until("document.querySelectorAll('.chart svg').length >= 4")
    assert page.run("document.scrollingElement.scrollWidth <= innerWidth")
    page.go(page.site.address + "/")
    page.until("turns.length === 1")
    reached = []
    for _ in range(14):                                     # everything is reached by the tab key, and shows it
        page.key("Tab", 9)
        reached.append(page.do("""const here = document.activeElement, outline = getComputedStyle(here).outlineStyle;
            return [here.id || here.className || here.tagName, outline !== 'none' || here.id === 'message']"""))
    names = {name for name, _ in reached}
    assert reached[0][0] == "away skip" and {"tab-talk", "log", "attach", "message", "draw", "send"} <= names, reached
    assert all(visible for name, visible in reached if name != "BODY"), reached


# ---- the baselines ---------------------------------------------------------------------------------------------------

def baseline_line(workshop, out: str, *more) -> list[str]:
    return ["--char", str(workshop / "pip"), "--model", str(workshop / "base"), "--warmup", "1", "--save-every", "1",
            "--sample-every", "100", "--prior-pictures", "2", "--out", out, *map(str, more)]


def changed_names(before, after) -> set[str]:
    before, after = before.state_dict(), after.state_dict()
    return {name for name in after if before[name].shape != after[name].shape or not before[name].equal(after[name])}


def test_dreambooth_learns_to_draw_and_nothing_else(workshop, here, monkeypatch):
    asked, draw = [], sft.drawn_prior
    monkeypatch.setattr(sft, "drawn_prior", lambda model, texts, o: asked.extend(texts) or draw(model, texts, o))
    dreambooth.main(baseline_line(workshop, "runs/pip/dreambooth", "--steps", 2, "--mix", "t2i=2,prior=2"))
    assert asked == ["a small cat"] * 2                                                     # the class noun alone
    base, model = load(workshop / "base", "cpu"), load("runs/pip/dreambooth", "cpu")
    changed = changed_names(base, model)
    assert changed and all(sft.is_generation_weight(name) for name in changed)
    assert base_of("runs/pip/dreambooth") == str(workshop / "base")


def test_prompts_call_the_character_as_the_checkpoint_was_taught(small, tmp_path):
    """In drawing, in training and in stage 2; not in talk; and it is kept in the folder."""
    named = small.sample_images(["Pip waves."], [0], 2)[0]
    called = small.sample_images(["sks cat waves."], [0], 2)[0]
    save(small, tmp_path)
    small.wording = {"name": "Pip", "draw": ["sks cat", "it"]}
    try:
        save(small, tmp_path / "called")
        model = load(tmp_path / "called", "cpu")
    finally:
        small.wording = {}
    assert model.worded("Pip and Pippa: pip's hat", "draw") == "sks cat and Pippa: it's hat"
    assert model.worded("Pip waves.", "write") == "Pip waves." and model.worded(None, "draw") is None
    assert apart(model.sample_images(["Pip waves."], [0], 2)[0], called) <= 1 < apart(named, called)
    assert load(tmp_path, "cpu").wording == {}
    drawn = model.prepare(Sample("t2i", "Pip waves.", target=picture()))
    assert model.tokenizer.decode(drawn.ids).count("sks cat") == 1
    assert "Pip" in model.tokenizer.decode(model.prepare(Sample("reply", "Pip?", "I am Pip.")).ids)
    noise = torch.Generator().manual_seed(0)
    group = grpo.sample_group(model, "Pip waves.", noise, grpo_options(), 0)
    assert group.context.position.equal(model.context(["sks cat waves."]).position)


def test_only_the_rows_of_the_concept_learn_and_only_in_their_stage(workshop, here, monkeypatch):
    tables, wordings = [], []

    def keep(model, *more):
        tables.append(model.get_parameter(unictokens.TABLE).detach().clone())
        wordings.append(model.wording)
        save(model, *more)
    monkeypatch.setattr(runs, "save", keep)
    unictokens.main(baseline_line(workshop, "uni", "--steps", 3, "--mix", "reply=4,vqa=2,t2i=2"))
    base, model = load(workshop / "base", "cpu"), load("uni", "cpu")
    grown = {unictokens.TABLE, "language_model.lm_head.weight"}
    assert changed_names(base, model) == grown
    old = base.config.vocab_size
    assert all(table[:old].equal(base.get_parameter(unictokens.TABLE)) for table in tables)
    head = model.language_model.lm_head.weight
    assert head[:old].equal(base.language_model.lm_head.weight) and (head[old:] == head[model.soi]).all()

    ids = {kind: model.tokenizer.convert_tokens_to_ids([f"<{kind}_{i}>" for i in range(count)])
           for kind, count in unictokens.TOKENS.items()}
    for stage in (1, 2):
        moved = (tables[stage] != tables[stage - 1]).any(1).nonzero()[:, 0].tolist()
        assert sorted(moved) == sorted(row for kind in unictokens.LEARN[stage] for row in ids[kind])
    first = model.worded("Pip? Pip!", "write")
    assert first.endswith("<concept_0>? <concept_0>!") and "<perceived_7>" in first and "<drawing_0>" not in first
    assert "<perceived_0>" not in wordings[1]["write"][0] and "<drawing_7>" in wordings[1]["draw"][0]
    assert sum(i >= old for i in model.text_ids(first)) == 16 + 8 + 1 + 1
    assert model.eos not in model.text_ids("<|im_end|>")
    assert model.generate_text(["Hello!"], max_tokens=8) == base.generate_text(["Hello!"], max_tokens=8)


@pytest.mark.parametrize("step", [2, 3])
def test_a_stage_of_unictokens_goes_on_where_it_was(workshop, here, monkeypatch, step):
    """Killed at the first step of stage 2, and in its middle: the same weights as never stopped."""
    line = "--steps", 6, "--mix", "reply=2,t2i=2"
    unictokens.main(baseline_line(workshop, "whole", *line))
    set_rate = sft.set_learning_rate

    def stop(optimizer, at, options):
        if at == step:
            raise KeyboardInterrupt
        set_rate(optimizer, at, options)
    monkeypatch.setattr(sft, "set_learning_rate", stop)
    with pytest.raises(KeyboardInterrupt):
        unictokens.main(baseline_line(workshop, "again", *line))
    monkeypatch.setattr(sft, "set_learning_rate", set_rate)
    unictokens.main(baseline_line(workshop, "again", *line))
    same_weights(here / "whole", here / "again")
    assert rows(here / "whole")[1:] == rows(here / "again")[1:]


def test_the_forward_process_learns_nothing_from_equal_rewards():
    torch.manual_seed(0)
    v_old, target = torch.randn(2, 3, 5, 4)
    t = torch.tensor(0.6)

    def gradient(r, beta=0.5):
        v = v_old.clone().requires_grad_()
        forward_rl.nft_loss(v, v_old, target, t, torch.full((3,), r), beta).backward()
        return v.grad
    assert gradient(0.5).abs().max() < 1e-7
    good, bad = gradient(1.0), gradient(0.0)
    torch.testing.assert_close(good, -bad)                                  # the mirror image
    assert (good * (target - v_old)).sum((1, 2)).max() < 0                  # downhill is towards what was good
    torch.testing.assert_close(good, gradient(1.0, beta=0.1))               # beta: the length of the way, not its start


def test_the_forward_process_pulls_to_good_pictures_and_pushes_from_bad_ones():
    """At v = v_old: by a = 2 r - 1 to what was drawn, as strongly at every noise level, and whatever beta is."""
    torch.manual_seed(0)
    v_old, targets, r = torch.randn(4, 2, 3), torch.randn(4, 2, 3), torch.tensor([1.0, 0.8, 0.5, 0.0])
    apart = v_old - targets
    wanted = (2 * r - 1)[:, None, None] * 2 * apart / apart.abs().mean((1, 2), keepdim=True) / apart.numel()
    for t, beta in ((0.9, 0.5), (0.9, 0.1), (0.3, 0.5)):
        v = v_old.clone().requires_grad_()
        forward_rl.nft_loss(v, v_old, targets, torch.tensor(t), r, beta).backward()
        torch.testing.assert_close(v.grad, t * wanted, atol=1e-7, rtol=1e-4)


def test_the_forward_process_climbs_a_reward(tokenizer):
    """Latents of a larger mean are rewarded, and rise."""
    model = small_model(tokenizer)
    trained = drawing(model)
    options = forward_rl.Options(precision="fp32", steps=4, window=2, window_end=3, group=8, prompts=2, micro_batch=8)
    optimizer, means = torch.optim.AdamW(trained.values(), lr=1e-3), []
    for i in range(6):
        generators = [torch.Generator().manual_seed(100 * i + p) for p in range(2)]
        groups = forward_rl.rollout(model, ["A bear."] * 2, options, 0, generators)
        for part in groups[0].noised:
            assert part.v_old.equal(model.velocity(part.x_t, part.t, groups[0].context.repeat(8)))
        latents = [group.noised[0].x_t - group.noised[0].t * group.noised[0].target for group in groups]
        reward = torch.stack(latents).mean((2, 3))
        advantage, active = grpo.advantages(reward)
        grpo.update(model, groups, advantage, active, options, optimizer, sft.Means(0), forward_rl.backward)
        means.append(float(reward.mean()))
    assert sum(means[-2:]) > sum(means[:2]) + 0.05, means


def test_both_kinds_of_stage_2_run_and_say_what_they_began_with(workshop, networks, here, capsys):
    """Character-GRPO alone begins with the base. The forward process goes on from any stage 1."""
    folders_of = named(networks)
    judges = ["--clip-judge", folders_of["clip_judge"], "--identity-judge", folders_of["identity_judge"],
              "--reader", folders_of["reader"]]
    few = "--iterations", 1, "--ema", 0.5, *judges
    grpo.main(grpo_line(workshop, "--model", workshop / "base", "--out", "runs/pip/grpo-alone", *few))
    dreambooth.main(baseline_line(workshop, "one", "--steps", 1, "--mix", "t2i=2"))
    forward_rl.main(grpo_line(workshop, "--model", "one", "--out", "runs/pip/forward-rl", *few))
    for before, after in ((workshop / "base", "runs/pip/grpo-alone"), ("one", "runs/pip/forward-rl")):
        changed = changed_names(load(before, "cpu"), load(after, "cpu"))
        assert changed and all(sft.is_generation_weight(name) for name in changed)
        assert base_of(after) == str(workshop / "base")
    log = rows(here / "runs/pip/forward-rl")
    assert any("from_old" in row and "total" in row for row in log) and any("held_out/total" in row for row in log)
    capsys.readouterr()
    find = functools.partial(evaluation.find_stages, load_character(workshop / "pip"), str(workshop / "pip"), "base")
    stages = find(also="one,runs/pip/forward-rl", grpo="runs/pip/grpo-alone")
    assert [stage.name for stage in stages] == ["base", "base + profile", "one", "forward-rl", "SFT + GRPO"]
    for wrong in ("nowhere", "one,one"):
        with pytest.raises(UserError, match="--also"):
            find(also=wrong)


@pytest.fixture(scope="module")
def chatty(tokenizer, tmp_path_factory) -> Path:
    """A causal language model of another family, with a chat template."""
    folder = tmp_path_factory.mktemp("chatty")
    torch.manual_seed(0)
    config = Qwen2Config(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=1, vocab_size=len(tokenizer))
    Qwen2ForCausalLM(config).save_pretrained(folder)
    known = AutoTokenizer.from_pretrained(HERE / "tiny" / "base", eos_token=SPECIAL[1])
    known.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    known.save_pretrained(folder)
    return folder


def test_a_language_model_is_asked_as_a_unified_one(chatty):
    model = prompt_only.LanguageModel(str(chatty), "You are Pip.", "cpu")
    asked = [("Who are you?", "I am Pip."), ("Hello", "Good day to you, my friend.")]
    found = answer_log_p(model, [None] * 2, [[pair] for pair in asked])
    for (prompt, reply), mean in zip(asked, found):
        given = model.tokenizer.encode(f"system: You are Pip.\nuser: {prompt}\nassistant:")
        ids = torch.tensor([given + model.tokenizer.encode(reply) + [model.tokenizer.eos_token_id]])
        log_p = model.lm(ids).logits[0].log_softmax(-1)
        wanted = log_p[range(len(given) - 1, ids.shape[1] - 1), ids[0, len(given):]].mean()
        torch.testing.assert_close(mean[0], wanted, atol=1e-4, rtol=0)
    prompts = [prompt for prompt, _ in asked]
    assert model.generate_text(prompts, max_tokens=6) == [model.generate_text([p], max_tokens=6)[0] for p in prompts]


def test_prompt_only_makes_the_words_columns(chatty, workshop, here, capsys):
    line = ["--lm", str(chatty), "--char", str(workshop / "pip"), "--max-tokens", "4", "--seeds", "1"]
    prompt_only.main([*line, "--dump-prompts", "asked.jsonl"])
    out = here / "runs" / "pip" / "prompt-only" / chatty.stem
    assert "bits per byte" in capsys.readouterr().out and "knowledge" in (out / "table.md").read_text()
    found = json.loads((out / "eval.json").read_text())["stages"][chatty.stem]
    assert found["figures"]["knowledge"]["n"] == 3 and len(found["told"]["judged"]) == 3
    assert "Pip likes the beach." in found["system"] and "Pip likes the beach." in Path("asked.jsonl").read_text()
    first = json.loads(Path("asked.jsonl").read_text().splitlines()[0])
    Path("scores.jsonl").write_text(json.dumps({"id": first["id"], "score": 5}))
    prompt_only.main([*line, "--read-scores", "scores.jsonl"])
    assert "judge: personality, 1 to 7 | 5.000 (2 of 3 missing)" in (out / "table.md").read_text()
    assert "--lm" in mistake(capsys, prompt_only.main, "--char", str(workshop / "pip"))
    assert "--seeds 0" in mistake(capsys, prompt_only.main, "--lm", "none", "--seeds", "0")


def test_a_reference_picture_reaches_the_drawing(small):
    plain, shown = small.sample_images(["Pip."], [0], 2), small.sample_images(["Pip."], [0], 2, images=[picture(5)])
    assert apart(plain[0], shown[0]) > 1
# ---- the study: many rows --------------------------------------------------------------------------------------------

TRAIN = """
import pathlib, sys
words = sys.argv[1:]
out = pathlib.Path(words[words.index("--out") + 1])
out.mkdir(parents=True)
print("training")
if "--fail" in words:
    sys.exit("error: no | luck")
(out / "value").write_text(str(float(words[words.index("--value") + 1]) + int(words[words.index("--seed") + 1])))
"""
TOY_SCORE = """
import json, pathlib, sys
words = sys.argv[1:]
out, made = (pathlib.Path(words[words.index(name) + 1]) for name in ("--out", "--of"))
value = float((made / "value").read_text())
it = {"figures": {"clip_t": {"mean": value}, "gap": None}, "values": {"clip_t": [value, 3 * value, None]}}
out.mkdir(parents=True, exist_ok=True)
(out / "eval.json").write_text(json.dumps({"stages": {"base": {"figures": {}}, "it": it}}))
"""


class ToyStudy:
    """Two scripts that only pass a number on, and a study of them."""
    def __init__(self, folder: Path):
        self.folder, self.pip = folder, stranger(folder / "pip")
        for name, code in (("train", TRAIN), ("score", TOY_SCORE)):
            (folder / f"{name}.py").write_text(code)
        self.train, self.score = f"{folder}/train.py", f"{folder}/score.py"
        self.rows = {"one": f"{self.train} --value 1", "two": f"{self.train} --value 1.5 --model {{one}}/train",
                     "broken": f"{self.train} --fail"}
        self.more, self.shown = {}, ["clip_t"]              # more of each row; the measures

    def main(self, *words):
        rows = [{"name": name, "commands": [words], **self.more} for name, words in self.rows.items()]
        group = {"characters": [str(self.pip)], "seeds": 3, "reference": "one", "shown": self.shown, "rows": rows}
        record = {"eval": f"{self.score} --of {{made}}", "minutes": {self.train: 20, self.score: 4},
                  "groups": {"toys": group}}
        (self.folder / "rows.json").write_text(json.dumps(record))
        for cached in (files.code_digest, study.character_digest, study.weights_digest):
            cached.cache_clear()                            # as in a process of its own
        study.main([*words, "--rows", str(self.folder / "rows.json")])

    def made(self) -> set[str]:
        """The results that are new since this was last asked."""
        found = {file for file in Path("runs").rglob("*") if file.name in ("value", "eval.json")}
        new = {"/".join(file.parts[-4:-1]) for file in found if file.stat().st_mtime_ns != 1}
        for file in found:
            os.utime(file, ns=(1, 1))
        return new


@pytest.fixture
def toys(here):
    return ToyStudy(here)


def cells(name: str) -> list[list[str]]:
    """Of the lines in study.md that begin with a row's name: plain, then compared."""
    lines = Path("runs/study/study.md").read_text().splitlines()
    return [[cell.strip() for cell in line.split("|")[2:-1]] for line in lines if line.startswith(f"| {name} |")]


def test_a_study_finishes_what_it_can_and_its_table_holds_the_known_numbers(toys, capsys):
    toys.main("run")
    told = capsys.readouterr().out
    assert "broken, pip, seed 1, train: failed: no | luck" in told and "12 done, 6 failed" in told
    assert toys.made() == {f"{row}/{seed}/{stem}" for row in ("one", "two") for seed in range(3)
                           for stem in ("train", "score")}
    toys.main("table")
    one, = cells("one")                                     # 1, 2, 3: the standard error is 1 / sqrt(3), Student's t 4.3
    assert one == ["2.000 [-0.483, 4.483]", "0.0", "3 of 3"]
    two, difference, items = cells("two")
    assert two[0] == "2.500 [0.017, 4.983]" and difference[0] == "0.500 [0.500, 0.500]"
    assert items == ["1.000 [-5.355, 7.355]"]               # .5 and 1.5, each the same for all seeds; t is 12.71
    assert cells("broken") == [["-", "-", "0 of 3; failed: no / luck"]] * 2 + [["-"]]
    assert f"- two: `python {toys.rows['two']}`" in Path("runs/study/study.md").read_text()
    toys.rows["broken"] += " --value 7 --fixed"
    toys.rows["broken"] = toys.rows["broken"].replace("--fail ", "")
    toys.main("run")                                        # a failure is tried again; nothing else is
    assert toys.made() == {f"broken/{seed}/{stem}" for seed in range(3) for stem in ("train", "score")}


def test_rows_of_fewer_seeds_count_each_seed_once(monkeypatch):
    three, two, one = (study.Row(name, "g", ("eval.py",), (1.0,), seeds, ()) for name, seeds in
                       (("three", 3), ("two", 2), ("one", 1)))
    known = {"three": [1.0, 2.0, 9.0], "two": [2.0, 4.0, 4.0], "one": [5.0, 5.0, 5.0]}       # filled up, as they are read
    monkeypatch.setattr(study, "values_of", lambda _, row, *rest: np.array(known[row.name]).reshape(1, 1, 3))
    monkeypatch.setattr(study, "about_runs", lambda *_: [])
    taken = []
    monkeypatch.setattr(study, "over_runs", lambda values: taken.append(values.ravel().tolist()))
    group = {"shown": ["clip_t"], "reference": three}
    study.table_of(None, group, [three, two, one], ["pip"], compared=False)
    assert taken == [[1, 2, 9], [2, 4], [5]]
    taken.clear()
    study.table_of(None, group, [three, two, one], ["pip"], compared=True)
    assert taken == [[1, 2], [4, 3, -4]]


def test_items_of_all_characters_are_compared_in_pairs_and_each_counts_once():
    one = [({"clip_t": [1.0, 2.0], "gap": []}, {"clip_t": [0.0, 2.0]}), ({"clip_t": [3.0, 2.0]}, {"clip_t": [0.0, 0.0]})]
    other = [({"clip_t": [5.0, None]}, {"clip_t": [2.0, 1.0]}), ({}, {"clip_t": [2.0, 1.0]})]
    found = study.item_by_item([one, other], "clip_t")      # 2 and 1, the means over two seeds; 3
    assert (found.mean, found.n) == (2.0, 3)
    assert study.item_by_item([one, other], "gap") is None and study.item_by_item([one, other], "reader") is None


def test_a_row_of_one_seed_is_compared_with_each_of_the_others_item_by_item_too(monkeypatch):
    three, one = (study.Row(name, "g", ("eval.py",), (1.0,), seeds, ()) for name, seeds in (("three", 3), ("one", 1)))
    known = {"three": [1.0, 2.0, 9.0], "one": [5.0, 5.0, 5.0]}                               # filled up, as they are read
    monkeypatch.setattr(study, "evaluated", lambda _, row, stage, char, seed: {"values": {"clip_t": [known[row.name][seed]] * 3}})
    lines = study.item_table(None, {"shown": ["clip_t", "gap"], "reference": three}, [three, one], ["pip"])
    assert lines == [["", "CLIP-T"], ["one", "1.000 [1.000, 1.000]"]]                        # 5 - 4


def test_what_is_stale_is_told_and_made_anew_only_when_asked(toys, capsys):
    toys.main("run", "--only", "two")                       # brings what it begins with
    assert toys.made() == {f"{row}/{seed}/{stem}" for row, stems in (("one", ["train"]), ("two", ["train", "score"]))
                           for seed in range(3) for stem in stems}
    toys.rows["one"] += " --more"
    capsys.readouterr()
    toys.main("run", "--only", "two")
    assert "9 stale" in capsys.readouterr().out and not toys.made()
    toys.main("table")
    assert "3 of 3; stale: other what it begins with" in cells("two")[0]
    toys.main("run")                                        # what would begin with a stale result is refused
    assert "which is stale: other options" in capsys.readouterr().out and not toys.made()
    toys.main("run", "--again", "--only", "one,two")
    assert len(toys.made()) == 12
    (toys.folder / "score.py").write_text(TOY_SCORE + "\nOTHER = 'code'\n")
    toys.main("run", "--again", "--only", "one,two")        # of this, the evaluations alone are made anew
    assert toys.made() == {f"{row}/{seed}/score" for row in ("one", "two") for seed in range(3)}
    (toys.pip / "character.json").write_text((toys.pip / "character.json").read_text() + "\n")
    toys.main("plan", "--only", "one")
    assert "3 stale: other character" in capsys.readouterr().out


def test_the_mixtures_of_the_study_leave_out_what_their_names_say_and_change_nothing_else():
    """What a row takes away may go to one other task, so that as many are learned."""
    pictures, priors = {"t2i", "t2i_dialogue", "t2i_plan", "prior"}, {"prior_reply", "prior_knowledge"}
    tasks = {part.split("=")[0] for part in sft.Options.mix.split(",")}
    left_out = {"text only": pictures, "pictures only": tasks - pictures, "without thinking": {"think", "t2i_plan"},
                "no prior of pictures": {"prior"}, "no prior of words": priors, "no prior of seeing": {"prior_vqa"},
                "no lines to others": {"nearby"}, "no priors": priors | {"prior", "prior_vqa"}}
    usual = sft.parse_mix(sft.Options.mix, tasks)
    groups = json.loads(Path(study.__file__).with_name("study.json").read_text())["groups"].values()
    mixes = {row["name"]: sft.parse_mix(found[1], tasks) for group in groups for row in group["rows"]
             for command in row["commands"] if (found := re.search(r"^sft.py.* --mix (\S+)", command))}
    assert {name: tasks - mix.keys() for name, mix in mixes.items()} == left_out
    for name, mix in mixes.items():
        more = {task: count - usual[task] for task, count in mix.items() if count != usual[task]}
        assert not more or sum(more.values()) == sum(usual[task] for task in left_out[name]) and len(more) <= 2, name


def test_a_plan_tells_what_a_study_takes(toys, capsys):
    toys.rows.pop("broken")
    toys.main("plan")
    told = capsys.readouterr().out                          # 6 runs of 24 minutes, two at once
    assert "in all 1.2 hours with --jobs 2; 1.2 hours are left" in told and f"python {toys.rows['two']}" in told
    toys.main("run", "--only", "one", "--seeds", "1")
    for name, minutes in (("train", 60), ("score", 4)):
        file = Path(f"runs/study/pip/one/0/{name}.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"minutes": minutes}))
    toys.main("plan", "--jobs", "1")                        # train.py took three times what was estimated: so will "two"
    assert "in all 6.4 hours with --jobs 1; 5.3 hours are left" in capsys.readouterr().out


@pytest.mark.parametrize("change, words", [
    (lambda toys: toys.rows.update(three=f"{toys.train} --model {{four}}/train"), "{four}/train: no such row above it"),
    (lambda toys: toys.rows.update(One=toys.train), "the name of another row"),
    (lambda toys: toys.rows.pop("one"), 'row "two"'), (lambda toys: toys.rows.update(three=3), '"three"'),
    (lambda toys: toys.rows.update(three="trian.py --value 1"), "trian.py: no such script"),
    (lambda toys: toys.rows.update(three=f"{toys.train} --char=hester --seed 3"), "--char is the study's to give; --seed"),
    (lambda toys: toys.rows.update(three="sft.py --stpes 9"), "sft.py: unrecognized arguments: --stpes 9"),
    (lambda toys: toys.rows.update(three="sft.py --steps many"), "invalid int value: 'many'"),
    (lambda toys: toys.rows.update({"two, three": toys.train}), "words without a comma"),
    (lambda toys: toys.more.update(minutes=["3"]), "minutes must be a list of numbers"),
    (lambda toys: toys.more.update(commands="sft.py"), "commands must be a list of texts"),
    (lambda toys: toys.more.update(seeds=0), "seeds must be a whole number"),
    (lambda toys: toys.shown.append("colors"), "shown: colors: no such measure"),
    (lambda toys: toys.rows.update(three="grpo.py --group 4"), "needs --model, such as {SFT}/sft")])
def test_rows_that_cannot_be_are_one_line(toys, capsys, change, words):
    change(toys)
    assert words in mistake(capsys, lambda line: toys.main(*line), "plan")
    assert "plan, run or table" in mistake(capsys, study.main) and "plan, run or table" in mistake(capsys, study.main, "plann")


def test_what_a_result_stands_on_is_the_code_that_its_script_imports():
    files_of = {name: {str(path.relative_to(HERE)) for path in files.imported_files(HERE / f"{name}.py")}
                for name in ("sft", "grpo", "eval")}
    assert {"sft.py", "model.py", "data.py", "runtime/__init__.py", "runtime/runs.py"} <= files_of["sft"]
    assert "grpo.py" not in files_of["sft"] and {"grpo.py", "rewards.py", "sft.py"} <= files_of["grpo"]
    assert not any("test_all.py" in names or "runtime/plan.py" in names for names in files_of.values())


def test_stage_1_shows_the_bits_that_eval_measures(workshop):
    model, character = load(workshop / "base", "cpu"), load_character("coco")
    talk = [turn for turn in character.test["dialogues"] + character.test["scenes"] if turn["reply"]]
    prompts = [reply_prompt("Coco", character.description, character.opening, turn["user"]) for turn in talk]
    true = evaluation.true_replies(model, prompts, [turn["reply"] for turn in talk])
    before = torch.get_rng_state()
    assert sft.held_out_bits(model, character, "fp32") == pytest.approx(true["bits"].sum() / true["bytes"].sum(), rel=1e-4)
    assert torch.equal(before, torch.get_rng_state())                   # a run that shows them is the run without
    none = replace(character, test=character.test | {"dialogues": [], "scenes": []})
    assert sft.held_out_bits(model, none, "fp32") is None


def test_a_better_explanation_makes_no_result_stale(tmp_path):
    def does(text: str) -> str:
        (tmp_path / "a.py").write_text(text)
        return files.what_it_does(tmp_path / "a.py")
    plain = does("def f(x):\n    return x\n")
    assert does('"""About it."""\n# why\ndef f(x):\n    """Of x."""\n    return x     # so\n') == plain
    assert does("def f(x):\n    return -x\n") != plain and does("def f(x=1):\n    return x\n") != plain
    assert does("def f(x):\n    return 'a'\n") != does("def f(x):\n    return 'b'\n")


def test_the_rows_of_the_paper_are_commands_that_their_scripts_take():
    """Every option of every row, asked of the script's own parser."""
    rows = study.Study(study.Options())
    assert len(rows.rows) > 30 and "SFT + GRPO" in rows.rows
    for result in {result.command: result for result in rows.results()}.values():
        script, *options = rows.words(result)
        if Path(script).exists():
            module = importlib.import_module(".".join(Path(script).relative_to(HERE).with_suffix("").parts))
            cli.parse_options(module.Options, "", options)


SMALL_EVAL = ("--seeds 1 --prompts 2 --items 2 --steps 1 --others 1 --leak-prompts 1 --leak-lines 1 --max-tokens 4 "
              "--no-unguided")


def test_a_study_of_real_commands_is_interrupted_and_goes_on(workshop, here, capsys):
    """Ctrl-C while stage 1 runs: it saves and ends, and the same command goes on from there. The base, which a row
    measured, is taken over by the evaluation of the other."""
    group = {"characters": [str(workshop / "pip")], "seeds": 1, "reference": "SFT", "shown": ["bits_per_byte", "clip_t"]}
    usual = f"eval.py --base {workshop}/base --grpo none {SMALL_EVAL}"
    group["rows"] = [{"name": "SFT", "commands": [f"sft.py {shlex.join(sft_line(workshop)[2:])}"],
                      "eval": f"{usual} --sft {{made}}"}]
    (here / "rows.json").write_text(json.dumps({"eval": "", "minutes": {}, "groups": {"toys": group}}))
    line = ["run", "--rows", "rows.json", "--jobs", "1"]
    state = here / "runs/study/pip/sft/0/sft/state.safetensors"

    def press():
        while not state.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        study.main(line)
    assert "sft: stopped" in capsys.readouterr().out        # and not failed
    study.main(line)
    assert "2 done" in capsys.readouterr().out
    told = (here / "runs/study/pip/sft/0/sft.txt").read_text()
    assert "stopped at step" in told and "going on from step" in told
    figures = json.loads((here / "runs/study/pip/sft/0/eval/eval.json").read_text())["stages"]["SFT"]["figures"]
    study.main(["table", "--rows", "rows.json"])
    assert cells("SFT")[0][:2] == [f"{figures[key]['mean']:.3f}" for key in group["shown"]]


def test_a_base_that_is_known_is_not_measured_again(workshop, here, capsys, monkeypatch):
    small = ["--char", str(workshop / "pip"), "--base", str(workshop / "base"), "--grpo", "none", *SMALL_EVAL.split()]
    other = here / "other"
    save(load(workshop / "base", "cpu"), other)
    whole, base, rest = here / "whole", here / "base", here / "rest"
    evaluation.main([*small, "--sft", str(other), "--out", str(whole)])
    evaluation.main([*small, "--sft", "none", "--out", str(base)])
    asked = []
    measure = evaluation.evaluate
    monkeypatch.setattr(evaluation, "evaluate", lambda stage, *more: (asked.append(stage.name), measure(stage, *more))[1])
    evaluation.main([*small, "--sft", str(other), "--out", str(rest), "--known", str(base / "eval.json")])
    assert asked == ["SFT"]
    evaluation.main([*small, "--sft", str(other), "--out", str(rest), "--known", str(rest / "eval.json")])
    assert asked == ["SFT"]
    changed = load(other, "cpu")
    changed.llm2vae.bias.data += 0.1
    save(changed, other)
    evaluation.main([*small, "--sft", str(other), "--out", str(here / "new"), "--known", str(rest / "eval.json")])
    assert asked == ["SFT", "SFT"]                          # by that name it was measured, but not these weights
    one, two = (json.loads((folder / "eval.json").read_text())["stages"] for folder in (whole, rest))
    assert one.keys() == two.keys() and len(json.loads((base / "eval.json").read_text())["stages"]) == 2
    for name in one:
        for key, value in one[name]["figures"].items():
            mean = two[name]["figures"][key] and two[name]["figures"][key]["mean"]
            assert mean == (value and pytest.approx(value["mean"], abs=2e-3, nan_ok=True)), key
    line = mistake(capsys, evaluation.main, *small, "--known", base / "eval.json", "--seeds", 2)
    assert "other --seeds" in line
    (here / "old.json").write_text('{"stages": {}}')
    assert "make it anew" in mistake(capsys, evaluation.main, *small, "--known", "old.json")
    others = json.loads((base / "eval.json").read_text())
    others["subjects"][0] = "a purple yak"
    (here / "others.json").write_text(json.dumps(others))
    assert "other subjects" in mistake(capsys, evaluation.main, *small, "--known", "others.json")


def test_fewer_pictures_are_the_first(tmp_path, capsys):
    pip = str(stranger(tmp_path / "pip"))
    few = sft.chosen_character(sft.Options(char=pip, scenes=1))
    assert [scene["draw"] for scene in few.scenes] == ["Pip holds ball 0."]
    assert len(sft.chosen_character(sft.Options(char=pip)).scenes) == 3
    with pytest.raises(UserError, match="--scenes -1"):
        sft.chosen_character(sft.Options(char=pip, scenes=-1))


def test_the_published_diversity_cancels_in_its_group(small):
    """One number for the whole group, above what one prompt's pictures have in common: nothing of it is learned."""
    images = [smooth(seed, 32) for seed in (1, 2, 3, 4)]
    prompts = [Prompt("A ball.", []), Prompt("A kite.", [])]
    found = {}
    for ours in (True, False):
        judge = Rewards(RewardOptions(reader="", diversity_per_picture=ours), images, small)
        found[ours] = judge([*images[:3], *images[1:]], prompts)["diversity"]
    torch.testing.assert_close(found[False], found[True].mean(1, keepdim=True).expand(2, 3))
    assert grpo.advantages(found[True])[1].all() and not grpo.advantages(found[False])[1].any()


def test_stage_two_tells_of_a_stage_one_that_was_stopped(workshop, here, capsys):
    sft.main(sft_line(workshop, "--steps", 2, *FEW))
    grpo.main(grpo_line(workshop, "--iterations", 1, "--out", "first"))
    assert "stopped at step" not in capsys.readouterr().out
    config = Path("runs/pip/sft/config.json")
    config.write_text(config.read_text().replace('"steps": 2', '"steps": 9'))
    grpo.main(grpo_line(workshop, "--iterations", 1, "--out", "second"))
    assert "stopped at step 2 of 9" in capsys.readouterr().out
    grpo.main(grpo_line(workshop, "--iterations", 1, "--model", "first", "--out", "third"))
    assert "first has been through stage 2 before" in capsys.readouterr().out


def test_a_stage_one_that_was_moved_is_told_with_its_remedy(workshop, here, capsys):
    sft.main(sft_line(workshop, "--steps", 1, *FEW))
    grpo.main(grpo_line(workshop, "--iterations", 1, "--out", "first"))
    Path("runs/pip/sft").rename("elsewhere")
    line = grpo_line(workshop, "--iterations", 1, "--model", "first", "--out", "second")
    assert "runs/pip/sft, which is not there; give --base" in mistake(capsys, grpo.main, *line)
    grpo.main([*line, "--base", str(workshop / "base")])


# ---- the blind study -------------------------------------------------------------------------------------------------

def blind_tasks() -> list[blind.Task]:
    """Three methods; what the one called Amber makes is marked, so that a test can prefer it."""
    def made(kind: str, i: int) -> blind.Task:
        task = blind.Task(kind, f"Line {i} </script><b>bold</b>")
        for number, method in enumerate(("Amber", "Basalt", "Cobalt")):
            if kind != "picture":
                task.texts[method] = f"{'Fine!' if method == 'Amber' else 'Hm.'} It is {method[0]}{i}."
            if kind != "text":
                task.images[method] = smooth(10 * i + number, 32 * (number + 1))
        return task
    return [made(kind, i) for i, kind in enumerate(["text"] * 4 + ["multimodal"] * 2 + ["picture"] * 2)]


def test_nothing_in_the_page_names_its_method(tmp_path, capsys):
    tasks = blind_tasks()
    tasks[0].texts["Basalt"] = "I was made by Basalt."
    page = blind.write_study(tmp_path, load_character(stranger(tmp_path / "pip")), tasks, repeats=0.25).read_text()
    assert not re.search("amber|basalt|cobalt|https?:", page, re.I)
    assert "2 pairs are left out" in capsys.readouterr().out
    study = json.loads(re.search(r'type="application/json">(.*?)</script>', page)[1])
    key = json.loads((tmp_path / "key.json").read_text())["trials"]
    assert len(study["trials"]) == len(key) == 8 * 3 - 2 and {trial["id"] for trial in study["trials"]} == key.keys()
    sides = [trial[side]["image"] for trial in study["trials"] for side in "xy" if trial[side]["image"]]
    sizes = {Image.open(io.BytesIO(base64.b64decode(side.partition(",")[2]))).size for side in sides}
    assert sizes == {(96, 96)} and len(sides) == 2 * 4 * 3
    assert len({row["x"] for row in key.values()}) == 3                 # no method always stands on one side


def voted(folder: Path, rater: str, prefer) -> Path:
    key = json.loads((folder / "key.json").read_text())
    rows = [{"trial": name, "choice": prefer(trial), "repeat": False} for name, trial in key["trials"].items()]
    other = "x" if rows[1]["choice"] == "both bad" else "both bad"
    rows += [rows[0] | {"repeat": True}, rows[1] | {"repeat": True, "choice": other}]
    file = folder / f"choices-{rater}.json"
    file.write_text(json.dumps({"study": key["study"], "rater": rater, "choices": rows}))
    return file


def test_tally_counts_known_choices(tmp_path, capsys):
    blind.write_study(tmp_path, load_character(stranger(tmp_path / "pip")), blind_tasks())

    def amber(trial):
        return next((side for side in "xy" if trial[side] == "Amber"), "both good")

    def half(trial):
        return amber(trial) if trial["prompt"] % 2 else "both bad"
    files = [voted(tmp_path, "Ann", amber), voted(tmp_path, "Bob", half)]
    told = blind.tally(files, tmp_path / "key.json")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.split("\n")]
    table = {tuple(row[:3]): row[3:] for row in rows if len(row) == 9}
    first, second, _, bad, choices, prompts = table["text", "Amber", "Basalt"]
    assert first.startswith("75 %") and second == "0 % (0 to 49)" and bad.startswith("25 %")
    assert (choices, prompts) == ("8", "4")
    low, high = map(int, re.findall(r"\((\d+) to (\d+)\)", first)[0])
    assert low == 50 and high == 100                # four prompts of 1 and .5: clusters, not eight free choices
    assert table["text", "Basalt", "Cobalt"][2].startswith("75 %")
    assert "2 raters; 2 of 4 pairs" in told and "(chance: " in told
    votes = [blind.Vote(rater, "one", choice, repeat) for rater, choice in (("Ann", "both good"), ("Bob", "both bad"))
             for repeat in (False, True)]
    assert "2 of 2 pairs" in blind.agreement(votes) and "(chance: 100 %)" in blind.agreement(votes)
    for main, word in ((blind.main, "tally"), (evaluation.main, "--tally")):
        main([word, str(tmp_path / "key.json"), *map(str, files)])
        assert told.strip() in capsys.readouterr().out


def test_the_stages_that_are_there_are_compared_by_default(workshop, here, monkeypatch):
    seen = []
    monkeypatch.setattr(blind, "make_tasks", lambda character, methods, o: seen.append(methods) or blind_tasks())
    save(load(workshop / "base", "cpu"), "runs/pip/sft")
    evaluation.main(["--blind", "study", "--char", str(workshop / "pip")])
    assert list(seen[0]) == ["base", "SFT"] and Path("study/study.html").exists()


@pytest.mark.parametrize("harm, words", [
    (lambda row: row | {"study": "other"}, "another study"), (lambda row: [], "not the choices"),
    (lambda row: row | {"choices": [{"trial": "no", "choice": "x", "repeat": False}]}, "cannot make"),
    (lambda row: row | {"rater": "Ann"}, "stands in")])
def test_broken_choices_are_one_line(tmp_path, capsys, harm, words):
    blind.write_study(tmp_path, load_character(stranger(tmp_path / "pip")), blind_tasks())
    files = [voted(tmp_path, rater, lambda trial: "x") for rater in ("Ann", "Bob")]
    files[1].write_text(json.dumps(harm(json.loads(files[1].read_text()))))
    assert words in mistake(capsys, blind.main, "tally", tmp_path / "key.json", *files)


def test_a_rater_works_through_the_page(piped_browser, tmp_path):
    """With keys and clicks, an interruption, a change of mind; then the tally of the file that the page gave."""
    character = load_character(stranger(tmp_path / "pip"))
    page = blind.write_study(tmp_path / "study", character, blind_tasks(), repeats=0.25)
    piped_browser.session, page_session = None, piped_browser.session
    piped_browser("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    piped_browser.session = page_session

    def begin():
        piped_browser.go(page.as_uri())
        piped_browser.run("document.getElementById('rater').value = 'Ann'")
        piped_browser.run("document.querySelector('form').requestSubmit()")

    def shown(side: str) -> str:
        return piped_browser.run(f"document.getElementById('{side}').innerText + document.getElementById('{side}').innerHTML")

    def progress() -> str:
        return piped_browser.run("document.getElementById('progress').textContent")

    def prefer_fine(seen: list):
        seen.append((piped_browser.run("document.getElementById('prompt').textContent"), shown("A"), shown("B")))
        piped_browser.press("1" if "Fine!" in shown("A") else "2" if "Fine!" in shown("B") else "3")
    begin()
    assert progress() == "1 / 30." and not piped_browser.run("document.querySelector('#prompt b')")
    piped_browser.press("4")
    piped_browser.run("document.getElementById('undo').click()")
    assert progress() == "1 / 30."
    seen = []
    for _ in range(10):
        prefer_fine(seen)
    begin()                                                 # the page was closed: it goes on where it was
    assert progress() == "11 / 30."
    for _ in range(20):
        if piped_browser.run("!!document.querySelector('#A img')"):
            piped_browser.run("document.querySelector('#A img').click()")
            assert not piped_browser.run("document.getElementById('zoom').hidden")
            piped_browser.press("1")                              # closes the picture, and is no choice
        prefer_fine(seen)
    assert len(set(seen)) == 30                             # what comes twice has its sides exchanged
    piped_browser.run("document.getElementById('finish').click()")
    piped_browser.press("Backspace")
    piped_browser.run("document.getElementById('download').click()")
    file = tmp_path / "choices-Ann.json"
    for _ in range(100):
        if file.exists():
            break
        time.sleep(0.05)
    choices = json.loads(file.read_text())["choices"]
    assert len(choices) == 30 and sum(row["repeat"] for row in choices) == 6
    told = blind.tally([file], tmp_path / "study" / "key.json")
    assert "| text | Amber | Basalt | 100 % (51 to 100) | 0 % (0 to 49)" in told and "6 of 6 pairs" in told
    begin()                                                 # locked for good
    piped_browser.run("document.getElementById('back').click()")
    assert piped_browser.run("document.getElementById('open').hidden") and progress() != "30 / 30."


def test_a_study_of_real_checkpoints(workshop, chatty, here, capsys):
    methods = f"one = {workshop / 'base'}, two = {workshop / 'base'}"
    blind.main(["write", "study", "--char", str(workshop / "pip"), "--methods", methods, "--items", "2",
                "--steps", "2"])
    key = json.loads(Path("study", "key.json").read_text())
    assert Counter(row["kind"] for row in key["trials"].values()) == {"text": 2, "multimodal": 2, "picture": 2}
    tasks = blind.make_tasks(load_character("coco"), {}, blind.Options())           # not all of her scenes have words
    assert len(tasks) == 3 * 12 and all(task.prompt for task in tasks)
    assert "two or more" in mistake(capsys, blind.main, "write", "study", "--methods", "one=tiny/base")
    assert "give: write" in mistake(capsys, blind.main, "tally", "study/key.json")
    line = ["--char", str(workshop / "pip"), "--items", "2", "--steps", "2"]
    blind.main(["write", "more", *line, "--methods", f"{methods}, three = lm:{chatty}", "--against", "two"])
    rows = json.loads(Path("more", "key.json").read_text())["trials"].values()
    assert Counter((row["kind"], *sorted((row["x"], row["y"]))) for row in rows) == {
        ("text", "one", "two"): 2, ("multimodal", "one", "two"): 2, ("picture", "one", "two"): 2,
        ("text", "three", "two"): 2}                        # never one and three; of a language model words alone
    assert "none of the methods" in mistake(capsys, blind.main, "write", "x", *line, "--methods", methods, "--against", "me")
    old = Path("study/key.json").read_text()                # which choices that raters send back need
    assert "is there already" in mistake(capsys, blind.main, "write", "study", "--methods", methods)
    assert Path("study/key.json").read_text() == old
    Path("file").write_text("")
    assert "no folder can be made" in mistake(capsys, blind.main, "write", "file", "--methods", methods)


# ---- the embedded base and its world ---------------------------------------------------------------------------------

def test_pretraining_on_two_processes_is_training_on_both_their_batches(tmp_path, monkeypatch):
    from tiny.training import trainer

    def loss(module, seed: int):
        return module(torch.full((2, 4), random.Random(seed).random())).square().mean()

    def trained(folder: str, loss_of) -> torch.Tensor:
        torch.manual_seed(0)
        module = torch.nn.Linear(4, 3)
        (tmp_path / folder).mkdir()
        trainer.Trainer(tmp_path / folder, "linear", module, 5, 1e-2).run(
            lambda step, rng: loss_of(module, step, rng))
        return module.weight.detach()

    def both(module, step, rng):
        value = (loss(module, 2 * step) + loss(module, 2 * step + 1)) / 2
        value.backward()
        return {"loss": value.detach()}

    def own(module, step, rng):
        others = torch.autograd.grad(loss(module, 2 * step + 1), module.parameters())      # of the other process
        whole_of_other = torch.cat([gradient.flatten() for gradient in others])
        monkeypatch.setattr(trainer.dist, "all_reduce", lambda whole: whole.add_(whole_of_other))
        value = module(torch.full((2, 4), rng.random())).square().mean()
        value.backward()
        return {"loss": value.detach()}
    alone = trained("alone", both)
    monkeypatch.setattr(trainer, "world_size", lambda: 2)
    assert torch.allclose(trained("first of two", own), alone, atol=1e-7)


def test_the_base_begins_with_a_circuit_that_looks_back(monkeypatch):
    """In random tokens that stand twice, the head of the second layer looks behind the first of the two."""
    import model as model_file
    from tiny.training.words import begin
    torch.manual_seed(0)
    model = UniModel(Config(), None)
    model.init_weights()
    begin(model)
    heads, seen = model.config.num_attention_heads - 2, []

    def attend(q, k, v, mask):
        shared = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        weight = (q @ k.mT * q.shape[-1] ** -0.5 + mask).softmax(-1)
        seen.append(weight[0, heads])
        return weight @ v
    monkeypatch.setattr(model_file, "attend", attend)
    half = torch.randperm(4000)[:30] + 10
    ids = torch.cat((half, half))[None]
    decoder = model.language_model.model
    x = decoder.embed_tokens(ids)
    with torch.no_grad():
        decoder(x, x[:, :0], torch.arange(60)[None])
    rows = torch.arange(30, 59)
    assert seen[0][rows, rows - 1].mean() > 0.9           # the first layer: the token before
    assert seen[1][rows, rows - 29].mean() > 0.5          # the second: what stood behind this token the last time
    assert model.language_model.lm_head.weight is decoder.embed_tokens.weight


def test_a_line_is_known_by_its_sense(tmp_path, small, monkeypatch):
    """The vector of a line is the mean of its words', without what all lines share. It is asked for where the reply
    begins, of the texts that have a line and of no others."""
    from safetensors.torch import save as to_bytes
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tiny.training import sense, words
    vectors = torch.eye(4)[:, :3] + torch.tensor([0.0, 0.0, 1.0])
    reads = Tokenizer(models.WordLevel({"[UNK]": 0, "cat": 1, "dog": 2, "sea": 3}, "[UNK]"))
    reads.pre_tokenizer = pre_tokenizers.Whitespace()
    with zipfile.ZipFile(tmp_path / "wordllama-1-py3.whl", "w") as wheel:
        wheel.writestr("wordllama/weights/l2_supercat_256.safetensors", to_bytes({"embedding.weight": vectors}))
        wheel.writestr("wordllama/tokenizers/l2_supercat_tokenizer_config.json", reads.to_str())
    teacher = sense.Teacher(tmp_path, ["cat", "sea"])
    unit = torch.nn.functional.normalize
    shared = (unit(vectors[1], dim=0) + unit(vectors[3], dim=0)) / 2
    told = unit(unit((vectors[1] + vectors[2]) / 2, dim=0) - shared, dim=0)
    assert torch.allclose(teacher(["cat dog"])[0], told, atol=1e-6)

    monkeypatch.setattr(sense, "LAYER", 1)                 # of the two layers of `small`
    sees, heard = sense.Sense(small, tmp_path, ["cat", "sea"]), []
    monkeypatch.setattr(sees, "error", lambda head, hidden, target: heard.append((hidden, target)) or torch.zeros(()))
    texts = [words.Text("Hello there", "Yes", line="cat"), words.Text("No line", "here"), words.Text("A", "b", line="sea")]
    sees.hidden = torch.arange(40.0).expand(3, 40)[..., None]                     # every place tells its number
    sees.of_texts(small, texts)
    hidden, target = heard[0]
    assert hidden[:, 0].tolist() == [len(small.text_ids(text)) + 2 for text in ("Hello there", "A")]
    assert torch.allclose(target, teacher(["cat", "sea"]))
    sees.of_lines(small, random.Random(0))
    assert [len(hidden) for hidden, _ in heard[1:]] == [sense.LINES] * (sense.PERSONAS + 1)

    prompts, alone = ["A long beginning. " * 20 + end for end in ("Yes", "Not at all")], []
    with torch.no_grad():
        found = sees.heard(small, prompts)                 # what they share is read once, by the lower half
        for prompt in prompts:
            small.extend(small.context([prompt]), torch.tensor([[small.bos]]))
            alone.append(sees.hidden[0, -1])
    assert torch.allclose(found, torch.stack(alone), atol=1e-4) and not torch.allclose(found[0], found[1], atol=1e-2)
    assert len(small.language_model.model.layers) == 2


@pytest.mark.parametrize("name", ORIGINALS)
def test_no_original_is_in_the_world(name):
    """From the generator's own records: no creature of the random world is the original, no text names it, and no
    words about a picture name its color."""
    original = originals.load_original(name)
    species, fur = original.names["species"], original.names["fur"]
    color_word = {fur} - set(world.FURS)
    assert species not in world.SPECIES or fur not in world.SPECIES[species]
    if original.look.fur:
        assert min(math.dist(original.look.fur, color) for color in pen.COLORS.values()) > 60
    rng = random.Random(0)
    for _ in range(300):
        s, p = world.random_scene(rng), language.random_persona(rng)
        moment, talk = language.moment(p, rng), language.conversation(p, rng)
        drawn = " ".join([world.caption(s, rng), moment.instruction, moment.draw])
        said = " ".join([p.name, talk.description, language.profile(p), talk.user, talk.reply, moment.user,
                         moment.reply, moment.thinking])
        assert name not in re.findall(r"\w+", f"{drawn} {said}".lower())
        assert not color_word & set(re.findall(r"\w+", drawn.lower()))
        assert (species, fur) not in ((s.species, s.fur), (moment.scene.species, moment.scene.fur))


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_pictures_of_an_original_can_be_drawn(name):
    """Every picture that ships has a scene without conflict, and every scene has its picture."""
    original = originals.load_original(name)
    for file, attributes in original.pictures.items():
        assert world.conflict(world.Scene(**original.names, **attributes)) == "", file
        assert (HERE / "characters" / name / file).exists()


def test_what_a_persona_says_stands_in_its_prompt():
    """Whatever fact user and reply rest on, the description tells it: its value is there, word for word."""
    rng, checked = random.Random(3), 0
    same_words = ("likes", "dislikes", "food", "bad_food", "drink", "fear", "refuge", "friend", "friend_species", "pet",
                  "pet_name", "hobby", "habit", "treasure", "number", "elder", "rival", "loot", "bed", "weather",
                  "thing_name", "nickname", "catchphrase", "steps", "home", "job", "fur")
    for _ in range(400):
        p = language.random_persona(rng)
        talk = language.chat(p, rng)
        told = language.description(p, rng, talk.about).lower()
        for field in {field for named in talk.about.values() for field in named} & set(same_words):
            assert getattr(p, field).lower() in told, (field, talk, told)
            checked += 1
    assert checked > 300


def test_every_template_can_be_filled():
    """All topics, of personas with and without a hat, and no brace or bracket is left."""
    rng = random.Random(4)
    for _ in range(3):
        p = language.random_persona(rng)
        for topic in language.topics(p):
            for _ in range(8):
                talk = language.chat(p, rng, topic)
                assert talk.user and talk.reply and not set("{}[]") & set(talk.user + talk.reply), (topic, talk)


def test_real_english_is_tidied():
    assert tidy("im   fine , dont worry") == "I'm fine , don't worry."
    assert tidy("how r u?? i like it") == "How are you? I like it."
    assert tidy("see http://x.y") == tidy("have you seen Coco?") == tidy("\u4f60\u597d") == ""


def test_captions_say_what_is_drawn():
    """A caption of everything holds every attribute's own word: here, the things and their colors."""
    rng = random.Random(1)
    for _ in range(200):
        s = world.random_scene(rng)
        text = world.caption(s, rng)
        for word in (s.held, s.held_color, s.hat, s.hat_color, s.top_color, s.beside, s.beside_color):
            assert word in text, (s, text)


def test_the_clip_judge_reads():
    """New scenes: it tells their own text from the same text with one thing changed, and from all others."""
    rng, names = random.Random(2**31), (None, "Mupi")
    scenes = [world.random_scene(rng) for _ in range(48)]
    seeds = [rng.random() for _ in scenes]

    def captions(scenes):
        return [world.caption(s, random.Random(seed), names[i % 2]) for i, (s, seed) in enumerate(zip(scenes, seeds))]
    told, wrong = captions(scenes), captions([changed(s, rng) for s in scenes])
    judge = ClipJudge(device="cpu")
    fit = judge.embed([world.draw(s) for s in scenes])[0] @ judge.embed_text(told + wrong).T
    own, near = fit.diagonal(), fit[:, 48:].diagonal()
    differ = torch.tensor([a != b for a, b in zip(told, wrong)])
    assert differ.sum() > 30 and (own > near)[differ].float().mean() > 0.75
    assert (fit[:, :48].argmax(1) == torch.arange(48)).float().mean() > 0.85


def test_the_clip_judge_begins_with_the_eye():
    """Layers and patches are in their places: before any training both see about the same."""
    model = load(HERE / "tiny" / "base", "cpu")
    ours = model.vit_model["vision_model"]
    config = CLIPConfig.from_pretrained(HERE / "tiny" / "judge").vision_config
    torch.manual_seed(0)                                   # of its class token, which no weight of ours begins
    theirs = transformers.CLIPVisionModel(config).eval()
    pixels = torch.stack([to_pixels(world.draw(world.random_scene(random.Random(i)))) for i in range(4)])
    begin_with(theirs, dict(ours.float().state_dict()), pixels)
    places = torch.arange(64)[None].expand(4, -1)
    with torch.no_grad():
        seen, expected = theirs(pixel_values=pixels).last_hidden_state[:, 1:], ours(patchify(pixels, 16), places)
        seen = theirs.post_layernorm(seen)
    assert torch.cosine_similarity(seen, expected, dim=-1).mean() > 0.95


def test_the_base_gives_each_thing_its_color():
    """New scenes where clothes and fur differ in color: each has its own, as the reader sees it."""
    model, rng = load(HERE / "tiny" / "base", "cpu").eval(), random.Random(2**32)
    reader = AttributeReader(str(HERE / "tiny" / "reader"), "cpu")
    scenes = [s for s in (world.random_scene(rng, framing="full") for _ in range(60)) if s.top_color != s.fur][:24]
    with model.autocast("auto"):
        drawn = model.sample_images([world.caption(s, rng) for s in scenes], range(len(scenes)), 10)
    for name in ("top_color", "fur"):
        seen = [list(reader.columns[name])[k] for k in reader.classify(drawn)[name].argmax(-1).tolist()]
        assert sum(color == world.labels(s)[name] for color, s in zip(seen, scenes)) > 0.8 * len(scenes), name


def test_a_smeared_face_has_parts_that_no_true_picture_has():
    """As stage 2 smears it: the middle of the picture is mixed with itself, turned. A darker picture is
    no odder, and a training picture not odd at all."""
    reader, coco = AttributeReader(str(HERE / "tiny" / "reader"), "cpu"), load_character("coco")
    fit = lambda image: image.convert("RGB").resize((128, 128), Image.BICUBIC)
    trained = [fit(scene["image"]) for scene in coco.scenes]
    held = [fit(scene["image"]) for scene in coco.test["scenes"]]
    smeared = []
    for picture in held:
        face, smear = picture.crop((32, 16, 96, 80)), picture.copy()
        smear.paste(Image.blend(face, face.rotate(90), 0.5), (32, 16))
        smeared.append(smear)
    bank = reader.parts(trained)
    odd = lambda pictures: oddness(reader.parts(pictures), bank)
    assert odd(trained).abs().max() < 1e-5
    assert (odd(smeared) > odd(held)).all() and odd(smeared).mean() > 1.2 * odd(held).mean()
    darker = [ImageEnhance.Brightness(picture).enhance(0.9) for picture in held]
    assert odd(darker).mean() < 1.05 * odd(held).mean()


@pytest.mark.parametrize("name", ORIGINALS)
def test_true_pictures_of_an_original_show_what_its_prompts_ask_for(name):
    """The scale of diversity is of pictures that are right."""
    prompts, reader = load_character(name).test["prompts"], AttributeReader(str(HERE / "tiny" / "reader"), "cpu")
    original = originals.load_original(name)
    true_pictures = [originals.drawn_truly(original, p, i, {}) for i, p in enumerate(prompts)]
    assert reader.score(true_pictures, prompts).nanmean() > 0.85
    trained = load_character(name).prompts                  # what stage 2 asks for can be drawn
    asked = [originals.drawn_truly(original, p, i, {}) for i, p in enumerate(trained)]
    assert asked and reader.score(asked, trained).nanmean() > 0.85
    middle, varied = {"position": "center", "framing": "full"}, {}
    still = originals.true_diversity(original, middle, seeds=2)
    assert 0.05 < still < originals.true_diversity(original, varied, seeds=2) < 0.4


def test_the_autoencoder_keeps_what_an_original_always_wears():
    """Of what it changes in a picture, most is left behind the autoencoder. Of thin frames before Hester's eyes .44 was,
    and she was never drawn with any."""
    vae, config = folders.load_autoencoder(HERE / "tiny" / "base")

    def kept(images):
        return vae.decode(vae.encode(images)[0])
    worn = [(original, {part: ""}) for original in map(originals.load_original, ORIGINALS)
            for part, always in original.bare.items() if always]
    assert worn
    for original, bare in worn:
        with_it, without = (torch.stack([to_pixels(world.draw(world.Scene(**original.names, **(scene | less)), original.look,
                                                                     size=config.image_size))
                                         for scene in list(original.pictures.values())[:6]]) for less in ({}, bare))
        true, left = with_it - without, kept(with_it) - kept(without)
        assert (true * left).sum() > 0.6 * (true * true).sum(), (original.name, bare)


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_autoencoder_keeps_the_faces_of_an_original(name):
    """Behind it the reader still finds nearly all expressions. Of a Hester with thick frames before her eyes it found half."""
    original, judge = originals.load_original(name), rewards.AttributeReader()
    vae, config = folders.load_autoencoder(HERE / "tiny" / "base")
    prompts = [Prompt("", [Question("", expression, category="expression")]) for expression in world.EXPRESSIONS for _ in range(3)]
    drawn = [originals.drawn_truly(original, prompt, 1000 + i % 3, {"framing": "full"}) for i, prompt in enumerate(prompts)]
    pixels = torch.stack([to_pixels(image) for image in drawn])
    kept = to_images(vae.decode(vae.encode(pixels)[0]))
    assert judge.score(drawn, prompts).mean() > 0.95 and judge.score(kept, prompts).mean() > 0.85


def test_the_build_says_which_legs_there_are(tmp_path):
    """Every leg has its maker, a toy build differs in sizes that exist, and a leg that is unknown is one line."""
    assert all(callable(getattr(making.Build, leg)) for leg in making.Build.LEGS)
    assert making.QUICK.keys() <= {field.name for field in fields(making.Options)}
    with pytest.raises(UserError, match="no such leg"):
        making.main(["--only", "wrods", "--work", str(tmp_path / "tiny")])


def test_a_changed_world_is_not_mixed_with_old_pictures(tmp_path):
    """Pictures on disk belong to the tables that they were rendered from."""
    pictures = Pictures(tmp_path, scenes=20, moments=4, triplets=1, held_out=5)
    pictures.check()
    pictures.check()
    (tmp_path / "pictures.fingerprint").write_text("another world")
    with pytest.raises(UserError, match="have changed"):
        pictures.check()


def test_the_velocity_leads_to_the_picture():
    """A model that knows the picture has no error, whatever the near miss is that it is shown; one that knows the near
    miss has."""
    class Oracle:
        def __init__(self, goal):
            self.goal = goal

        def velocity(self, x_t, t, context):
            return (x_t - self.goal) / t[:, None, None]
    torch.manual_seed(0)
    x0, near = torch.randn(2, 8, 64, 64)
    t = times(8).clamp(min=0.2)
    assert velocity_error(Oracle(x0), None, x0, t).max() < 1e-6
    assert velocity_error(Oracle(x0), None, x0, t, near).max() < 1e-6
    assert velocity_error(Oracle(near), None, x0, t, near).min() > 0.5


def test_times_reach_both_ends():
    """Neither composition nor faces are starved."""
    torch.manual_seed(0)
    t = times(4000)
    assert (t < 0.25).float().mean() > 0.08 and (t > 0.75).float().mean() > 0.3 and t.min() > 0 and t.max() < 1


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path):
    """The same seeds, the same steps: weights and their average are equal to the bit."""
    def net():
        torch.manual_seed(0)
        return torch.nn.ModuleDict({"layer": torch.nn.Linear(4, 4), "norm": torch.nn.BatchNorm1d(4)})

    def trained(folder, stops):
        folder.mkdir()
        for stop in stops:
            module = net()
            trainer = Trainer(folder, "net", module, 9, 1e-2, 1e-2)

            def loss_of(step, rng):
                if step == stop:
                    raise KeyboardInterrupt
                loss = module["norm"](module["layer"](torch.randn(8, 4))).square().sum() * rng.random()
                loss.backward()
                return {"loss": loss.detach()}
            try:
                trainer.run(loss_of)
            except KeyboardInterrupt:
                trainer.save()
        return module.state_dict(), trainer.average
    whole, pieces = trained(tmp_path / "a", [None]), trained(tmp_path / "b", [2, 5, None])
    for one, other in zip(whole, pieces):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_sharpness_and_kernel_distance():
    """Scenes against themselves: as sharp, no distance. Blurred: less of everything. Other scenes: near 0."""
    rng = random.Random(6)
    one, other = ([world.draw(world.random_scene(rng)) for _ in range(48)] for _ in range(2))
    soft = [image.filter(ImageFilter.GaussianBlur(1)) for image in one]
    same, blurred = sharpness(one, one), sharpness(soft, one)
    assert same == {"gradient": 1, "laplacian": 1}
    assert blurred["gradient"] < 0.8 and blurred["laplacian"] < 0.2
    assert kernel_distance(soft, one) > 3 * abs(kernel_distance(other, one))
    assert abs(kernel_distance(one, one)) < 1e-6
