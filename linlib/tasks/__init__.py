"""Definitions of tasks for lm-evaluation-harness, and the functions that they name."""
