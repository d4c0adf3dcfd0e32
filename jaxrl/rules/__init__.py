"""Mechanisms that act on parts."""
