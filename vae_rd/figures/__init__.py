"""Figures: tables in, Matplotlib figures out."""
