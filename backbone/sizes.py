"""The sizes of a model, and the marks between the parts of what it reads."""
from dataclasses import dataclass

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")   # bos, eos, SOI, EOI


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
