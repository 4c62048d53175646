"""The search: a config with a space becomes a study, whose trials run as lanes of few compiled programs."""

from jaxtrain.search.study import SearchResult, search

__all__ = ["SearchResult", "search"]
