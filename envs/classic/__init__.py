"""Classic control, analytic: equal to Gymnasium's definitions in dynamics, rewards, starts and limits."""

from envs.entry import Entry

TABLE = {
    "cartpole": Entry("envs.classic.cartpole:cartpole"),
    "cartpole-masked": Entry("envs.classic.cartpole:cartpole", settings={"masked": True}),
    "pendulum": Entry("envs.classic.pendulum:pendulum"),
    "acrobot": Entry("envs.classic.acrobot:acrobot"),
    "mountain-car": Entry("envs.classic.mountain_car:mountain_car"),
    "mountain-car-continuous": Entry("envs.classic.mountain_car:mountain_car", settings={"continuous": True}),
}
