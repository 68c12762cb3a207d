"""The vision encoder and the autoencoder: a picture as features to read, and as latents to draw.

    picture -- fit -- patchify --> VisionTower            features that the decoder reads         SigLIP's, as in BAGEL
    picture <-> AutoEncoder <-> latents <-- patchify -->  tokens that the image head predicts     FLUX's, as in BAGEL

Both keep the parameter names of the published checkpoints, and the method changes neither. A reader who knows vision
transformers and autoencoders may skip this file. Shapes as in model.py; `c` is its Config.
"""
from collections import OrderedDict

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image

# ---- pixels ----------------------------------------------------------------------------------------------------------

def to_pixels(image: Image.Image) -> torch.Tensor:
    """PIL RGB -> (3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)


def to_images(pixels) -> list[Image.Image]:
    """(B, 3, h, w) in [-1, 1] -> B pictures. Values are cut off to whole numbers, as in the published code."""
    array = ((pixels.float() * 0.5 + 0.5).clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(a) for a in array]


def fitted_size(w: int, h: int, longest: int, shortest: int, stride: int, area: float = 1_806_336) -> tuple[int, int]:
    """The size to which BAGEL resizes a picture of w x h pixels. Both sides become multiples of `stride`. They end
    within `longest` and, where that allows it, not under `shortest`; the area ends near `area` or below.

    Too large an area is corrected by scaling the SIDES with the ratio of areas, which shrinks more than needed. That is
    kept, since the published weights were trained with it."""
    w, h = scaled(w, h, max(min(longest / max(w, h), 1), shortest / min(w, h)), stride)
    if w * h > area:
        w, h = scaled(w, h, area / (w * h), stride)
    if max(w, h) > longest:
        w, h = scaled(w, h, longest / max(w, h), stride)
    return w, h


def scaled(w: int, h: int, factor: float, stride: int) -> tuple[int, int]:
    """Both sides times a factor, each rounded to a multiple of `stride`, and at least one stride long."""
    def side(length):
        return max(stride, round(round(length * factor) / stride) * stride)
    return side(w), side(h)


def fit(image: Image.Image, c, size: int, stride: int, least: int = 0) -> Image.Image:
    """A picture in RGB, resized. A model for squares gets the square in the middle, with sides of `size`. Others keep
    the picture's shape, within `size` and not under `least` or half of `size`: see `fitted_size`."""
    image = image.convert("RGB")
    if not c.square:
        return image.resize(fitted_size(*image.size, size, least or size // 2, stride), Image.BICUBIC)
    w, h = image.size
    side = min(w, h)
    square = image.crop(((w - side) // 2, (h - side) // 2, (w + side) // 2, (h + side) // 2))
    size = max(stride, round(size / stride) * stride)
    return square.resize((size, size), Image.BICUBIC)


def as_drawn(image: Image.Image, c) -> Image.Image:
    """A picture in the size in which the model would draw it."""
    return fit(image, c, c.image_size, c.stride)


# ---- the vision encoder, SigLIP's ------------------------------------------------------------------------------------

def chain(**parts) -> nn.Sequential:
    """Modules run one after the other, under the names that their parameters have in the published checkpoints."""
    return nn.Sequential(OrderedDict(parts))


def gelu_mlp(cin: int, hidden: int, cout: int) -> nn.Sequential:
    return chain(fc1=nn.Linear(cin, hidden), gelu=nn.GELU("tanh"), fc2=nn.Linear(hidden, cout))


class VisionLayer(nn.Module):
    """A pre-norm transformer layer, (B, n, C_vit) -> the same; mask (B, 1, 1, n) or None."""
    def __init__(self, c):
        super().__init__()
        C, self.heads = c.vit_hidden_size, c.vit_num_attention_heads
        self.layer_norm1 = nn.LayerNorm(C, eps=1e-6)
        self.layer_norm2 = nn.LayerNorm(C, eps=1e-6)
        self.self_attn = nn.ModuleDict({name: nn.Linear(C, C) for name in ("q_proj", "k_proj", "v_proj", "out_proj")})
        self.mlp = gelu_mlp(C, c.vit_intermediate_size, C)

    def forward(self, x, mask):
        y = self.layer_norm1(x)

        def heads(name):                                   # (B, heads, n, D)
            return self.self_attn[name](y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(heads("q_proj"), heads("k_proj"), heads("v_proj"), attn_mask=mask)
        x = x + self.self_attn["out_proj"](y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.layer_norm2(x))


class VisionTower(nn.Module):
    """patches (B, n, 3 p^2) at table positions (B, n), -1 for padding -> features (B, n, C_vit) (arXiv 2502.14786)."""
    def __init__(self, c):
        super().__init__()
        C = c.vit_hidden_size
        self.embeddings = nn.ModuleDict({"patch_embedding": nn.Linear(3 * c.vit_patch_size ** 2, C),
                                         "position_embedding": nn.Embedding(c.vit_max_patches ** 2, C)})
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(VisionLayer(c) for _ in range(c.vit_num_hidden_layers))})
        self.post_layernorm = nn.LayerNorm(C, eps=1e-6)

    def forward(self, patches, place):
        x = self.embeddings["patch_embedding"](patches)
        x = x + self.embeddings["position_embedding"](place.clamp(min=0))
        real = place >= 0
        mask = None if real.all() else real[:, None, None]
        for layer in self.encoder["layers"]:
            x = layer(x, mask)
        return self.post_layernorm(x)


# ---- the autoencoder, FLUX's -----------------------------------------------------------------------------------------

class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), (B, cin, h, w) -> (B, cout, h, w)."""
    def __init__(self, cin: int, cout: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, cin, eps=1e-6)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, cout, eps=1e-6)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        if cin != cout:
            self.nin_shortcut = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """x + single-head attention over the pixels of the coarsest level, (B, ch, h, w) -> the same."""
    def __init__(self, ch: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, ch, eps=1e-6)
        for name in ("q", "k", "v", "proj_out"):
            self.add_module(name, nn.Conv2d(ch, ch, 1))

    def forward(self, x):
        y = self.norm(x)
        q, k, v = (m(y).flatten(2).transpose(1, 2)[:, None] for m in (self.q, self.k, self.v))     # (B, 1, hw, ch)
        y = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.proj_out(y)


def levels(width: list[int], blocks: int, groups: int, resize) -> list[nn.Sequential]:
    """A level for every width but the first: `blocks` ResBlocks from the width before to its own, and then, in all
    levels but the last, `resize(channels)`."""
    made = []
    for cin, cout in zip(width, width[1:]):
        first = ResBlock(cin, cout, groups)
        block = nn.Sequential(first, *(ResBlock(cout, cout, groups) for _ in range(blocks - 1)))
        is_last = len(made) == len(width) - 2
        made.append(chain(block=block) if is_last else chain(block=block, **resize(cout)))
    return made


class Rising(nn.Sequential):
    """The decoder's levels. FLUX numbers them from the finest to the coarsest, but they run the other way."""
    def forward(self, x):
        for level in reversed(self):
            x = level(x)
        return x


class AutoEncoder(nn.Module):
    """Pixels (B, 3, h, w) in [-1, 1] <-> latents (B, Z, h/8, w/8) of about unit variance (arXiv 2112.10752)."""
    def __init__(self, c):
        super().__init__()
        self.scale, self.shift = c.scale_factor, c.shift_factor
        groups, Z = c.ae_norm_groups, c.z_channels
        width = [c.ae_ch * m for m in c.ae_ch_mult]        # channels, from the finest level to the coarsest
        fine, coarse = width[0], width[-1]

        def halve(ch):                                     # padded at the right and at the bottom only, as FLUX
            return {"downsample": chain(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=nn.Conv2d(ch, ch, 3, stride=2))}

        def double(ch):
            return {"upsample": chain(repeat=nn.Upsample(scale_factor=2.0), conv=nn.Conv2d(ch, ch, 3, padding=1))}

        def middle():
            return chain(block_1=ResBlock(coarse, coarse, groups), attn_1=AttnBlock(coarse, groups),
                         block_2=ResBlock(coarse, coarse, groups))
        self.encoder = chain(                              # -> mean and log variance, (B, 2 Z, h/8, w/8)
            conv_in=nn.Conv2d(3, c.ae_ch, 3, padding=1),
            down=nn.Sequential(*levels([c.ae_ch] + width, c.ae_num_res_blocks, groups, halve)),
            mid=middle(), norm_out=nn.GroupNorm(groups, coarse, eps=1e-6), silu=nn.SiLU(),
            conv_out=nn.Conv2d(coarse, 2 * Z, 3, padding=1))
        self.decoder = chain(
            conv_in=nn.Conv2d(Z, coarse, 3, padding=1), mid=middle(),
            up=Rising(*reversed(levels([coarse] + width[::-1], c.ae_num_res_blocks + 1, groups, double))),
            norm_out=nn.GroupNorm(groups, fine, eps=1e-6), silu=nn.SiLU(), conv_out=nn.Conv2d(fine, 3, 3, padding=1))

    def encode(self, pixels):
        """Pixels -> mean and standard deviation of the scaled latents' Gaussian, each (B, Z, h/8, w/8)."""
        mean, logvar = self.encoder(pixels).chunk(2, 1)
        return self.scale * (mean - self.shift), self.scale * torch.exp(0.5 * logvar.clamp(-30, 20))

    def decode(self, z):
        """Scaled latents (B, Z, h/8, w/8) -> pixels (B, 3, h, w)."""
        return self.decoder(z / self.scale + self.shift)
