"""The six procedural categories of the synthetic data set: the surface of each, before lighting.

Every drawing is a function of coordinates, so bending the coordinates bends the object. Lengths are in units of
1/128 of the image side ("pixels at 128"), whatever the resolution; colours are linear light in [0, 1]. Shapes: `H, W`
is the supersampled grid. A drawing consumes the same random numbers with a missing part as without one, so that a
defective image and its flawless twin differ in the defect alone.
"""

import numpy as np

from uniad_lightning.data.synthetic.surface import (
    Array,
    Category,
    Frame,
    Gap,
    Surface,
    blob,
    box,
    colour,
    mix,
    noise,
    step,
)


def fabric(frame: Frame, rng: np.random.Generator, gap: Gap | None) -> Surface:
    """2/2 twill of indigo warp over ecru weft; a missing part is a stretch of two warp threads."""
    pitch, quarter = 4.6, np.float32(np.pi / 2)
    x, y = frame.x, frame.y
    u, v = x / pitch + 0.2 * noise(x / 17, y / 17, rng), y / pitch + 0.2 * noise(x / 21, y / 21, rng)
    column, row = np.floor(u), np.floor(v)
    across, along = u - column - 0.5, v - row - 0.5
    fuzz = noise(x / 0.9, y / 0.9, rng)
    dye = rng.normal(1, 0.09, (2, 64)).astype(np.float32)
    # A thread is a half cylinder that dives under its neighbours: two over, two under, one on with each thread.
    warp = 1.1 * np.sqrt(np.clip(1 - 4 * across**2, 0, 1)) + 0.75 * np.cos(quarter * (v + column))
    weft = 1.1 * np.sqrt(np.clip(1 - 4 * along**2, 0, 1)) - 0.75 * np.cos(quarter * (u + row))
    if gap is not None:
        gone = (np.abs(column - np.floor(gap.x / pitch) - 0.5) < 1.0) & (np.abs(y - gap.y) < 1.7 * gap.reach)
        warp = np.where(gone, np.float32(-1.6), warp)
    height = np.maximum(warp, weft)
    blue = colour("3f5f92") * dye[0][column.astype(np.int32) & 63]
    ecru = colour("c4bca8") * dye[1][row.astype(np.int32) & 63]
    twist = 0.88 + 0.12 * np.sin(np.float32(2 * np.pi) * (2 * (u + v) + across)) + 0.10 * fuzz
    albedo = np.where(warp > weft, blue, ecru) * (twist * (0.25 + 0.75 * step(-1.3, 0.9, height)))
    return Surface(albedo, 0.8 * height + 0.1 * fuzz, np.full_like(x, 0.01), np.ones_like(x))


def wood(frame: Frame, rng: np.random.Generator, gap: Gap | None) -> Surface:
    """Varnished oak boards with growth rings, pores and a joint every 46 pixels; a missing part is torn out."""
    x, y = frame.x, frame.y
    board = np.floor(y / 46)
    joint = np.abs(y - (board + 0.5) * 46) - 21.6
    x = x + 37 * board
    ring = y / 5.2 + 2.2 * noise(x / 58, y / 21, rng) + 0.5 * noise(x / 25, y / 7, rng) + 3.3 * board
    phase = ring - np.floor(ring)
    late = phase * phase * step(1.0, 0.86, phase)
    fibre = noise(x / 14, y / 0.9, rng)
    pore = step(0.45, 0.8, noise(x / 9, y / 1.3, rng)) * (0.35 + 0.65 * late)
    tone = rng.normal(1, 0.07, 64).astype(np.float32)[board.astype(np.int32) & 63]
    albedo = mix(colour("c99a62"), colour("8a5a30"), 0.85 * late) * (tone * (1 + 0.10 * fibre) * (1 - 0.45 * pore))
    height = 0.12 * fibre - 0.5 * pore - 1.4 * step(-0.8, 0.6, joint)
    albedo = albedo * (1 - 0.75 * step(-0.9, 0.3, joint))
    gloss = np.full_like(x, 0.05)
    if gap is not None:
        torn = blob(frame.x * 0.55, frame.y + 1.2 * fibre, gap._replace(x=gap.x * 0.55))
        hole = step(0.4, -0.8, torn)
        raw = colour("a97f52") * (0.55 + 0.35 * fibre)
        albedo = mix(albedo, raw, hole)
        height = height - 3.6 * step(0.5, -2.2, torn) + 0.5 * hole * fibre
        gloss = gloss * (1 - hole)
    return Surface(albedo, height, gloss, np.ones_like(x))


