"""Worlds of many small parts, where a model generalises and a value function by itself does not (Young et al. 2023)."""

from envs.entry import Entry

TABLE = {
    "pan-flute": Entry("envs.factored.worlds:pan_flute"),
    "pan-flute-4": Entry("envs.factored.worlds:pan_flute", settings={"pipes": 4}),
    "button-grid": Entry("envs.factored.worlds:button_grid"),
    "maze-4x4": Entry("envs.factored.worlds:maze", settings={"size": 4}),
    "maze-8x8": Entry("envs.factored.worlds:maze", settings={"size": 8}),
    "open-grid": Entry("envs.factored.worlds:open_grid"),
    "point-among-noise": Entry("envs.factored.noise:point_among_noise"),
}
