"""DM Control's tasks on MJX, with models of our own."""

from envs.entry import Entry

TABLE = {
    "cartpole-balance": Entry("envs.control.cartpole:balance", 8),
    "cartpole-balance-sparse": Entry("envs.control.cartpole:balance_sparse", 8),
    "cartpole-swingup": Entry("envs.control.cartpole:swingup", 8),
    "cartpole-swingup-sparse": Entry("envs.control.cartpole:swingup_sparse", 8),
    "pendulum-swingup": Entry("envs.control.pendulum:swingup", 4),
    "reacher-easy": Entry("envs.control.reacher:easy", 4),
    "reacher-hard": Entry("envs.control.reacher:hard", 4),
    "cheetah-run": Entry("envs.control.cheetah:run", 4),
    "walker-stand": Entry("envs.control.walker:stand", 2),
    "walker-walk": Entry("envs.control.walker:walk", 2),
    "walker-run": Entry("envs.control.walker:run", 2),
    "humanoid-stand": Entry("envs.control.humanoid:stand", 2),
    "humanoid-walk": Entry("envs.control.humanoid:walk", 2),
    "humanoid-run": Entry("envs.control.humanoid:run", 2),
}
