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
    "point-mass-easy": Entry("envs.control.point_mass:easy", 4),
    "finger-spin": Entry("envs.control.finger:spin", 2),
    "finger-turn-easy": Entry("envs.control.finger:turn_easy", 2),
    "finger-turn-hard": Entry("envs.control.finger:turn_hard", 2),
    "hopper-stand": Entry("envs.control.hopper:stand", 4),
    "hopper-hop": Entry("envs.control.hopper:hop", 4),
    "acrobot-swingup": Entry("envs.control.acrobot:swingup", 4),
    "acrobot-swingup-sparse": Entry("envs.control.acrobot:swingup_sparse", 4),
    "ball-in-cup-catch": Entry("envs.control.ball_in_cup:catch", 4),
    "humanoid-stand": Entry("envs.control.humanoid:stand", 2),
    "humanoid-walk": Entry("envs.control.humanoid:walk", 2),
    "humanoid-run": Entry("envs.control.humanoid:run", 2),
    "quadruped-walk": Entry("envs.control.quadruped:walk", 2),
    "quadruped-run": Entry("envs.control.quadruped:run", 2),
    "fish-upright": Entry("envs.control.fish:upright", 2),
    "fish-swim": Entry("envs.control.fish:swim", 2),
    "manipulator-bring-ball": Entry("envs.control.manipulator:bring_ball", 2),
}
