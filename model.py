"""The unified model: one decoder that reads text and pictures, writes text, and draws.

The shape is BAGEL's (arXiv 2505.14683), the backbone of UniCharacter (arXiv 2605.08129), with its parameter names,
so that its published weights need no translation. The same classes with small numbers are the embedded tiny base.

    text ---- embed_tokens ------------------.                            .-- lm_head --> next token   (cross-entropy)
    picture - SigLIP tower -- connector ------+--> decoder: two experts, --+
    noised latents - vae2llm + t + position --'     ONE self-attention     '-- llm2vae --> velocity     (flow matching)

1. Mixture of transformers. Every layer has two experts: *und* for text and for pictures it images at, *gen* (suffix
   `_moe_gen`) for the latents it draws. They share nothing but the attention, in which all tokens meet.
2. One rule makes every attention mask: a token sees the tokens whose position is not larger than its own. Words have
   rising positions, so text is causal; all tokens of a picture share one, so inside it everyone sees everyone. Padding
   sits at position PAD, after everything, where nobody sees it. Training, the KV cache and drawing use this rule.
3. Rectified flow: x_t = (1 - t) x_0 + t noise, the model predicts v = noise - x_0; t = 1 is noise, t = 0 the picture.

One sequence is `[image: SOI vit EOI] [bos prompt eos] [bos response eos] [draw: SOI latents EOI]`, any part optional.

Shapes: B batch, T text-side (und) tokens, N latents of a picture (gen tokens), S = T + N (+ cache), C width, H heads,
D width of a head, K sampling steps, V vocabulary, Z latent channels, p patch side. Quoted titles are BAGEL's sections.
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

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")   # bos, eos, SOI, EOI


PAD = 1 << 20                                              # the position of padding: after everything else
EXPERTS = ("", "_moe_gen")                                 # und, gen: the suffix of every parameter that exists twice


# ---- sizes ----

@dataclass
class Config:
    """Sizes. The defaults are the embedded tiny model; the value of BAGEL-7B stands behind where it differs."""
    vocab_size: int = 4096                                 # 152064
    hidden_size: int = 256                                 # 3584
    intermediate_size: int = 704                           # 18944
    num_hidden_layers: int = 6                             # 28
    num_attention_heads: int = 4                           # 28
    num_key_value_heads: int = 2                           # 4
    head_dim: int = 0                                      # 128; 0 = hidden_size / num_attention_heads
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
    square: bool = True                                    # crop pictures to squares: the tiny base has seen no others
    timestep_shift: float = 2.0                            # 1.0: of the training distribution of t
    guidance: float = 3.0                                  # 4.0: classifier-free, where nothing else is asked for

    def __post_init__(self):
        self.ae_ch_mult = tuple(self.ae_ch_mult)
        self.head_dim = self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def stride(self) -> int:                               # pixels per latent token and side
        return self.latent_patch_size * 2 ** (len(self.ae_ch_mult) - 1)

    @property
    def token_dim(self) -> int:                            # numbers per latent token
        return self.z_channels * self.latent_patch_size ** 2


# ---- patches and positions ----

def sincos_table(C: int, n: int) -> torch.Tensor:
    """Fixed 2-D position table (n*n, C), row-major; the first half of C encodes the column, the second the row."""
    w = 1e4 ** (-np.arange(C // 4, dtype=np.float64) / (C // 4))
    angle = np.arange(n, dtype=np.float64)[:, None] * w
    line = np.concatenate((np.sin(angle), np.cos(angle)), 1)                              # (n, C/2)
    column, row = np.tile(line, (n, 1)), np.repeat(line, n, 0)
    return torch.from_numpy(np.concatenate((column, row), 1)).float()


class PositionTable(nn.Module):
    def __init__(self, C: int, n: int):
        super().__init__()
        self.pos_embed = nn.Parameter(sincos_table(C, n), requires_grad=False)


def patchify(x, p: int):
    """(B, c, h, w) -> (B, h/p * w/p, p*p*c): rows first, channel fastest."""
    B, c, h, w = x.shape
    return x.reshape(B, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1).reshape(B, -1, p * p * c)


def unpatchify(tokens, p: int, h: int, w: int):
    """The way back: (B, h*w, p*p*c) of an h x w grid -> (B, c, h*p, w*p)."""
    return tokens.unflatten(1, (h, w)).unflatten(3, (p, p, -1)).permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def table_places(h: int, w: int, side: int) -> torch.Tensor:
    """Where the cells of an h x w grid stand in a position table of that side: row * side + column, (h*w,)."""
    return (torch.arange(h)[:, None] * side + torch.arange(w)).flatten()


def seen_patches(image: Image.Image, c):
    """What the eye gets: (n, 3 p^2) and places in its position table (n,)."""
    p, side = c.vit_patch_size, c.vit_max_patches
    pixels = to_pixels(fit(image, c, p * side, p, p * side * 8 // 35))                      # BAGEL: 224 to 980 pixels
    return patchify(pixels[None], p)[0], table_places(pixels.shape[1] // p, pixels.shape[2] // p, side)


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
    """softmax(q k' / sqrt(D) + mask) v for q (B, H, T, D), k and v (B, H, S, D), mask (B, 1, T, S) of 0 and -inf.

    On a CPU written out, as the fused kernel's backward pass is several times slower there, and in float32: rounded to
    bf16, its sums would depend on padding, and so on how a batch is cut or dealt out to processes."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        scores = (q.float() * q.shape[-1] ** -0.5) @ k.float().mT + mask                # (B, H, T, S)
        return (scores.softmax(-1) @ v.float()).to(v.dtype)


class Attention(nn.Module):
    """softmax(q k' / sqrt(D)) v, each token projected by its own expert and then all in one attention ("Architecture";
    mixture of transformers: arXiv 2411.04996; groups of heads that share a key: arXiv 2305.13245).
    und (B, T, C), gen (B, N, C) -> the same two shapes, and k, v (B, Hkv, S, D), the cache included."""
    def __init__(self, c: Config):
        super().__init__()
        C, self.heads, self.kv_heads = c.hidden_size, c.num_attention_heads, c.num_key_value_heads
        self.head_dim = c.head_dim
        for e in EXPERTS:
            self.add_module("q_proj" + e, nn.Linear(C, self.heads * self.head_dim))
            self.add_module("k_proj" + e, nn.Linear(C, self.kv_heads * self.head_dim))
            self.add_module("v_proj" + e, nn.Linear(C, self.kv_heads * self.head_dim))
            self.add_module("o_proj" + e, nn.Linear(self.heads * self.head_dim, C, bias=False))
            for name in ("q_norm", "k_norm") if c.qk_norm else ():
                self.add_module(name + e, RMSNorm(self.head_dim, c.rms_norm_eps))

    def project(self, x, e: str):
        """One expert's q (B, T, H, D) and k, v (B, T, Hkv, D)."""
        q, k, v = (getattr(self, n + e)(x).unflatten(-1, (-1, self.head_dim)) for n in ("q_proj", "k_proj", "v_proj"))
        if hasattr(self, "q_norm"):
            q, k = getattr(self, "q_norm" + e)(q), getattr(self, "k_norm" + e)(k)
        return q, k, v

    def forward(self, und, gen, rope, mask, past):
        T, N = und.shape[1], gen.shape[1]
        q, k, v = self.project(und, "")
        if N:
            q, k, v = (torch.cat(pair, 1) for pair in zip((q, k, v), self.project(gen, "_moe_gen")))
        q, k, v = (x.transpose(1, 2) for x in (rotate(q, rope), rotate(k, rope), v))    # (B, heads, T+N, D)
        if past is not None:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)               # (B, Hkv, S, D)
        k_all, v_all = (x.repeat_interleave(self.heads // self.kv_heads, 1) for x in (k, v))   # (B, H, S, D)
        out = attend(q, k_all, v_all, mask).transpose(1, 2).flatten(2)                  # (B, T+N, C)
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
            for name in ("input_layernorm", "post_attention_layernorm"):
                self.add_module(name + e, RMSNorm(c.hidden_size, c.rms_norm_eps))

    def forward(self, und, gen, rope, mask, past):
        a, b, kv = self.self_attn(self.input_layernorm(und), self.input_layernorm_moe_gen(gen), rope, mask, past)
        und, gen = und + a, gen + b
        und = und + self.mlp(self.post_attention_layernorm(und))
        if gen.shape[1]:
            gen = gen + self.mlp_moe_gen(self.post_attention_layernorm_moe_gen(gen))
        return und, gen, kv


@dataclass
class Context:
    """What has been read: keys and values of each layer, their positions, and the next free position of each row."""
    kv: list                                               # of (k, v), each (B, Hkv, S, D)
    position: torch.Tensor                                 # (B, S)
    next: torch.Tensor                                     # (B,)

    def repeat(self, G: int) -> "Context":
        """Every row G times in a row: one reading serves a group of G pictures."""
        kv = [tuple(x.repeat_interleave(G, 0) for x in pair) for pair in self.kv]
        return Context(kv, self.position.repeat_interleave(G, 0), self.next.repeat_interleave(G, 0))

    def rows(self, index) -> "Context":
        return Context([(k[index], v[index]) for k, v in self.kv], self.position[index], self.next[index])


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
        freq = self.config.rope_theta ** (-torch.arange(0, D, 2, device=position.device).float() / D)
        angle = (position[..., None].float() * freq).repeat(1, 1, 2)[:, :, None]
        return angle.cos(), angle.sin()

    def forward(self, und, gen, position, context: Context | None = None):
        seen = position if context is None else torch.cat((context.position, position), 1)
        hidden = (seen[:, None, :] > position[:, :, None])[:, None]    # (B, 1, T+N, S) "Generalized Causal Attention"
        mask = torch.zeros(hidden.shape, dtype=und.dtype, device=und.device).masked_fill(hidden, -torch.inf)
        rope, recompute, kv = self.rope(position), self.gradient_checkpointing and torch.is_grad_enabled(), []
        for i, layer in enumerate(self.layers):
            inputs = und, gen, rope, mask, None if context is None else context.kv[i]
            und, gen, pair = checkpoint(layer, *inputs, use_reentrant=False) if recompute else layer(*inputs)
            kv += [] if gen.shape[1] else [pair]           # what is drawn is never read again
        return self.norm(und), self.norm_moe_gen(gen), kv


# ---- small parts ----------------------------------------------------------------------------------------------------

class TimeEmbedder(nn.Module):
    """t (B,) in [0, 1], not scaled by 1000 -> (B, C): [cos(t f), sin(t f)] with f_j = 10000^(-j/128), then an MLP."""
    def __init__(self, C: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, C), nn.SiLU(), nn.Linear(C, C))

    def forward(self, t):
        freq = torch.exp(-math.log(10000) * torch.arange(128, device=t.device).float() / 128)
        angle = t.float()[:, None] * freq
        return self.mlp(torch.cat((angle.cos(), angle.sin()), -1).to(self.mlp[0].weight.dtype))


def pad_rows(rows: list, value: int = 0, multiple: int = 16) -> torch.Tensor:
    """Rows (T_b, ...) -> (B, T, ...), T rounded up: oneDNN compiles a kernel for every new shape, and a training step
    that never sees the same lengths twice would spend most of its time on that."""
    x = pad_sequence(rows, True, value)
    return F.pad(x, (0, 0) * (x.ndim - 2) + (0, -x.shape[1] % multiple), value=value)


def shift_time(t, shift: float):
    """Moves time towards noise (shift > 1): larger pictures need more of their steps there (arXiv 2403.03206)."""
    return shift * t / (1 + (shift - 1) * t)


def guide(v_cond, v_free, scale: float, renorm_min: float = 0.0):
    """Classifier-free guidance (arXiv 2207.12598) of velocities (B, N, token_dim), with the global renorm of BAGEL's
    code: never longer than the conditional velocity; per picture, so batches are safe."""
    v = v_free + scale * (v_cond - v_free)
    shrink = v_cond.flatten(1).norm(dim=1) / (v.flatten(1).norm(dim=1) + 1e-8)
    return v * shrink.clamp(renorm_min, 1.0)[:, None, None]


def euler(x, v, t, t_next):
    """One step of the flow's ODE, dx = v dt with dt = t_next - t < 0."""
    return x + v * (t_next - t)


# ---- the whole ------------------------------------------------------------------------------------------------------

@dataclass
class Example:
    """A Sample as tensors, made once and used at every step. T und tokens, of which n are picture patches."""
    ids: torch.Tensor                                      # (T,) token ids; 0 where a patch or padding stands
    labels: torch.Tensor                                   # (T,) the token to predict here; -100 = no loss
    position: torch.Tensor                                 # (T,)
    patches: torch.Tensor | None = None                    # (n, 3 p^2): they fill ids 1 .. n, behind SOI
    places: torch.Tensor | None = None                     # (n,) in the ViT's position table
    latent: torch.Tensor | None = None                     # (2, Z, h, w): mean and std from the autoencoder
    bare: "Example | None" = None                          # the same picture without its text, for guidance dropout


@dataclass
class Losses:
    """Per example, so that they can be logged by task: sums and counts of CE tokens, mean squared error, and its t."""
    ce: torch.Tensor                                       # (B,) sum over response tokens
    ce_tokens: torch.Tensor                                # (B,)
    mse: torch.Tensor                                      # (B,) sum over latent tokens of the mean over token_dim
    mse_tokens: torch.Tensor                               # (B,)
    t: torch.Tensor                                        # (B,)


def shared_beginning(examples: list[Example]) -> int:
    """How many tokens of text all rows begin with, none of them learned; in steps of 16, as pad_rows; 0 if few."""
    T = min(len(e.ids) for e in examples) - 1              # something is left of every row
    if T < 32 or len(examples) < 2 or any(e.patches is not None for e in examples):
        return 0
    ids, labels = (torch.stack([getattr(e, name)[:T] for e in examples]) for name in ("ids", "labels"))
    same = ((ids == ids[0]) & (labels < 0)).all(0)
    n = int(same.int().cumprod(0).sum()) // 16 * 16
    return n if n >= 32 else 0


class UniModel(nn.Module):
    """Examples in, Losses out; and on top of that reading, writing and drawing, from prompts and pictures."""
    def __init__(self, config: Config, tokenizer=None):
        super().__init__()
        c, C = config, config.hidden_size
        self.config, self.run, self.folder = config, {}, None              # backbone/folders.py fills the last two
        self.language_model = nn.ModuleDict({"model": Decoder(c), "lm_head": nn.Linear(C, c.vocab_size, bias=False)})
        self.vit_model = nn.ModuleDict({"vision_model": VisionTower(c)})
        self.connector = gelu_mlp(c.vit_hidden_size, C, C)
        self.time_embedder = TimeEmbedder(C)
        self.vae2llm, self.llm2vae = nn.Linear(c.token_dim, C), nn.Linear(C, c.token_dim)
        self.latent_pos_embed = PositionTable(C, c.max_latent_size)
        self.vit_pos_embed = PositionTable(C, c.vit_max_patches)
        self.vae = AutoEncoder(c).requires_grad_(False)    # a fixed canvas: never trained with the decoder
        self.grid = (c.image_size // c.stride,) * 2        # latent tokens down and across the pictures it draws
        self.set_tokenizer(tokenizer)

    def set_tokenizer(self, tokenizer):
        self.tokenizer = tokenizer
        if tokenizer is not None:
            self.bos, self.eos, self.soi, self.eoi = tokenizer.convert_tokens_to_ids(list(SPECIAL))

    @property
    def device(self):
        return self.llm2vae.weight.device

    def init_weights(self):
        """For training from nothing. Residual outputs start small (depth), the image head at zero (as BAGEL's)."""
        for name, m in self.named_modules():
            if isinstance(m, (nn.Linear, nn.Embedding)):
                nn.init.normal_(m.weight, std=0.02 if isinstance(m, nn.Embedding) else m.in_features ** -0.5)
                if isinstance(m, nn.Linear) and m.bias is not None:
                    nn.init.zeros_(m.bias)
            if name.endswith(("o_proj", "down_proj", "o_proj_moe_gen", "out_proj", "mlp.fc2")):
                m.weight.data /= math.sqrt(2 * self.config.num_hidden_layers)
        nn.init.zeros_(self.llm2vae.weight)

    # -- from a Sample to tensors --
    def patches(self, image: Image.Image):
        """What the eye gets of a picture: (n, 3 p^2), and places in its position table (n,)."""
        return seen_patches(image, self.config)

    @torch.no_grad()
    def latents(self, images: list[Image.Image]) -> torch.Tensor:
        """(B, 2, Z, h, w): mean and std, for pictures of one size."""
        pixels = torch.stack([to_pixels(as_drawn(image, self.config)) for image in images])
        return torch.stack(self.vae.encode(pixels.to(self.device)), 1)

    def text_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def prepare(self, sample, latent=None) -> Example:
        """Tokenizes, patchifies and encodes a Sample once. A known `latent` (2, Z, h, w) spares the autoencoder."""
        ids, labels, position, patches, places, bare, at = [], [], [], None, None, None, 0
        if sample.image is not None:
            patches, places = self.patches(sample.image)
            ids += [self.soi] + [0] * len(patches) + [self.eoi]
            labels += [-100] * len(ids)
            position += [0] * len(ids)                     # a picture is one position: everyone in it sees everyone
            at = 1
        for text, learned in ((sample.prompt, False), (sample.response, True)):
            if text is not None:
                chunk = [self.bos] + self.text_ids(text) + [self.eos]
                ids += chunk
                labels += chunk[1:] + [-100] if learned else [-100] * len(chunk)
                position += range(at, at + len(chunk))
                at += len(chunk)
        if sample.target is not None:
            latent = self.latents([sample.target])[0].cpu() if latent is None else latent
            marks, silent = [self.soi, self.eoi], [-100, -100]
            bare = Example(torch.tensor(marks), torch.tensor(silent), torch.tensor([0, 0]), latent=latent)
            ids, labels, position = ids + marks, labels + silent, position + [at, at]
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
        y = self.connector(self.vit_model["vision_model"](patch.to(self.llm2vae.weight.dtype), place))
        y = (y + self.vit_pos_embed.pos_embed[place.clamp(min=0)]).to(x.dtype)
        real = place >= 0
        row = torch.tensor(rows, device=self.device)[:, None].expand_as(place)[real]
        column = (torch.arange(place.shape[1], device=self.device) + 1).expand_as(place)[real]
        return x.index_put((row, column), y[real]), position

    def embed_gen(self, x_t, t, places):
        """Noised latents x_t (B, N, token_dim) at time t (B,) and table positions (B, N) -> (B, N, C)."""
        x_t = x_t.to(self.vae2llm.weight.dtype)
        return self.vae2llm(x_t) + self.time_embedder(t)[:, None] + self.latent_pos_embed.pos_embed[places]

    # -- training --
    def forward(self, examples: list[Example], seeds=None, t=None, noise=None) -> Losses:
        """CE of the responses, |v - (noise - x_0)|^2 at x_t = (1 - t) x_0 + t noise (rectified flow: arXiv 2209.03003).
        t (B,) and noise [(N, token_dim)], if not given, come from the seed of each example: how a batch is cut into
        micro-batches, or dealt out to several GPUs, then changes nothing."""
        generators = [torch.Generator().manual_seed(s) for s in seeds] if seeds else [None] * len(examples)
        device = self.device
        context, examples = self.read_once(examples)
        labels = pad_rows([e.labels for e in examples], -100).to(device)                  # (B, T)
        und, position = self.embed_und(examples)
        x0, places = self.latent_tokens(examples, generators)
        if t is None:                       # logit-normal: the middle of the way is the hardest part (arXiv 2403.03206)
            t = torch.sigmoid(torch.cat([torch.randn(1, generator=g) for g in generators]))
            t = shift_time(t, self.config.timestep_shift).to(device)
        if noise is None:
            noise = [torch.randn(x0.shape[1:], generator=g) for g in generators]
        noise = pad_sequence(noise, True)
        noise, real = noise.to(device), places >= 0                                       # (B, N, token_dim), (B, N)
        x_t = (1 - t)[:, None, None] * x0 + t[:, None, None] * noise
        gen = self.embed_gen(x_t, t, places.clamp(min=0)).to(und.dtype)
        # The latents stand where their SOI and EOI stand: at the last position of their row.
        last = torch.where(position == PAD, 0, position).amax(1, keepdim=True)
        position = torch.cat((position, torch.where(real, last, PAD)), 1)
        und, gen, _ = self.language_model.model(und, gen, position, context)
        ce, ce_tokens = self.cross_entropy(und, labels)
        error = (self.llm2vae(gen).float() - (noise - x0)).square().mean(-1)              # (B, N)
        return Losses(ce, ce_tokens, (error * real).sum(1), real.sum(1), t)

    def read_once(self, examples):
        """Reads what all texts begin with, such as who is speaking, in one row -> its Context, for all rows, or None;
        and what is left of the examples. Gradients flow through it: nothing changes but the time."""
        n, first = shared_beginning(examples), examples[0]
        if not n:
            return None, examples
        und, position = self.embed_und([Example(first.ids[:n], first.labels[:n], first.position[:n])])
        _, _, kv = self.language_model.model(und, und[:, :0], position)
        left = [replace(e, ids=e.ids[n:], labels=e.labels[n:], position=e.position[n:]) for e in examples]
        return Context(kv, position, position[:, -1] + 1).repeat(len(examples)), left

    def latent_tokens(self, examples, generators):
        """x_0 (B, N, token_dim) sampled from the autoencoder's Gaussian; places (B, N), -1 where a row has none."""
        p, tokens, places = self.config.latent_patch_size, [], []
        for e, g in zip(examples, generators):
            if e.latent is None:
                tokens.append(torch.zeros(0, self.config.token_dim))
                places.append(torch.zeros(0, dtype=torch.long))
                continue
            mean, std = e.latent.float()
            z = mean + std * torch.randn(mean.shape, generator=g)
            tokens.append(patchify(z[None], p)[0])
            places.append(table_places(z.shape[1] // p, z.shape[2] // p, self.config.max_latent_size))
        return pad_sequence(tokens, True).to(self.device), pad_sequence(places, True, -1).to(self.device)

    def cross_entropy(self, und, labels):
        """und (B, T, C), labels (B, T) -> sum of CE and count of labelled tokens per row; only those meet the words."""
        keep = labels >= 0
        hidden, target = (pad_rows([x[keep]], value, 64)[0] for x, value in ((und, 0), (labels, -100)))
        nll = F.cross_entropy(self.language_model.lm_head(hidden).float(), target, reduction="none")[:keep.sum()]
        return torch.zeros(len(und), device=und.device).index_add(0, keep.nonzero()[:, 0], nll), keep.sum(1)

    # -- reading: contexts --
    def readings(self, prompts, images, responses=None) -> list[Example]:
        """Samples that are only read, or whose responses are only scored."""
        nothing = [None] * len(prompts)
        rows = zip(prompts, images or nothing, responses or nothing)
        return [self.prepare(SimpleNamespace(prompt=p, image=image, response=r, target=None)) for p, image, r in rows]

    def context(self, prompts: list[str | None], images=None, before: Context | None = None) -> Context:
        """Reads [image][bos prompt eos] of every row once, behind what was read `before`. A prompt of None is no text at
        all (for guidance)."""
        examples = self.readings(prompts, images)
        und, position = self.embed_und(examples)
        following = torch.tensor([int(e.position[-1]) + 1 if len(e.position) else 0 for e in examples]).to(self.device)
        if before is not None:
            position = torch.where(position < PAD, position + before.next[:, None], PAD)
        _, _, kv = self.language_model.model(und, und[:, :0], position, before)
        if before is None:
            return Context(kv, position, following)
        return Context(kv, torch.cat((before.position, position), 1), before.next + following)

    def extend(self, context: Context, ids) -> tuple[torch.Tensor, Context]:
        """Reads ids (B, n) behind the context -> hidden states (B, n, C) and the longer context."""
        und = self.language_model.model.embed_tokens(ids)
        position = context.next[:, None] + torch.arange(ids.shape[1], device=ids.device)
        hidden, _, kv = self.language_model.model(und, und[:, :0], position, context)
        return hidden, Context(kv, torch.cat((context.position, position), 1), context.next + ids.shape[1])

    # -- writing --
    @torch.no_grad()
    def generate_text(self, prompts, images=None, max_tokens=200, temperature=0.0, generator=None,
                      stream=None) -> list[str]:
        """Replies, greedy at temperature 0. `stream` gets every new piece of text (one prompt only)."""
        context = self.context(prompts, images)
        token = torch.full((len(prompts), 1), self.bos, device=self.device)
        written, done, shown = [[] for _ in prompts], [False] * len(prompts), ""
        for _ in range(max_tokens):
            hidden, context = self.extend(context, token)
            logits = self.language_model.lm_head(hidden[:, -1]).float()
            if temperature > 0:
                p = (logits / temperature).softmax(-1).cpu()
                token = torch.multinomial(p, 1, generator=generator).to(self.device)
            else:
                token = logits.argmax(-1, keepdim=True)
            for b, i in enumerate(token[:, 0].tolist()):
                done[b] = done[b] or i == self.eos
                written[b] += [] if done[b] else [i]
            if stream and not done[0]:
                text = self.tokenizer.decode(written[0])
                if not text.endswith("\ufffd"):            # half of a character: wait for the other half
                    stream(text[len(shown):])
                    shown = text
            if all(done):
                break
        return [self.tokenizer.decode(ids).strip() for ids in written]

    # -- drawing --
    def velocity(self, x_t, t, context: Context, unconditional: Context | None = None, scale: float = 1.0):
        """v(x_t, t) for x_t (B, N, token_dim); guided by `scale` if the unconditional context `unconditional` is given."""
        B, N = x_t.shape[:2]
        places = table_places(*self.grid, self.config.max_latent_size).to(x_t.device)
        marks = torch.tensor([self.soi, self.eoi], device=x_t.device).expand(B, 2)        # und tokens round the latents
        und = self.language_model.model.embed_tokens(marks)
        gen = self.embed_gen(x_t, t.expand(B), places.expand(B, N)).to(und.dtype)

        def run(context):
            position = context.next[:, None].expand(B, N + 2)
            return self.llm2vae(self.language_model.model(und, gen, position, context)[1]).float()
        v = run(context)
        return v if unconditional is None or scale <= 1 else guide(v, run(unconditional), scale)

    def timesteps(self, steps: int, shift: float):
        """K + 1 times from 1 to 0, in float32."""
        return shift_time(torch.linspace(1, 0, steps + 1, device=self.device), shift)

    def flow(self, noise, context, steps, shift=3.0, scale=1.0, interval=(0.4, 1.0), step=euler, on_step=None,
             begin=0, end=None):
        """From noise (B, N, token_dim) at t = 1 to latents at t = 0, in float32; or the steps begin .. end - 1 of that
        way. `step(x, v, t, t_next)` moves x: euler follows the ODE; Character-GRPO passes an SDE step. Guidance acts
        where interval[0] < t <= interval[1]."""
        x, t = noise.float(), self.timesteps(steps, shift)
        unconditional = self.context([None] * len(noise)) if scale > 1 else None
        for k in range(begin, steps if end is None else end):
            guided = unconditional if interval[0] < t[k] <= interval[1] else None
            x = step(x, self.velocity(x, t[k], context, guided, scale), t[k], t[k + 1])
            if on_step:
                on_step(k + 1, steps)
        return x

    @property
    def latent_count(self) -> int:                         # N of a picture
        return self.grid[0] * self.grid[1]

    def noise(self, seeds: list[int]) -> torch.Tensor:
        """One seed, one picture, whatever batch it is drawn in: (B, N, token_dim)."""
        shape, generators = (self.latent_count, self.config.token_dim), (torch.Generator().manual_seed(s) for s in seeds)
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(self.device)

    @torch.no_grad()
    def decode(self, x) -> list[Image.Image]:
        """Latent tokens (B, N, token_dim) -> pictures, a megapixel at a time: the canvas is hungry."""
        z = unpatchify(x.float(), self.config.latent_patch_size, *self.grid)
        return [image for part in z.split(max(1, 2 ** 20 // self.config.image_size ** 2))
                for image in to_images(self.vae.decode(part))]

    @torch.no_grad()
    def sample_images(self, prompts, seeds, steps=20, guidance=0.0, shift=3.0, on_step=None) -> list[Image.Image]:
        """Draws one picture for every prompt and seed; guidance 0 is the model's own, 1 is none."""
        scale = guidance or self.config.guidance
        return self.decode(self.flow(self.noise(seeds), self.context(prompts), steps, shift, scale, on_step=on_step))