def tile(frame: Frame, rng: np.random.Generator, gap: Gap | None) -> Surface:
    """Mosaic of glazed hexagons 19 pixels across in pale grout; a missing part is chipped down to the clay."""
    across, root = 19.0, np.float32(np.sqrt(3))
    u, v = frame.x / across, frame.y / across
    # The hexagonal lattice is two rectangular ones; a point belongs to the nearer centre.
    first = np.stack([np.round(u), np.round(v / root) * root])
    second = np.stack([np.floor(u) + 0.5, (np.floor(v / root) + 0.5) * root])
    near = (u - first[0]) ** 2 + (v - first[1]) ** 2 < (u - second[0]) ** 2 + (v - second[1]) ** 2
    centre = np.where(near, first, second)
    du, dv = np.abs(u - centre[0]), np.abs(v - centre[1])
    edge = (0.5 - np.maximum(du, 0.5 * du + 0.5 * root * dv)) * across
    name = (np.round(centre[0] * 2) * 7 + np.round(centre[1] * 2 / root) * 29).astype(np.int32) & 127
    glaze = rng.uniform(0, 1, 128).astype(np.float32)[name]
    lean = rng.normal(0, 0.015, (2, 128)).astype(np.float32)[:, name]
    cloud = noise(frame.x / 4.5, frame.y / 4.5, rng)
    grain = noise(frame.x / 1.1, frame.y / 1.1, rng)
    body = mix(colour("2f7f86"), colour("77b5ae"), np.clip(0.25 + 0.5 * glaze + 0.08 * cloud, 0, 1))
    face = step(0.7, 1.3, edge)
    albedo = mix(colour("bdb6a8") * (1 + 0.14 * grain), body * (0.85 + 0.15 * step(0.8, 3.5, edge)), face)
    height = 1.9 * step(0.4, 2.6, edge) + (lean[0] * (u - centre[0]) + lean[1] * (v - centre[1])) * across * face
    height = height + 0.12 * grain * (1 - face) + 0.10 * cloud * face
    gloss = 0.30 * face
    if gap is not None:
        chip = blob(frame.x, frame.y, gap) + 0.5 * grain
        hole = step(0.3, -0.4, chip)
        albedo = mix(albedo, colour("a07a60") * (0.8 + 0.25 * grain), hole)
        height = mix(height, -1.0 + 0.35 * grain + 0.3 * cloud, step(0.6, -1.2, chip))
        gloss = gloss * (1 - hole)
    return Surface(albedo, height, gloss, np.ones_like(u))


def gear(frame: Frame, rng: np.random.Generator, gap: Gap | None) -> Surface:
    """Turned steel gear with twelve teeth, five holes, hub and keyway; a missing part is a tooth broken off."""
    teeth, tau = 12, np.float32(2 * np.pi)
    x, y = frame.x, frame.y
    r, t = np.hypot(x, y), np.arctan2(y, x)
    crown = np.clip(1.35 * np.cos(teeth * t) + 0.1, -1, 1)
    rim = 39.5 + 5.0 * crown
    rough = noise(x / 1.6, y / 1.6, rng)
    if gap is not None:
        slot = np.round(np.arctan2(gap.y, gap.x) / tau * teeth) * tau / teeth
        away = np.abs((t - slot + np.pi) % tau - np.pi)
        rim = np.where(away < np.pi / teeth, np.minimum(rim, 36.3 + 0.9 * rough), rim)
    fold = (t % (tau / 5)) - tau / 10
    hole = np.hypot(r * np.cos(fold) - 22.5, r * np.sin(fold)) - 6.0
    bore = np.minimum(r - 7.5, box(x, y - 8.0, 2.2, 3.0))
    inside = np.minimum(np.minimum(0.8 * (rim - r), hole), bore)
    web = step(13.2, 14.6, r) * step(32.2, 30.6, r)
    lathe = np.interp(r, np.arange(96) * 0.5, rng.normal(0, 1, 96)).astype(np.float32)
    height = np.minimum(np.maximum(inside, 0), 1.7) - 1.9 * web + 0.025 * lathe + 0.03 * rough
    # A turned face mirrors a lamp as two opposite bright sectors that stay where they are when the part rotates.
    sector = np.cos(2 * (t + frame.angle) + rng.uniform(0.6, 1.8))
    polish = (0.55 + 0.55 * sector * sector * step(-0.3, 1.0, sector) + 0.05 * lathe + 0.03 * rough) * (1 - 0.3 * web)
    albedo = colour("b0b4ba") * polish
    return Surface(albedo, height, np.full_like(r, 0.45), (inside > 0).astype(np.float32))


