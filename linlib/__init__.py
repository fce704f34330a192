"""Measure how linear the blocks of a transformer decoder are.

    from linlib.measure import linearity_profile
    from linlib.models import load_model

    frame = linearity_profile(load_model("path/or/hub-id"), input_ids)

A reproduction of "Your Transformer is Secretly Linear" (arXiv 2405.12250), and what lies past it.
"""
