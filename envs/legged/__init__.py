"""A twelve-jointed robot that follows velocity commands over terrain, with everything about it drawn at reset."""

from envs.entry import Entry

TABLE = {
    f"legged-{kind}": Entry("envs.legged.quadruped:quadruped", settings={"kind": kind})
    for kind in ("flat", "slopes", "steps", "rough")
}
