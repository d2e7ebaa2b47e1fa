"""Baselines and measurements; nothing here is installed."""
