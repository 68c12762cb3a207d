"""The unified model: one decoder that reads text and pictures, writes text, and draws.

The shape is that of BAGEL (arXiv 2505.14683), the backbone of UniCharacter (arXiv 2605.08129). The parameter names are
BAGEL's too, so its published weights need no translation. The same classes with small numbers are the embedded base.

    text ---- embed_tokens ------------------.                            .-- lm_head --> next token   (cross-entropy)
    picture - vision encoder - connector -----+--> decoder: two experts, --+
    noised latents - vae2llm + t + position --'     ONE self-attention     '-- llm2vae --> velocity     (flow matching)

1. Mixture of transformers. Every layer has two experts. The *und* expert reads: text, and pictures that are shown to
   the model. The *gen* expert draws: its tokens are noised latents, and its parameters carry the suffix `_moe_gen`.
   The experts share nothing but the attention, in which all tokens meet.
2. One rule makes every attention mask: a token sees the tokens whose position is not larger than its own. Words have
   rising positions, so text is causal. All tokens of a picture share one position, so inside a picture everyone sees
   everyone. Padding stands at position PAD, after everything else, where nobody sees it. Training, the KV cache and
   drawing all use this rule.
3. Rectified flow: x_t = (1 - t) x_0 + t noise, and the model predicts the velocity v = noise - x_0. At t = 1 there is
   only noise, at t = 0 the picture.

One sequence is `[image: SOI vit EOI] [bos prompt eos] [bos response eos] [target: SOI latents EOI]`; any part may be
absent.

Shapes, in all files: B batch, T text-side (und) tokens, N latent (gen) tokens of a picture, S = T + N (+ cache),
C width, H heads, D width of a head, K sampling steps, w noisy steps of them, V vocabulary, Z latent channels, p side of
a patch; P prompts, G pictures of a prompt. Quoted titles are sections of the BAGEL paper.
"""
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from backbone.vision import AutoEncoder, VisionTower, as_drawn, fit, gelu_mlp, to_images, to_pixels
from characters.schema import names_in
from runtime.processes import pick_precision

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")   # bos, eos, SOI, EOI
EXPERTS = ("", "_moe_gen")             # und, gen: the suffix of every parameter that exists twice
PAD = 1 << 20                          # the position of padding: after everything else


# ---- sizes ----------------------------------------------------------------------------------------------------------

@dataclass
class Config:
    """Sizes. The defaults are the embedded tiny model, whose latents' scale and shift stand in its config.json. BAGEL-7B's
    value stands behind where it differs."""
    vocab_size: int = 4096                                 # 152064
    hidden_size: int = 320                                 # 3584
    intermediate_size: int = 864                           # 18944
    num_hidden_layers: int = 6                             # 28
    num_attention_heads: int = 6                           # 28
    num_key_value_heads: int = 3                           # 4
    head_dim: int = 64                                     # 128; 0 = hidden_size / num_attention_heads
    rope_theta: float = 1e4                                # 1e6
    rms_norm_eps: float = 1e-6
    qk_norm: bool = True                                   # RMSNorm over each head's q and k; off = plain Qwen2
    vit_hidden_size: int = 192                             # 1152
    vit_intermediate_size: int = 512                       # 4304
    vit_num_hidden_layers: int = 4                         # 26: BAGEL drops the last of SigLIP's 27
    vit_num_attention_heads: int = 3                       # 16
    vit_patch_size: int = 16                               # 14
    vit_max_patches: int = 8                               # 70: side of the position table, in patches
    ae_ch: int = 16                                        # 128
    ae_ch_mult: tuple = (1, 2, 4, 4)
    ae_num_res_blocks: int = 1                             # 2
    ae_norm_groups: int = 8                                # 32
    z_channels: int = 16
    scale_factor: float = 1.0                              # 0.3611: latents to unit variance ...
    shift_factor: float = 0.0                              # 0.1159: ... and zero mean
    latent_patch_size: int = 2
    max_latent_size: int = 8                               # 64: side of the latent position table, in tokens
    image_size: int = 128                                  # 512 or 1024: longest side of what it draws, in pixels
    square: bool = True                                    # False. The tiny base has seen only square pictures
    timestep_shift: float = 2.0                            # 1.0: see "time and guidance"
    guidance: float = 3.0                                  # 4.0: see "time and guidance"

    def __post_init__(self):
        self.ae_ch_mult = tuple(self.ae_ch_mult)
        self.head_dim = self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def stride(self) -> int:
        """Pixels per latent token and side."""
        return self.latent_patch_size * 2 ** (len(self.ae_ch_mult) - 1)

    @property
    def token_dim(self) -> int:
        """Numbers in one latent token."""
        return self.z_channels * self.latent_patch_size ** 2


# ---- patches and positions ------------------------------------------------------------------------------------------

