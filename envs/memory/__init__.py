"""Worlds that ask for a memory: what was seen once decides what is right later."""

from envs.entry import Entry

TABLE = {
    "tmaze": Entry("envs.memory.tmaze:tmaze"),
    "tmaze-50": Entry("envs.memory.tmaze:tmaze", settings={"corridor": 50}),
    "repeat-previous": Entry("envs.memory.repeat:repeat_previous"),
    **{f"ballet-{dancers}": Entry("envs.memory.ballet:ballet", settings={"dancers": dancers}) for dancers in (2, 4, 8)},
    **{
        f"ballet-{dancers}-long": Entry("envs.memory.ballet:ballet", settings={"dancers": dancers, "pause": 48})
        for dancers in (2, 4, 8)
    },
}
