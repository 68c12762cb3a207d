"""AdamW, and for chosen matrices Muon: every update turns all directions of a matrix by the same amount.

AdamW's updates are mostly of low rank: they follow the few directions in which most gradients point, and what only few
examples teach comes last. Muon (kellerjordan.github.io/posts/muon) makes the momentum orthogonal before it is added.
A character is all rare things, five hundred replies that are said to be one of five hundred, so this suits it; and the
words come out better as well, see docs/choices.md.

torch.optim.Muon does the same (a test compares them), but in bfloat16 alone: with it a run on one process and the same
run on two would differ in more than the last digits.

Shapes: W (A, B), as nn.Linear has it.
"""
import torch

from runtime.processes import full, sharded_like

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)      # of the quintic that sends singular values of 0 to 1 near 1, in 5 steps


def orthogonal(G: torch.Tensor, dtype=torch.float32) -> torch.Tensor:
    """(A, B) -> about U V', where G = U S V' is its singular value decomposition. bfloat16 is exact enough for it."""
    a, b, c = NEWTON_SCHULZ
    X = G.mT if G.shape[0] > G.shape[1] else G             # the smaller product
    X = (X / (X.norm() + 1e-7)).to(dtype)
    for _ in range(5):
        square = X @ X.mT
        X = a * X + (b * square + c * square @ square) @ X
    return (X.mT if G.shape[0] > G.shape[1] else X).to(G.dtype)


class MuonAdamW(torch.optim.AdamW):
    """Parameter groups with "muon": True hold matrices and learn by Muon, all others by AdamW. A step has about the size
    of AdamW's at the same rate (arXiv 2502.16982: times 0.2 sqrt(max(A, B))). `dtype`: of Muon's products."""
    def __init__(self, groups: list[dict], dtype=torch.float32, **more):
        super().__init__(groups, **more)
        self.dtype = dtype

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"] if group.get("muon") else ():
                if p.grad is not None:
                    self.turn(p, group["lr"])
                    p.grad = None                          # AdamW, below, passes by what has no gradient
        super().step()

    def turn(self, p: torch.Tensor, rate: float):
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"]
        momentum.lerp_(p.grad, 1 - MOMENTUM)
        ahead = p.grad.lerp(momentum, MOMENTUM)            # Nesterov's
        update = orthogonal(full(ahead), self.dtype)       # of the whole matrix, also where it is sharded
        p.sub_(sharded_like(update * (0.2 * max(p.shape) ** 0.5 * rate), p))