def capsule(frame: Frame, rng: np.random.Generator, gap: Gap | None) -> Surface:
    """Two-part gelatine capsule with an imprint; a missing part is a piece of shell, the powder showing."""
    x, y = frame.x, frame.y
    cap = step(2.2, 1.8, x)
    radius = 19.0 + 1.0 * cap
    axis = np.hypot(x - np.clip(x, -29.0, 29.0), y)
    grain = noise(x / 1.5, y / 1.5, rng)
    height = np.sqrt(np.clip(radius**2 - axis**2, 0, None))
    alpha = (axis < radius).astype(np.float32)
    albedo = mix(colour("e6dbc0"), colour("ad3d2b"), cap) * (
        (1 + 0.04 * grain) * (1 - 0.45 * step(1.4, 0.2, np.abs(x - 2.7)))
    )
    one, nought = box(x - 14, y, 1.5, 5.8), np.abs(box(x - 22, y, 2.9, 4.9, 2.8)) - 1.3
    band = np.abs(box(x + 17, y, 7.6, 5.0, 4.6)) - 1.1
    albedo = mix(albedo, colour("4a3a34"), 0.75 * step(0.4, -0.4, np.minimum(np.minimum(one, nought), band)))
    gloss = np.full_like(x, 0.55)
    if gap is not None:
        crack = blob(x, y, gap) + 0.4 * grain
        hole = step(0.3, -0.4, crack)
        albedo = mix(albedo, colour("c9b183") * (0.55 + 0.3 * grain), hole)
        height = height - 3.5 * step(0.2, -1.5, crack) + 0.5 * grain * hole
        gloss = gloss * (1 - hole)
        alpha = alpha * np.where((crack < 0) & (axis > radius - 4.5), 0, 1).astype(np.float32)
    return Surface(albedo, height, gloss, alpha)


# Centres of the chip's pins (upper, lower row), the header's pins, the resistors and the capacitor on the board.
_PARTS = np.array(
    [(8.2 * k - 12.3, y) for y in (-20, 20) for k in range(4)]
    + [(-38, 11.4 * k - 17.1) for k in range(4)]
    + [(33, 11 * k - 26) for k in range(3)]
    + [(33, 20)]
)


def circuit(frame: Frame, rng: np.random.Generator, gap: Gap | None) -> Surface:
    """Green circuit board with chip, header, resistors and capacitor; missing are the parts nearest the gap."""
    x, y = frame.x, frame.y
    grain, cloud = noise(x / 1.2, y / 1.2, rng), noise(x / 16, y / 16, rng)
    edge, ring = box(x, y, 51, 38.5, 4), np.hypot(np.abs(x) - 45.5, np.abs(y) - 33)
    board = Surface(
        albedo=colour("1d6b45") * (1 + 0.06 * grain + 0.08 * cloud),
        height=0.6 * step(0, -1.2, edge) + 0.03 * grain,
        gloss=np.full_like(x, 0.14),
        alpha=(np.maximum(edge, 2.7 - ring) < 0).astype(np.float32),
    )
    _lay(board, ring - 4.4, colour("cfa650"), 0.2, 0.4)
    lost = np.zeros(len(_PARTS), np.float32)
    if gap is not None:
        away = np.hypot(*(_PARTS - (gap.x, gap.y)).T)
        lost[away <= max(away.min(), 1.2 * gap.reach)] = 99
    _populate(board, x, y, 1 + 0.12 * grain, lost)
    return board


