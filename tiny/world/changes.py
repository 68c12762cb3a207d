"""The same scene with one thing otherwise: for judges, which have to notice, and for near misses, which are mended."""
from __future__ import annotations

import random
from dataclasses import replace

from tiny.world.scene import Scene, conflict, random_scene

CHANGES = (("expression",), ("pose",), ("held", "held_color"), ("held_color",), ("held_color",), ("place", "weather"),
           ("weather",), ("beside", "beside_color"), ("beside_color",), ("top_color",), ("fur",), ("species", "fur"),
           ("hat", "hat_color"), ("top",), ("eyewear",), ("side",), ("position",), ("hand",))
COLORS = (("fur",), ("top_color",), ("hat_color",), ("held_color",), ("beside_color",))
HALF_COLORS = len(COLORS) * CHANGES + len(CHANGES) * COLORS             # one or the other, equally often


def changed(scene: Scene, rng: random.Random, among=CHANGES) -> Scene:
    """The scene with one thing as it is in another, or with two colors changed about."""
    while True:
        other = random_scene(rng, framing=scene.framing)
        new = {name: getattr(other, name) for name in rng.choice(among)}
        if rng.random() < 0.15 and scene.held_color and scene.top_color:
            new = {"held_color": scene.top_color, "top_color": scene.held_color}
        result = replace(scene, **new)
        if result != scene and not conflict(result):
            return result


def retold(scene: Scene, caption, rng: random.Random, among=CHANGES) -> tuple[Scene, str]:
    """A changed scene of which `caption` says something else, and what it says: much of a scene is not told."""
    told = text = caption(scene)
    while text == told:
        text = caption(other := changed(scene, rng, among))
    return other, text
