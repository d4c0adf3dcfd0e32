"""The renderer: pictures of environments on the device, pure and batched, without a graphics library.

`render` casts rays at analytic shapes (`scene` makes the table of a MuJoCo model), `shoot` gives depth, segmentation
and normals; `picture` draws a task's state; `pixels` makes pictures the observation, and
`distracted` changes their looks.
"""

from envs.render.cast import Look, Shot, render, shoot
from envs.render.distract import distracted
from envs.render.pictures import picture
from envs.render.pixels import pixels
from envs.render.scene import Poses, Scene, View, cameras, poses, scene, view

__all__ = [
    "Look", "Poses", "Scene", "Shot", "View", "cameras", "distracted", "picture", "pixels", "poses", "render",
    "scene", "shoot", "view",
]  # fmt: skip
