"""Measuring like the papers, and showing it."""
