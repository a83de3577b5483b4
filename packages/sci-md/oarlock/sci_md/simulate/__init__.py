"""Simulations: dynamics through ASE, and what is read off them."""
