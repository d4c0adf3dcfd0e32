"""Mutation testing: one token of the product is changed at a time, and the tests of its file have to fail."""
