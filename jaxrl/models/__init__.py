"""What is learned about the world: ensembles of dynamics, denoisers, and what is imagined with them."""
