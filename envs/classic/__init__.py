"""Classic control, analytic: equal to Gymnasium's definitions in dynamics, rewards, starts and limits."""
