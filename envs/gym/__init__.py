"""Gymnasium's MuJoCo locomotion (v5) on MJX, with models of our own."""

from envs.entry import Entry

TABLE = {
    "gym-hopper": Entry("envs.gym.hopper:hopper"),
    "gym-halfcheetah": Entry("envs.gym.halfcheetah:halfcheetah"),
    "gym-walker2d": Entry("envs.gym.walker2d:walker2d"),
    "gym-ant": Entry("envs.gym.ant:ant"),
    "gym-humanoid": Entry("envs.gym.humanoid:humanoid"),
}