def _populate(board: Surface, x: Array, y: Array, grain: Array, lost: Array) -> None:
    """Lays traces, pads and parts on the bare board; `lost` (16,) pushes a part's outline out of sight."""
    tin, gold, black, copper = colour("c3c6c8"), colour("cfa650"), colour("2d2d30"), colour("a8743c")
    # Rows of equal parts are one part in folded coordinates.
    column, row = np.clip(np.floor(x / 8.2), -2, 1), np.clip(np.floor(y / 11.4), -2, 1)
    line, side = np.clip(np.round((y + 15) / 11), -1, 1), np.abs(y)
    pin_x, plug_y, part_y = x - 8.2 * column - 4.1, y - 11.4 * row - 5.7, y + 15 - 11 * line
    pins, plugs, parts = (lost[i.astype(np.int32)] for i in (column + 2 + 4 * (y > 0), row + 10, line + 13))
    can, right = np.hypot(x - 33, y - 20), x - 33
    traces = (box(pin_x, side - 27, 0.9, 6), box(x + 26, plug_y, 9, 0.9), box(x - 23, part_y, 7, 0.9))
    pads = (box(pin_x, side - 21, 2.3, 3.8), box(np.abs(right) - 4.4, part_y, 2.3, 3.4), np.abs(can - 5) - 1.2)
    label = np.minimum(np.hypot(x + 12.5, y - 11) - 1.6, box(x, side - 2.6, 9.0, 1.0))
    _lay(board, np.minimum.reduce(traces), colour("43965f"), 0.3, 0.2)
    _lay(board, np.hypot(pin_x, side - 33.5) - 1.7, gold, 0.2, 0.4)
    _lay(board, np.minimum.reduce(pads), copper, 0.2, 0.3)
    _lay(board, box(pin_x, side - 20, 1.9, 4.6) + pins, tin, 1.4, 0.5)
    _lay(board, box(x, y, 17.0, 15.5, 0.8), black * grain, 2.6, 0.12, 1.6)
    _lay(board, label, colour("8d8f92"), 0, 0.1)
    _lay(board, box(x + 38, y, 5.6, 25.0, 0.8), black * 1.2 * grain, 2.4, 0.15, 1.2)
    _lay(board, box(x + 38, plug_y, 2.9, 2.9, 0.4) + plugs, gold, 2.2, 0.6)
    _lay(board, box(right, part_y, 6.4, 3.4, 0.5) + parts, tin, 1.2, 0.4)
    _lay(board, box(right, part_y, 3.6, 3.6) + parts, colour("3a3530"), 0.3, 0.15)
    _lay(board, can - 8.8 + lost[15], tin, 3.5, 0.35, 2.0)
    _lay(board, np.maximum(can - 7.4, y - 16) + lost[15], black, 0, 0.2)


def _lay(base: Surface, shape: Array, paint: Array, height: float, gloss: float, bevel: float = 0.7) -> None:
    """Puts a part onto `base` in place: its outline as a distance, its paint, how far it stands out, how it shines."""
    hit = shape < 0
    base.albedo[:, hit] = paint[:, hit] if paint.shape[1:] == hit.shape else paint[:, :, 0]
    base.gloss[hit] = gloss
    base.height[hit] += height * step(0, -bevel, shape[hit])


def _rgb(*codes: str) -> tuple[Array, ...]:
    return tuple(colour(code) for code in codes)


# A category's position is part of the random key of its images: append, never reorder.
CATEGORIES: dict[str, Category] = {
    "capsule": Category(capsule, 0.05, 2, 0.02, colour("8f979c"), colour("d8c49a"), _rgb("4b3a2a", "37506b", "5d5a2c")),
    "circuit": Category(circuit, 0.03, 2, 0.02, colour("a9a59c"), colour("b98f5a"), _rgb("6b4a22", "c9c2a8", "33415e")),
    "fabric": Category(fabric, 0.05, 3, 0.03, colour("000000"), colour("4a3b30"), _rgb("5a3d24", "6e2f38", "40532f")),
    "gear": Category(gear, 0.05, 2, 0.02, colour("3f4a55"), colour("f2efe8"), _rgb("7a4322", "3a3128", "86672f")),
    "tile": Category(tile, 0.03, 2, 0.02, colour("000000"), colour("5c4a3e"), _rgb("6b4526", "3d3a33", "7a5424")),
    "wood": Category(wood, 0.03, 3, 0.03, colour("000000"), colour("d9b88a"), _rgb("3b2a20", "3c4560", "5c2f2a")),
}
