"""The learning-rate range test: a sweep over rates, rules that read it, a picture."""
