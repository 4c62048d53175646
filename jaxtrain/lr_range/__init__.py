"""Learning-rate range test: a sweep over rates, rules that suggest a rate from it, and its plot."""