def patchify(x, p: int):
    """(B, c, h, w) -> (B, h/p * w/p, p*p*c): rows first, channel fastest."""
    B, c, h, w = x.shape
    x = x.reshape(B, c, h // p, p, w // p, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(B, -1, p * p * c)


def unpatchify(tokens, p: int, h: int, w: int):
    """The way back: (B, h*w, p*p*c) of an h x w grid -> (B, c, h*p, w*p)."""
    x = tokens.unflatten(1, (h, w)).unflatten(3, (p, p, -1))                              # (B, h, w, p, p, c)
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def sincos_table(C: int, n: int) -> torch.Tensor:
    """Fixed 2-D position table (n*n, C), row-major. The first half of C encodes the column, the second the row."""
    frequency = 1e4 ** (-np.arange(C // 4, dtype=np.float64) / (C // 4))
    angle = np.arange(n, dtype=np.float64)[:, None] * frequency
    line = np.concatenate((np.sin(angle), np.cos(angle)), 1)                              # (n, C/2)
    column, row = np.tile(line, (n, 1)), np.repeat(line, n, 0)
    return torch.from_numpy(np.concatenate((column, row), 1)).float()


class PositionTable(nn.Module):
    """A `sincos_table` under the name that the published checkpoints give it. It is computed and never learns."""
    def __init__(self, C: int, n: int):
        super().__init__()
        self.pos_embed = nn.Parameter(sincos_table(C, n), requires_grad=False)


def table_places(h: int, w: int, side: int) -> torch.Tensor:
    """Where the cells of an h x w grid stand in a position table of that side: row * side + column, (h*w,)."""
    return (torch.arange(h)[:, None] * side + torch.arange(w)).flatten()


def vit_patches(image: Image.Image, c: Config):
    """What the vision encoder gets of a picture: (n, 3 p^2), and places in its position table (n,)."""
    p, side = c.vit_patch_size, c.vit_max_patches
    longest, shortest = p * side, p * side * 8 // 35                                      # BAGEL: 980 and 224 pixels
    pixels = to_pixels(fit(image, c, longest, p, shortest))
    _, h, w = pixels.shape
    return patchify(pixels[None], p)[0], table_places(h // p, w // p, side)


def pad_rows(rows: list, value: int = 0, multiple: int = 4) -> torch.Tensor:
    """Rows (T_b, ...) -> (B, T, ...), T rounded up to a multiple that vector units like."""
    x = pad_sequence(rows, True, value)
    return F.pad(x, (0, 0) * (x.ndim - 2) + (0, -x.shape[1] % multiple), value=value)


# ---- time and guidance ----------------------------------------------------------------------------------------------
# The time shift s moves t towards noise, t' = s t / (1 + (s - 1) t). It has one value for each purpose:
#
#   training     Config.timestep_shift (2.0; BAGEL 1.0)    which t are learned, stage 1
#   sampling     SAMPLING_SHIFT (3.0, as BAGEL)            where the K steps lie, in every script
#   stage 2      the sampling shift: a policy is trained at the times at which it will draw
#
# Guidance has three kinds of value: 0 means the model's own (Config.guidance), 1 means none, and more is the scale. In
# stage 2 it is part of the policy, and a number has to be named.
# In drawing it acts only where 0.4 < t <= 1 (GUIDANCE_INTERVAL, as BAGEL): later steps refine what earlier ones decided.
# In rollouts of stage 2 it acts at every t, so that each trained step has the same policy (grpo.py, sample_group).

SAMPLING_SHIFT = 3.0
GUIDANCE_INTERVAL = (0.4, 1.0)


def shift_time(t, shift: float):
    """Moves time towards noise (shift > 1): larger pictures need more of their steps there (arXiv 2403.03206)."""
    return shift * t / (1 + (shift - 1) * t)


def guide(v_cond, v_uncond, scale: float):
    """Classifier-free guidance (arXiv 2207.12598) of velocities (B, N, token_dim), with BAGEL's global renorm: what is
    longer than the conditional velocity is shortened to its length. The norm is taken per picture, so batches are safe."""
    v = v_uncond + scale * (v_cond - v_uncond)
    shrink = v_cond.flatten(1).norm(dim=1) / (v.flatten(1).norm(dim=1) + 1e-8)
    return v * shrink.clamp(max=1.0)[:, None, None]


def euler(x, v, t, t_next):
    """One step of the flow's ODE, dx = v dt with dt = t_next - t < 0."""
    return x + v * (t_next - t)


# ---- the decoder: two experts over one attention --------------------------------------------------------------------

class RMSNorm(nn.Module):
    """weight * x / sqrt(mean(x^2) + eps) over the last dimension, of any shape (arXiv 1910.07467)."""
    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        y = x.float()                                      # the mean square in float32, whatever the stream is in
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


def rotate(x, rope):
    """Rotary positions (arXiv 2104.09864), half-split as in Qwen2. x (B, S, H, D); rope = cos, sin (B, S, 1, D)."""
    cos, sin = rope
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat((-b, a), -1) * sin).to(x.dtype)


def attend(q, k, v, mask):
    """softmax(q k' / sqrt(D) + mask) v for q (B, H, Q, D), k and v (B, Hkv, S, D), mask (B, 1, Q, S) of 0 and -inf, with
    Q = T + N queries. H / Hkv neighbouring heads share a key and a value (arXiv 2305.13245).

    On a CPU this is written out, since the fused kernel's backward pass is several times slower there. It is in
    float32: in bf16 the sums would depend on padding, and so on how a batch is cut or dealt out to processes."""
    shared = q.shape[1] // k.shape[1]
    if q.device.type != "cpu":                             # repeated: no fused kernel takes both a mask and shared heads
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        q_of_key = q.float().unflatten(1, (-1, shared)).flatten(2, 3)                     # (B, Hkv, shared Q, D)
        scores = (q_of_key * q.shape[-1] ** -0.5) @ k.float().mT                          # (B, Hkv, shared Q, S)
        scores = scores.unflatten(2, (shared, -1)) + mask[:, None]                        # (B, Hkv, shared, Q, S)
        out = scores.softmax(-1).flatten(2, 3) @ v.float()                                # (B, Hkv, shared Q, D)
        return out.unflatten(2, (shared, -1)).flatten(1, 2).to(v.dtype)                   # (B, H, Q, D)


class Attention(nn.Module):
    """Each token is projected by its own expert; then all meet in one attention ("Architecture"; arXiv 2411.04996).
    und (B, T, C), gen (B, N, C) -> the same two shapes, and k, v (B, Hkv, S, D), the cache included."""
    def __init__(self, c: Config):
        super().__init__()
        C, heads, kv_heads, D = c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.head_dim = D
        for e in EXPERTS:
            self.add_module("q_proj" + e, nn.Linear(C, heads * D))
            self.add_module("k_proj" + e, nn.Linear(C, kv_heads * D))
            self.add_module("v_proj" + e, nn.Linear(C, kv_heads * D))
            self.add_module("o_proj" + e, nn.Linear(heads * D, C, bias=False))
            if c.qk_norm:
                self.add_module("q_norm" + e, RMSNorm(D, c.rms_norm_eps))
                self.add_module("k_norm" + e, RMSNorm(D, c.rms_norm_eps))

    def project(self, x, e: str):
        """One expert's q (B, T, H, D) and k, v (B, T, Hkv, D)."""
        def heads(name):
            return getattr(self, name + e)(x).unflatten(-1, (-1, self.head_dim))
        q, k, v = heads("q_proj"), heads("k_proj"), heads("v_proj")
        if hasattr(self, "q_norm"):
            q = getattr(self, "q_norm" + e)(q)
            k = getattr(self, "k_norm" + e)(k)
        return q, k, v

    def forward(self, und, gen, rope, mask, past):
        T = und.shape[1]
        q, k, v = self.project(und, "")
        if gen.shape[1]:
            q_gen, k_gen, v_gen = self.project(gen, "_moe_gen")
            q = torch.cat((q, q_gen), 1)                                                  # (B, T+N, H, D)
            k = torch.cat((k, k_gen), 1)
            v = torch.cat((v, v_gen), 1)
        q = rotate(q, rope).transpose(1, 2)                                               # (B, H, T+N, D)
        k = rotate(k, rope).transpose(1, 2)                                               # (B, Hkv, T+N, D)
        v = v.transpose(1, 2)
        if past is not None:
            k = torch.cat((past[0], k), 2)                                                # (B, Hkv, S, D)
            v = torch.cat((past[1], v), 2)
        out = attend(q, k, v, mask).transpose(1, 2).flatten(2)                            # (B, T+N, H D)
        return self.o_proj(out[:, :T]), self.o_proj_moe_gen(out[:, T:]), (k, v)


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202): down(silu(gate(x)) * up(x)), (B, T, C) -> (B, T, C)."""
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), by the norms and mlp of each token's expert. Shapes as above."""
    def __init__(self, c: Config):
        super().__init__()
        self.self_attn = Attention(c)
        for e in EXPERTS:
            self.add_module("mlp" + e, MLP(c.hidden_size, c.intermediate_size))
            self.add_module("input_layernorm" + e, RMSNorm(c.hidden_size, c.rms_norm_eps))
            self.add_module("post_attention_layernorm" + e, RMSNorm(c.hidden_size, c.rms_norm_eps))

    def forward(self, und, gen, rope, mask, past):
        und_in, gen_in = self.input_layernorm(und), self.input_layernorm_moe_gen(gen)
        und_out, gen_out, kv = self.self_attn(und_in, gen_in, rope, mask, past)
        und = und + und_out
        und = und + self.mlp(self.post_attention_layernorm(und))
        if gen.shape[1]:
            gen = gen + gen_out
            gen = gen + self.mlp_moe_gen(self.post_attention_layernorm_moe_gen(gen))
        return und, gen, kv


@dataclass
class Context:
    """What has been read: keys and values of each layer, their positions, and the next position of each row."""
    kv: list                                               # of (k, v), each (B, Hkv, S, D)
    position: torch.Tensor                                 # (B, S)
    next: torch.Tensor                                     # (B,)

    def rows(self, index) -> "Context":
        """The rows with these indices, (R,); a row may be taken more than once."""
        return Context([(k[index], v[index]) for k, v in self.kv], self.position[index], self.next[index])

    def repeat(self, G: int) -> "Context":
        """Every row G times in a row: one reading serves a group of G pictures."""
        B = len(self.next)
        return self.rows(torch.arange(B, device=self.next.device).repeat_interleave(G))


class Decoder(nn.Module):
    """und (B, T, C), gen (B, N, C), position (B, T+N) -> hidden states of both, and (k, v) of every layer if N = 0."""
    def __init__(self, c: Config):
        super().__init__()
        self.config, self.gradient_checkpointing = c, False
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        for e in EXPERTS:
            self.add_module("norm" + e, RMSNorm(c.hidden_size, c.rms_norm_eps))

    def rope(self, position):
        """cos and sin (B, S, 1, D) in float32: bfloat16 would turn position 1000 by a whole radian."""
        D = self.config.head_dim
        frequency = self.config.rope_theta ** (-torch.arange(0, D, 2, device=position.device).float() / D)
        angle = (position[..., None].float() * frequency).repeat(1, 1, 2)[:, :, None]
        return angle.cos(), angle.sin()

    def forward(self, und, gen, position, context: Context | None = None):
        key_position = position if context is None else torch.cat((context.position, position), 1)
        later = (key_position[:, None, :] > position[:, :, None])[:, None]                # (B, 1, T+N, S)
        mask = torch.zeros(later.shape, dtype=und.dtype, device=und.device)
        mask = mask.masked_fill(later, -torch.inf)         # "Generalized Causal Attention"
        rope, kv = self.rope(position), []
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        for i, layer in enumerate(self.layers):
            past = None if context is None else context.kv[i]
            inputs = und, gen, rope, mask, past
            und, gen, layer_kv = checkpoint(layer, *inputs, use_reentrant=False) if recompute else layer(*inputs)
            if not gen.shape[1]:                           # latents are never cached: each step encodes them anew
                kv.append(layer_kv)
        return self.norm(und), self.norm_moe_gen(gen), kv


class TimeEmbedder(nn.Module):
    """t (B,) in [0, 1], not scaled by 1000 -> (B, C): [cos(t f), sin(t f)] with f_j = 10000^(-j/128), then an MLP."""
    def __init__(self, C: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, C), nn.SiLU(), nn.Linear(C, C))

    def forward(self, t):
        frequency = torch.exp(-math.log(10000) * torch.arange(128, device=t.device).float() / 128)
        angle = t.float()[:, None] * frequency
        return self.mlp(torch.cat((angle.cos(), angle.sin()), -1).to(self.mlp[0].weight.dtype))


# ---- examples and losses --------------------------------------------------------------------------------------------

@dataclass
class Example:
    """A Sample as tensors, made once and used at every step. T und tokens, of which n are picture patches."""
    ids: torch.Tensor                                      # (T,) token ids; 0 where a patch or padding stands
    labels: torch.Tensor                                   # (T,) the token to predict here; -100 = no loss
    position: torch.Tensor                                 # (T,)
    patches: torch.Tensor | None = None                    # (n, 3 p^2): they fill ids 1 .. n, behind SOI
    places: torch.Tensor | None = None                     # (n,) in the vision encoder's position table
    latent: torch.Tensor | None = None                     # (2, Z, h, w): mean and std from the autoencoder
    bare: "Example | None" = None                          # the same target without its text, for guidance dropout


@dataclass
class Losses:
    """Sums and counts per example, so that they can be logged by task and averaged over any batch."""
    ce: torch.Tensor                                       # (B,) sum over response tokens
    ce_tokens: torch.Tensor                                # (B,)
    mse: torch.Tensor                                      # (B,) sum over latent tokens of the mean over token_dim
    mse_tokens: torch.Tensor                               # (B,)
    t: torch.Tensor                                        # (B,)


def shared_beginning(examples: list[Example]) -> int:
    """The number of text tokens that all rows begin with and none of them learns; 0 if they are too few to matter."""
    least = 32
    T = min(len(e.ids) for e in examples) - 1              # something must be left of every row
    if T < least or len(examples) < 2 or any(e.patches is not None for e in examples):
        return 0
    ids = torch.stack([e.ids[:T] for e in examples])                                      # (B, T)
    labels = torch.stack([e.labels[:T] for e in examples])
    same = ((ids == ids[0]) & (labels < 0)).all(0)                                        # (T,)
    n = int(same.int().cumprod(0).sum()) // 4 * 4          # as pad_rows: equal lengths make equal sums
    return n if n >= least else 0


# ---- the whole ------------------------------------------------------------------------------------------------------

class UniModel(nn.Module):
    """Examples in, Losses out; and on top of that reading, writing and drawing, from prompts and pictures."""
    def __init__(self, config: Config, tokenizer=None):
        super().__init__()
        c, C = config, config.hidden_size
        self.config = config
        self.run, self.folder = {}, None                   # how it was made, and where it lies: backbone/folders.py
        self.wording = {}                                  # how prompts name the character, if not by name: `worded`
        lm_head = nn.Linear(C, c.vocab_size, bias=False)
        self.language_model = nn.ModuleDict({"model": Decoder(c), "lm_head": lm_head})
        self.vit_model = nn.ModuleDict({"vision_model": VisionTower(c)})
        self.connector = gelu_mlp(c.vit_hidden_size, C, C)
        self.time_embedder = TimeEmbedder(C)
        self.vae2llm = nn.Linear(c.token_dim, C)
        self.llm2vae = nn.Linear(C, c.token_dim)
        self.latent_pos_embed = PositionTable(C, c.max_latent_size)
        self.vit_pos_embed = PositionTable(C, c.vit_max_patches)
        self.vae = AutoEncoder(c).requires_grad_(False)    # never trained with the decoder
        self.grid = (c.image_size // c.stride,) * 2        # latent tokens down and across the pictures it draws
        self.set_tokenizer(tokenizer)

    def set_tokenizer(self, tokenizer):
        self.tokenizer = tokenizer
        if tokenizer is not None:
            self.bos, self.eos, self.soi, self.eoi = tokenizer.convert_tokens_to_ids(list(SPECIAL))

    @property
    def device(self):
        return self.llm2vae.weight.device

    @property
    def latent_count(self) -> int:
        """N, the latent tokens of a picture that it draws."""
        return self.grid[0] * self.grid[1]

    def autocast(self, precision: str):
        """Products in bfloat16 inside this context if `precision` is "bf16", or "auto" and the hardware multiplies it;
        weights keep their own type."""
        half = pick_precision(self.device, precision) == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def init_weights(self):
        """For training from nothing. Residual outputs start small (depth), the image head at zero (as BAGEL's)."""
        for name, m in self.named_modules():
            if isinstance(m, nn.Embedding):
                nn.init.normal_(m.weight, std=0.02)
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=m.in_features ** -0.5)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
            if name.endswith(("o_proj", "down_proj", "o_proj_moe_gen", "out_proj", "mlp.fc2")):
                m.weight.data /= math.sqrt(2 * self.config.num_hidden_layers)
        nn.init.zeros_(self.llm2vae.weight)

    # -- from a Sample to tensors --
    def patches(self, image: Image.Image):
        """What the vision encoder gets of a picture: (n, 3 p^2), and places in its position table (n,)."""
        return vit_patches(image, self.config)

    @torch.no_grad()
    def latents(self, images: list[Image.Image]) -> torch.Tensor:
        """(B, 2, Z, h, w): mean and std, for pictures of one size."""
        pixels = torch.stack([to_pixels(as_drawn(image, self.config)) for image in images])
        return torch.stack(self.vae.encode(pixels.to(self.device)), 1)

    def text_ids(self, text: str) -> list[int]:
        """Tokens of a text. What spells a special token is text like any other: nobody can end a turn by typing it."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def worded(self, prompt: str | None, kind: str) -> str | None:
        """The prompt as this model was taught to read it. A baseline may call its character by an identifier or by
        learned tokens (experiments/). Its `wording` has the "name", and for each kind of prompt, "draw" or "write",
        what stands in its place at the first mention and at further ones."""
        if prompt is None or kind not in self.wording:
            return prompt
        found = names_in(prompt, self.wording["name"])
        first, again = self.wording[kind]
        for match in reversed(found):
            called = first if match is found[0] else again
            prompt = prompt[:match.start()] + called + prompt[match.end():]
        return prompt

    def prepare(self, sample, latent=None) -> Example:
        """Tokenizes, patchifies and encodes a Sample once. A known `latent` (2, Z, h, w) spares the autoencoder."""
        ids, labels, position = [], [], []
        patches = places = bare = None
        at = 0                                             # the next free position
        if sample.image is not None:
            patches, places = self.patches(sample.image)
            ids += [self.soi] + [0] * len(patches) + [self.eoi]
            labels += [-100] * len(ids)
            position += [0] * len(ids)                     # a picture is one position: inside it everyone sees everyone
            at = 1
        prompt = sample.prompt
        if sample.target is not None:
            prompt = self.worded(prompt, "draw")
        elif sample.response is not None:
            prompt = self.worded(prompt, "write")
        for text, learned in ((prompt, False), (sample.response, True)):
            if text is None:
                continue
            chunk = [self.bos] + self.text_ids(text) + [self.eos]
            ids += chunk
            labels += chunk[1:] + [-100] if learned else [-100] * len(chunk)
            position += range(at, at + len(chunk))
            at += len(chunk)
        if sample.target is not None:
            latent = self.latents([sample.target])[0].cpu() if latent is None else latent
            marks, silent = [self.soi, self.eoi], [-100, -100]
            bare = Example(torch.tensor(marks), torch.tensor(silent), torch.tensor([0, 0]), latent=latent)
            ids += marks
            labels += silent
            position += [at, at]                           # the latents stand at this position too
        return Example(torch.tensor(ids), torch.tensor(labels), torch.tensor(position), patches, places, latent, bare)

    # -- from tensors to embeddings --
    def embed_und(self, examples: list[Example]):
        """-> und tokens (B, T, C), a row's patches behind its first token, and their positions (B, T)."""
        ids = pad_rows([e.ids.long() for e in examples]).to(self.device)                  # long: even where empty
        position = pad_rows([e.position.long() for e in examples], PAD).to(self.device)
        x = self.language_model.model.embed_tokens(ids)
        rows = [b for b, e in enumerate(examples) if e.patches is not None]
        if not rows:
            return x, position
        place = pad_sequence([examples[b].places for b in rows], True, -1).to(self.device)       # (b, n)
        patch = pad_sequence([examples[b].patches for b in rows], True).to(self.device)          # (b, n, 3 p^2)
        y = self.vit_model["vision_model"](patch.to(self.llm2vae.weight.dtype), place)
        y = self.connector(y) + self.vit_pos_embed.pos_embed[place.clamp(min=0)]                 # (b, n, C)
        real = place >= 0
        row = torch.tensor(rows, device=self.device)[:, None].expand_as(place)[real]
        column = (torch.arange(place.shape[1], device=self.device) + 1).expand_as(place)[real]
        return x.index_put((row, column), y[real].to(x.dtype)), position

    def embed_gen(self, x_t, t, places):
        """Noised latents x_t (B, N, token_dim) at time t (B,) and table positions (B, N) -> (B, N, C)."""
        x_t = x_t.to(self.vae2llm.weight.dtype)
        return self.vae2llm(x_t) + self.time_embedder(t)[:, None] + self.latent_pos_embed.pos_embed[places]

    def latent_tokens(self, examples, generators):
        """x_0 (B, N, token_dim) sampled from the autoencoder's Gaussian; places (B, N), -1 where a row has none."""
        p, tokens, places = self.config.latent_patch_size, [], []
        for e, generator in zip(examples, generators):
            if e.latent is None:
                tokens.append(torch.zeros(0, self.config.token_dim))
                places.append(torch.zeros(0, dtype=torch.long))
                continue
            mean, std = e.latent.float()
            z = mean + std * torch.randn(mean.shape, generator=generator)                 # (Z, h, w)
            _, h, w = z.shape
            tokens.append(patchify(z[None], p)[0])
            places.append(table_places(h // p, w // p, self.config.max_latent_size))
        return pad_sequence(tokens, True).to(self.device), pad_sequence(places, True, -1).to(self.device)

    # -- training --
    def forward(self, examples: list[Example], seeds=None, t=None, noise=None, smoothing: float = 0.0) -> Losses:
        """CE of the responses, with label smoothing (arXiv 1512.00567) or without. And the mean over token_dim of
        (v_hat - v)^2, where v = noise - x_0, and v_hat is what is predicted at x_t = (1 - t) x_0 + t noise (rectified
        flow: arXiv 2209.03003). Both are summed over the tokens of a row: see Losses.

        t (B,) and noise [(N, token_dim)], if not given, come from the seed of each example. So it changes nothing how
        a batch is cut into micro-batches, or dealt out to several GPUs."""
        generators = [None] * len(examples)
        if seeds:
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        context, examples = self.read_shared_beginning(examples)
        labels = pad_rows([e.labels for e in examples], -100).to(self.device)             # (B, T)
        und, position = self.embed_und(examples)

        x0, places = self.latent_tokens(examples, generators)                             # (B, N, token_dim), (B, N)
        real = places >= 0
        if t is None:
            t = self.sample_times(generators)
        if noise is None:
            noise = [torch.randn(x0.shape[1:], generator=g) for g in generators]
        noise = pad_sequence(noise, True).to(self.device)                                 # (B, N, token_dim)
        x_t = (1 - t)[:, None, None] * x0 + t[:, None, None] * noise
        gen = self.embed_gen(x_t, t, places.clamp(min=0)).to(und.dtype)

        # The latents stand where their SOI and EOI stand: at the last position of their row.
        last = torch.where(position == PAD, 0, position).amax(1, keepdim=True)
        position = torch.cat((position, torch.where(real, last, PAD)), 1)                 # (B, T+N)
        und, gen, _ = self.language_model.model(und, gen, position, context)

        ce, ce_tokens = self.cross_entropy(und, labels, smoothing)
        velocity = self.llm2vae(gen).float()
        error = (velocity - (noise - x0)).square().mean(-1)                               # (B, N)
        return Losses(ce, ce_tokens, (error * real).sum(1), real.sum(1), t)

    def sample_times(self, generators):
        """t (B,), logit-normal: the middle of the way is the hardest part (arXiv 2403.03206)."""
        normal = torch.cat([torch.randn(1, generator=g) for g in generators])
        return shift_time(torch.sigmoid(normal), self.config.timestep_shift).to(self.device)

    def read_shared_beginning(self, examples):
        """Reads what all texts begin with, such as who is speaking, as one row -> its Context for all rows, or None;
        and the rest of the examples. Gradients flow through it: it saves time and changes nothing else."""
        n, first = shared_beginning(examples), examples[0]
        if not n:
            return None, examples
        und, position = self.embed_und([Example(first.ids[:n], first.labels[:n], first.position[:n])])
        _, _, kv = self.language_model.model(und, und[:, :0], position)
        context = Context(kv, position, position[:, -1] + 1).repeat(len(examples))
        rest = [replace(e, ids=e.ids[n:], labels=e.labels[n:], position=e.position[n:]) for e in examples]
        return context, rest

    def cross_entropy(self, und, labels, smoothing: float = 0.0):
        """und (B, T, C), labels (B, T) -> sum of CE and count of labelled tokens per row, (B,). Only labelled tokens
        meet the vocabulary: its product is the largest of all."""
        keep = labels >= 0
        logits = self.language_model.lm_head(und[keep]).float()                           # (labelled tokens, V)
        nll = F.cross_entropy(logits, labels[keep], reduction="none", label_smoothing=smoothing)
        row = keep.nonzero()[:, 0]
        return torch.zeros(len(und), device=und.device).index_add(0, row, nll), keep.sum(1)

    # -- reading --
    def readings(self, prompts, images, responses=None) -> list[Example]:
        """Examples that are only read, or whose responses are only scored."""
        nothing = [None] * len(prompts)
        rows = zip(prompts, images or nothing, responses or nothing)
        return [self.prepare(SimpleNamespace(prompt=p, image=i, response=r, target=None)) for p, i, r in rows]

    def context(self, prompts: list[str | None], images=None, before: Context | None = None) -> Context:
        """Reads [image][bos prompt eos] of every row once, behind what was read `before`. A prompt of None is no text
        at all, which is what guidance compares with."""
        examples = self.readings(prompts, images)
        und, position = self.embed_und(examples)
        lengths = [int(e.position[-1]) + 1 if len(e.position) else 0 for e in examples]
        following = torch.tensor(lengths).to(self.device)
        if before is not None:
            position = torch.where(position < PAD, position + before.next[:, None], PAD)
        _, _, kv = self.language_model.model(und, und[:, :0], position, before)
        if before is None:
            return Context(kv, position, following)
        return Context(kv, torch.cat((before.position, position), 1), before.next + following)

    def extend(self, context: Context, ids) -> tuple[torch.Tensor, Context]:
        """Reads ids (B, n) behind the context -> hidden states (B, n, C) and the longer context."""
        n = ids.shape[1]
        und = self.language_model.model.embed_tokens(ids)
        position = context.next[:, None] + torch.arange(n, device=ids.device)
        hidden, _, kv = self.language_model.model(und, und[:, :0], position, context)
        return hidden, Context(kv, torch.cat((context.position, position), 1), context.next + n)

    # -- writing --
    @torch.no_grad()
    def generate_text(self, prompts, images=None, max_tokens=200, temperature=0.0, generator=None,
                      stream=None, recall=None) -> list[str]:
        """Replies, greedy at temperature 0. `stream` gets every new piece of text (one prompt only). `recall` may change
        what comes next: (row, tokens so far, log p (V,)) -> log p (V,), see runtime/recall.py."""
        context = self.context([self.worded(prompt, "write") for prompt in prompts], images)
        token = torch.full((len(prompts), 1), self.bos, device=self.device)
        written, shown = [[] for _ in prompts], ""
        writing = list(range(len(prompts)))                # the rows that have not ended
        for _ in range(max_tokens):
            hidden, context = self.extend(context, token)
            log_p = self.language_model.lm_head(hidden[:, -1]).float().log_softmax(-1)    # (rows that write, V)
            if recall:
                log_p = torch.stack([recall(row, written[row], p) for row, p in zip(writing, log_p)])
            token = self.next_token(log_p, temperature, generator)                        # (rows that write, 1)
            goes_on = token[:, 0] != self.eos
            if not goes_on.all():                          # the others need not be computed any more
                kept = goes_on.nonzero()[:, 0]
                writing, token, context = [writing[i] for i in kept.tolist()], token[kept], context.rows(kept)
            if not writing:
                break
            for row, i in zip(writing, token[:, 0].tolist()):
                written[row].append(i)
            if stream:
                text = self.tokenizer.decode(written[0])
                if not text.endswith("\ufffd"):            # half of a character: wait for the other half
                    stream(text[len(shown):])
                    shown = text
        return [self.tokenizer.decode(ids).strip() for ids in written]

    def next_token(self, log_p, temperature: float, generator):
        """log p (B, V) -> token ids (B, 1)."""
        if temperature == 0:
            return log_p.argmax(-1, keepdim=True)
        p = (log_p / temperature).softmax(-1).cpu()       # on the CPU, so that a seed means the same everywhere
        return torch.multinomial(p, 1, generator=generator).to(self.device)

    # -- drawing --
    def velocity(self, x_t, t, context: Context, unconditional: Context | None = None, scale: float = 1.0):
        """v(x_t, t) for x_t (B, N, token_dim) and t, one for all or (B,); guided by `scale` if a context without the
        prompt is given."""
        B, N = x_t.shape[:2]
        places = table_places(*self.grid, self.config.max_latent_size).to(x_t.device)
        marks = torch.tensor([self.soi, self.eoi], device=x_t.device).expand(B, 2)        # und tokens round the latents
        und = self.language_model.model.embed_tokens(marks)
        gen = self.embed_gen(x_t, t.expand(B), places.expand(B, N)).to(und.dtype)

        def behind(context):
            position = context.next[:, None].expand(B, N + 2)
            _, hidden, _ = self.language_model.model(und, gen, position, context)
            return self.llm2vae(hidden).float()
        v = behind(context)
        if unconditional is None or scale <= 1:
            return v
        return guide(v, behind(unconditional), scale)

    def timesteps(self, steps: int, shift: float = SAMPLING_SHIFT):
        """K + 1 times from 1 to 0, in float32."""
        return shift_time(torch.linspace(1, 0, steps + 1, device=self.device), shift)

    def flow(self, noise, context, steps, shift=SAMPLING_SHIFT, scale=1.0, interval=GUIDANCE_INTERVAL, step=euler,
             on_step=None):
        """From noise (B, N, token_dim) at t = 1 to latents at t = 0, in float32.

        `step(x, v, t, t_next)` moves x: euler follows the ODE; Character-GRPO passes an SDE step. Guidance acts where
        interval[0] < t <= interval[1]. `on_step(k, steps, clean)` gets the predicted picture after every step, as
        latents: x_t - t v = x_0 if v is right, so a preview is sharp long before x_t itself is."""
        x, t = noise.float(), self.timesteps(steps, shift)
        unconditional = self.context([None] * len(noise)) if scale > 1 else None
        for k in range(steps):
            guided = interval[0] < t[k] <= interval[1]
            v = self.velocity(x, t[k], context, unconditional if guided else None, scale)
            if on_step:
                on_step(k + 1, steps, x - t[k] * v)
            x = step(x, v, t[k], t[k + 1])
        return x

    def noise(self, seeds: list[int]) -> torch.Tensor:
        """One seed, one picture, whatever batch it is drawn in: (B, N, token_dim)."""
        shape = self.latent_count, self.config.token_dim
        rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows).to(self.device)

    @torch.no_grad()
    def decode(self, x) -> list[Image.Image]:
        """Latent tokens (B, N, token_dim) -> pictures, a megapixel at a time, since the autoencoder needs much memory."""
        z = unpatchify(x.float(), self.config.latent_patch_size, *self.grid)
        at_once = max(1, 2 ** 20 // self.config.image_size ** 2)
        return [image for part in z.split(at_once) for image in to_images(self.vae.decode(part))]

    @torch.no_grad()
    def sample_images(self, prompts, seeds, steps=20, guidance=0.0, shift=SAMPLING_SHIFT, on_step=None, images=None):
        """Draws one PIL picture for every prompt and seed; guidance 0 is the model's own, 1 is none. `images`: pictures
        that are shown to it before the prompts."""
        scale = guidance or self.config.guidance
        context = self.context([self.worded(prompt, "draw") for prompt in prompts], images)
        x = self.flow(self.noise(seeds), context, steps, shift, scale, on_step=on_step)
        return self.decode(x)
