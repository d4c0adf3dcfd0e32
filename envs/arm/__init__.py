"""An arm of seven joints with a gripper at a table, and five tasks: reach, push, pick and place, peg, door."""

from envs.entry import Entry

TABLE = {
    f"arm-{name}": Entry(f"envs.arm.tasks:{name.replace('-', '_')}")
    for name in ("reach", "push", "pick-and-place", "peg-insertion", "door")
}
