"""Readers of what users upload: texts and models. They check, limit and normalise; they decide nothing."""
